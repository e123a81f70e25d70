"""What keeps a database small, tells its size, and carries it elsewhere: the second half of the store's protocol.

Apart from ``Store``, since nothing here is on the way of a workflow: each call is one bounded transaction, on a
connection of its own where the dialect has several, and may be repeated or left out at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from perdure.model.ids import RunKey
from perdure.model.records import Incarnation
from perdure.model.states import Status
from perdure.store.tables import Table


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A run that may be purged, if a rule says so."""

    id: str
    run: int
    name: str
    status: Status
    created: int
    closed: int | None
    records: int  # of its history, as of its end
    needed: bool  # an open workflow may still ask for it
    decided: bool = False  # of an earlier run: whether it ended by what a recovery decided

    @property
    def key(self) -> RunKey:
        return RunKey(self.id, self.run)


class Weight(NamedTuple):
    """What is stored."""

    rows: int = 0
    bytes: int = 0

    def plus(self, other: Weight) -> Weight:
        return Weight(self.rows + other.rows, self.bytes + other.bytes)


class Turn(msgspec.Struct, frozen=True):
    """A chore that is this owner's for a while."""

    now: int
    note: str  # how far it got, "" for a new beginning


class TableSize(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the database, all apps together, with its indexes."""

    name: str
    rows: int
    bytes: int
    dead: int  # rows that were deleted or replaced, and whose room is not free yet (Postgres)


class Kindred(msgspec.Struct, frozen=True, kw_only=True):
    """The workflows of one name and status."""

    name: str
    status: Status
    count: int
    oldest: int  # when the oldest of them was created, microseconds


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What a database holds."""

    now: int
    bytes: int  # of the schema's tables, or of the file with its log
    free: int  # bytes of the file that are free to be used again (SQLite)
    exact: bool  # whether the tables' rows were counted; Postgres tells what it last knew
    tables: list[TableSize]
    kinds: list[Kindred]  # of this app
    past_runs: int  # earlier runs of this app


Key = tuple[Any, ...]
Rows = list[tuple[Any, ...]]


class Upkeep(Protocol):
    """One app's rows of one database."""

    async def rest(self) -> None:
        """Let go of what only this work needs (a connection); the next call makes it again."""
        ...

    async def clock(self, *, now: int | None = None) -> int: ...

    # -- chores: what one process at a time does, without a leader
    async def take(self, chore: str, owner: bytes, lease: int, *, now: int | None = None) -> Turn | int:
        """Take a chore that is due and nobody is at: it is the owner's for ``lease`` microseconds.

        Else when it is due, at the earliest.
        """
        ...

    async def note(
        self, chore: str, owner: bytes, note: str, until: int, *, done: bool = False, now: int | None = None
    ) -> bool:
        """Note how far it got; the owner's for ``until`` more microseconds, or (``done``) not due before.

        False if it is another's by now.
        """
        ...

    # -- retention
    async def ended(self, after: tuple[int, str], before: int, limit: int) -> list[Candidate]:
        """A page of workflows created at ``before`` or earlier, in the order of (created, id), open ones among them."""
        ...

    async def past(self, after: tuple[str, int], limit: int) -> list[Candidate]:
        """A page of earlier runs in the order of (id, run). Needed: the latest run goes on from its records."""
        ...

    async def purge(self, keys: Sequence[RunKey]) -> list[str]:
        """Delete whole workflows, those that are closed, of this latest run, and not needed; their ids. One commit."""
        ...

    async def purge_past(self, keys: Sequence[RunKey]) -> list[RunKey]:
        """Delete these earlier runs, with all that belongs to them; those deleted. One commit."""
        ...

    async def sweep(self, table: Table, after: str, limit: int, before: int) -> tuple[int, str | None]:
        """Delete what was left in a page of ids after ``after``: how many ids had some, and the last id of the page.

        None: there are no more ids. ``before``: what is aged must be older.
        """
        ...

    async def sweep_requests(self, before: int) -> int:
        """Delete questions for which nobody has waited since ``before``; how many."""
        ...

    async def sweep_batches(self, before: int, limit: int) -> int:
        """Forget a part of the batch that ended first, if it ended by ``before``: its targets and audit, then itself.

        How many rows, ``limit`` of a table at most; 0 if there is none.
        """
        ...

    # -- sizes
    async def weigh(self, ids: Sequence[str]) -> Mapping[str, Weight]:
        """What is stored of each of these workflows, in all tables."""
        ...

    async def weigh_past(self, keys: Sequence[RunKey]) -> Mapping[RunKey, Weight]:
        """What is stored of each of these earlier runs."""
        ...

    async def sizes(self, *, now: int | None = None) -> Sizes: ...

    async def vacuum(self) -> int:
        """Give free room back to the file system, as far as the dialect needs to be asked: bytes given back."""
        ...

    # -- copying; see operations/copy.py for the order
    async def columns(self, table: Table) -> list[str]: ...

    async def page(self, table: Table, columns: Sequence[str], after: Key | None, limit: int) -> Rows:
        """Rows of the app in key order."""
        ...

    async def put(self, table: Table, columns: Sequence[str], rows: Rows, chore: str, note: str) -> None:
        """Insert rows that are not there yet, and note it in the same commit."""
        ...

    async def last_seqs(self, keys: Collection[RunKey]) -> Mapping[RunKey, int]:
        """Where the histories of these runs end."""
        ...

    async def settle(self) -> None:
        """Set what only this dialect keeps in a row."""
        ...

    async def clear(self, table: Table, limit: int) -> int:
        """Delete up to ``limit`` rows of the app; how many."""
        ...

    async def serving(self) -> list[Incarnation]:
        """Executors of the app of which nobody has said that they are gone."""
        ...

    async def fence(self, tables: Sequence[str], marks: Mapping[str, str], said: str) -> list[Incarnation]:
        """From this commit on no row of the app is inserted or changed in ``tables``: whoever tries is told ``said``.

        And set the notes ``marks`` in the same commit. Nothing is done if executors serve: then these.
        """
        ...

    async def unfence(self, marks: Mapping[str, str | None]) -> None:
        """Take the fence away, and set these notes (None: forget them) in the same commit."""
        ...

    async def marks(self) -> Mapping[str, str]:
        """The notes of all chores."""
        ...
