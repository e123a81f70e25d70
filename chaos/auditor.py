"""Looks at the accounts again and again while everything fails: each look is one snapshot, which must add up."""

from __future__ import annotations

import threading
from typing import Any

from chaos.database import Database
from chaos.plan import ACCOUNTS, CENTS

SECONDS = 0.5  # between two looks
ACCOUNT_AND_MOVES = """
    select a.name, a.cents,
        (select coalesce(sum(m.cents), 0) from chaos_moved m where m.target = a.name),
        (select coalesce(sum(m.cents), 0) from chaos_moved m where m.source = a.name)
    from chaos_account a order by a.name
"""


def faults_of(accounts: list[tuple[Any, ...]]) -> list[str]:
    """What does not add up in one snapshot: no cent comes or goes, and what an account holds is what was moved."""
    found = [
        f"{name} held {cents}, and by what was moved until then {CENTS + gained - lost}"
        for name, cents, gained, lost in accounts
        if cents != CENTS + gained - lost
    ]
    total = sum(cents for _, cents, _, _ in accounts)
    if total != CENTS * len(ACCOUNTS):
        found.append(f"the accounts held {total} together, and {CENTS * len(ACCOUNTS)} in the beginning")
    return found


class Auditor(threading.Thread):
    """From ``start`` to ``close``. A look that the database does not answer is none."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="auditor", daemon=True)
        self._database = database
        self._over = threading.Event()
        self.looks = 0
        self.faults: list[str] = []

    def run(self) -> None:
        while not self._over.wait(SECONDS):
            try:
                accounts = self._database.look(ACCOUNT_AND_MOVES)
            except Exception:  # stopped, killed, or just starting: no answer
                continue
            self.looks += 1
            self.faults += faults_of(accounts)

    def close(self) -> list[str]:
        """What did not add up."""
        self._over.set()
        self.join()
        return [f"at look {self.looks}: {fault}" for fault in self.faults]
