"""All tables, once: what purging, forgetting, weighing, sizes and copying go by.

A new table is one line here. A test compares the list with the catalogues of both dialects: a table that is missing,
or that has another key, fails it.
"""

from __future__ import annotations

import msgspec


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """What the house must know of a table beside its columns."""

    name: str
    key: tuple[str, ...]
    """The columns of its primary key after ``app``: rows are copied in this order."""
    owners: tuple[str, ...] = ()
    """Columns with the id of a workflow: the row goes when that workflow goes. Each leads an index, after ``app``."""
    run: str | None = None
    """The column with the number of the run that the row belongs to: it goes when that earlier run goes."""
    left: str = ""
    """How rows can be left behind, since they are written without the lock of the row they are for: ``gone`` (the
    workflow of ``owners[-1]`` is no more), or ``closed`` (it means nothing from its end on). "": they cannot."""
    aged: str | None = None
    """The column with the time of a row that is kept for a while though its workflow is gone."""
    locked_first: bool = False
    """Whether a transaction locks such a row before workflows: who forgets one leaves a row that is locked alone. Its
    locker gives it to another workflow, or takes that back, and then it is swept."""
    outlives: bool = False
    """Whether it stays when a policy says ``Delete()``: it is the memory of that."""
    copied: bool = True
    """Whether ``db copy`` takes it along: not what is about executors that are not there."""
    heavy: bool = False
    """Whether a row may hold a value of a user's, of up to 2 MB."""


TABLES: tuple[Table, ...] = (
    Table(name="past_run", key=("id", "run"), owners=("id",), run="run"),
    Table(name="payload", key=("id", "run"), owners=("id",), run="run", heavy=True),
    Table(name="history", key=("id", "run", "seq"), owners=("id",), run="run", heavy=True),
    Table(name="event", key=("id", "run", "name"), owners=("id",), run="run", heavy=True),
    Table(name="message", key=("dest", "mid"), owners=("dest",), run="taken_run", left="gone", heavy=True),
    Table(name="wake", key=("dest", "nonce"), owners=("dest",), left="closed"),
    Table(name="watch", key=("target", "waiter"), owners=("waiter",), left="closed"),
    Table(name="trial", key=("id",), owners=("id",), left="closed"),
    Table(name="problem", key=("id", "run", "kind", "path", "version"), owners=("id",), run="run", heavy=True),
    Table(
        name="decision", key=("id", "run", "claim"), owners=("id",), run="run", left="gone", aged="at", outlives=True
    ),
    Table(name="stream", key=("id", "run", "name"), owners=("id",), run="run"),
    # Of the whole chain of runs that continue each other, and read by the last of them.
    Table(name="stream_value", key=("id", "chain", "name", "place"), owners=("id",), heavy=True),
    Table(name="version", key=("name",)),
    Table(name="routing", key=()),
    Table(name="deployment_change", key=("revision",)),
    Table(name="batch", key=("key",)),
    Table(name="batch_target", key=("batch", "id")),
    Table(name="audit_line", key=("batch", "id", "nonce")),
    Table(name="queue", key=("name",)),
    # These point at a workflow and count while it is what they say; who claims or starts deletes the others. A slot
    # goes with its workflow too, found through the queue of that (`slot_forget`); an expiry goes at its time.
    Table(name="slot", key=("queue", "id")),
    Table(name="dedup", key=("queue", "key"), owners=("id",), left="gone", locked_first=True),
    Table(name="expiry", key=("at", "id")),
    Table(name="pace", key=("queue", "partition", "at")),
    Table(name="schedule", key=("name",)),
    Table(name="firing", key=("schedule", "at", "until")),
    Table(name="incarnation", key=("id",), copied=False),
    Table(name="request", key=("nonce",), copied=False),
    Table(name="upkeep", key=("name",), copied=False),
    Table(name="workflow", key=("id",), owners=("id",)),  # the last: where it is copied, all that is about it is there
)

OWNED: tuple[tuple[Table, str], ...] = tuple((table, owner) for table in TABLES for owner in table.owners)
OF_RUNS: tuple[Table, ...] = tuple(table for table in TABLES if table.run is not None)
LEFT: tuple[Table, ...] = tuple(table for table in TABLES if table.left)


def leads_key(table: Table, column: str) -> bool:
    """Whether the primary key begins with it; else it leads a partial index over what is not empty."""
    return table.key[:1] == (column,)
