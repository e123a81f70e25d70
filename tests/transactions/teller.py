"""A program to be killed: transfers between accounts, by transactions, of one kind of session.

    python -m tests.transactions.teller APP_URL KIND BANK_URL COUNT [POINT MODE]

Started again with the same arguments it goes on where it was. With POINT and MODE it kills itself (SIGKILL) at that
commit of a session: before it, or between the commit and its answer. Markers: ``body …`` when a transaction is about to
commit, ``result JSON`` at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Generator
from itertools import count as counter
from typing import Any

from perdure import App
from perdure.sessions.apsw import Apsw
from perdure.sessions.asyncpg import Asyncpg
from perdure.sessions.psycopg import AsyncPsycopg, Psycopg
from perdure.sessions.sqlalchemy import AsyncSqlAlchemy, SqlAlchemy
from perdure.sessions.sqlite3 import Sqlite3
from tests.transactions.banks import ACCOUNTS, bank

Flow = Generator[str, Any, Any]
TRANSFERS = 3  # of each workflow


def say(*what: object) -> None:
    os.write(1, f"{' '.join(map(str, what))}\n".encode())  # whole lines, whichever thread speaks


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def strike(point: int, mode: str) -> None:
    """Die at that commit."""
    numbers = counter(1)
    for kind in (Apsw, Sqlite3, Psycopg, SqlAlchemy):

        def blocking(self: Any, commit: Any = kind.commit) -> None:
            here = next(numbers) == point
            if here and mode == "before":
                die()
            commit(self)
            if here:
                die()

        kind.commit = blocking  # type: ignore[method-assign]
    for awaited_kind in (Asyncpg, AsyncPsycopg, AsyncSqlAlchemy):

        async def awaited(self: Any, commit: Any = awaited_kind.commit) -> None:
            here = next(numbers) == point
            if here and mode == "before":
                die()
            await commit(self)
            if here:
                die()

        awaited_kind.commit = awaited  # type: ignore[method-assign]


async def main(app_url: str, kind: str, bank_url: str, count: int) -> None:
    app = App("teller", database=app_url, lease=30)
    async with bank(kind, bank_url) as money:

        def transfer(_db: Any, id: str, n: int) -> Flow:
            source, target = f"a{n % ACCOUNTS}", f"a{(n + 1) % ACCOUNTS}"
            for name, cents in sorted([(source, -7), (target, 7)]):  # in one order, or they deadlock
                yield f"update account set cents = cents + {cents} where name = '{name}'"
            yield f"insert into transfer values ('{id}', null)"
            say("body", id)
            return n

        move = app.transaction(money.source)(money.do(transfer))

        @app.step
        async def between(n: int) -> int:
            return n

        @app.workflow(name="pay")
        async def pay(w: int) -> int:
            total = 0
            for n in range(TRANSFERS):
                total += await move(f"w{w}-{n}", w + n) + await between(n)
            return total

        async with app:
            handles = [await pay.options(id=f"w{w}").start(w) for w in range(count)]
            results = [await handle.result() for handle in handles]
    say("result", json.dumps(results))


if __name__ == "__main__":
    app_url, kind, bank_url, count, *order = sys.argv[1:]
    if order:
        strike(int(order[0]), order[1])
    asyncio.run(main(app_url, kind, bank_url, int(count)))
