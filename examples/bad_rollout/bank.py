"""A bank, outside of it all: it books one charge for each idempotency key, however often it is asked.

Its book is a file of its own (``BANK_BOOK``), so that it can be held against what the workflows say.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

BOOK = """create table if not exists charge
(key text primary key, order_ text not null, cents integer not null, asked integer not null)"""
ASK = """insert into charge values (?, ?, ?, 1)
on conflict (key) do update set asked = asked + 1 returning order_, cents"""


class Charge(NamedTuple):
    """A line of the book."""

    key: str
    order: str
    cents: int
    asked: int
    """How often the bank was asked under this key; it was paid once."""


def charge(key: str, order: str, cents: int) -> None:
    """Ask for money. Under a key that it knows the bank answers with what it has booked; another sum is refused."""
    with closing(sqlite3.connect(_book(), timeout=30)) as book, book:
        book.execute("pragma synchronous = off")  # the drill kills processes, not the machine
        [booked] = book.execute(ASK, (key, order, cents)).fetchall()
    if booked != (order, cents):
        raise ValueError(f"the bank has booked {booked} under this key, and was asked for {(order, cents)}")


def charges() -> list[Charge]:
    """The whole book."""
    with closing(sqlite3.connect(_book())) as book:
        return [Charge(*line) for line in book.execute("select * from charge order by order_, key")]


def open_book(path: Path) -> None:
    """Begin an empty book."""
    with closing(sqlite3.connect(path)) as book:
        book.execute("pragma journal_mode = wal").fetchall()
        book.execute(BOOK)


def _book() -> str:
    return os.environ["BANK_BOOK"]
