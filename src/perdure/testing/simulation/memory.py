"""A simulated database as such: tables in memory, its trail, and who may write to it just now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

from perdure.store.sqlite.driver import Connection, steady
from perdure.testing.histcheck.audit import Line
from perdure.testing.simulation.gate import Gate
from perdure.testing.simulation.trail import Trail

BANK = """
create table account (name text primary key, cents integer not null) strict;
create table transfer (token integer primary key, id text not null, run integer not null, path text not null,
    holder text not null, sealed integer not null, pid integer not null) strict;
"""  # the users' own tables


class Memory:
    """One database; ``prepare`` makes its tables."""

    def __init__(self, prepare: Callable[[Connection], object]) -> None:
        self.conn = steady(apsw.Connection(":memory:", statementcachesize=1000))
        self.conn.execute("begin")
        prepare(self.conn)
        self.conn.execute(BANK)
        self.conn.execute("commit")
        self.trail = Trail(self.conn)
        self.gate = Gate()
        self.timeline = 0

    def write(self, job: Callable[[Connection], Any], now: int) -> Any:
        """One transaction, at this time."""
        conn = self.conn
        mark = self.trail.begin(now)
        conn.execute("begin")
        try:
            value = job(conn)
        except BaseException:
            conn.execute("rollback")
            self.trail.undo(mark)
            raise
        conn.execute("commit")
        return value

    def rehearse(self, job: Callable[[Connection], Any], now: int) -> Any:
        """What a transaction would be answered; nothing comes of it."""
        mark = self.trail.begin(now)
        self.conn.execute("begin")
        try:
            return job(self.conn)
        finally:
            self.conn.execute("rollback")
            self.trail.undo(mark)

    def read(self, job: Callable[[Connection], Any]) -> Any:
        """One snapshot; there is nobody else."""
        return job(self.conn)

    def audit(self) -> list[Line]:
        """What happened, so far."""
        return self.trail.lines
