"""Rows of all kinds, put into a store as they stand: what a query is asked of, and what Python is asked with."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perdure.model.ids import RunKey
from perdure.model.problems import ProblemKind
from perdure.model.records import WorkflowRow
from perdure.model.states import CAUSE, CODE, OPEN, VERSIONING, Reason, Status, Versioning
from perdure.query.evaluate import Known
from perdure.store.base import Store
from perdure.store.postgres import PostgresStore
from perdure.store.sqlite import SQLiteStore

T = 1_800_000_000_000_000
SECOND = 1_000_000
COLUMNS = (
    "app", "id", "run", "lineage", "name", "status", "version", "created", "updated", "reason", "owner", "attempts",
    "started", "closed", "deadline", "parent", "queue", "priority", "fingerprint", "attributes", "cause", "versioning",
    "partition", "nonce", "problem",
)  # fmt: skip
DEFAULTS = {
    "detail": "", "epoch": 0, "last_seq": 0, "parent_run": 0, "parent_path": "", "on_parent_close": "cancel",
}  # fmt: skip  # a past run has none
OWNERS = {b"a" * 16: "alpha", b"b" * 16: "beta", b"c" * 16: "alpha"}
WORDS = ["a", "B", "b", "order", "order-42", "é", "z\U0001f600", "o'neill", 'say "x"', "ab", "\\", "%_", "\uffff"]
NAMES = ["checkout", "Checkout", "order", "größe"]
VERSIONS = ["", "v1", "v2", "v10", "a:b"]
QUEUES = [None, "mail", "Mail", "bulk"]
ERRORS = [None, "ValueError", "CardDeclined", "Shop.Closed"]


class Put(msgspec.Struct):
    """What was put."""

    rows: list[WorkflowRow]
    known: Known
    past: list[WorkflowRow]


def some_attributes(rng: random.Random) -> bytes | None:
    values: list[Any] = [
        "x", "X", "", "é", "1", 1, 1.0, 0.1, -3, 2**53 + 1, 1e22, 2.5, True, False, None, [1, "x"], {"a": 1}, "true",
        "\0",
    ]  # fmt: skip
    names = ["x", "y", "Odd name", 'q"q', "a.b"]
    chosen = {name: rng.choice(values) for name in names if rng.random() < 0.6}
    if not chosen:
        return rng.choice([None, b"{}"])
    return msgspec.json.encode(chosen)


def some_row(rng: random.Random, number: int, *, run: int = 1, past: bool = False) -> WorkflowRow:
    """A row such as the library might write, but for what no query looks at."""
    status = rng.choice(list(Status))
    created = T + rng.randrange(6) * SECOND  # many at the same time: then the id decides
    started = None if rng.random() < 0.3 else created + rng.randrange(5) * SECOND
    closed = None if status in OPEN else (started or created) + rng.randrange(9) * SECOND
    return WorkflowRow(
        id=f"{rng.choice(WORDS)}-{number}", run=run, lineage=b"", name=rng.choice(NAMES), status=status,
        version=rng.choice(VERSIONS), created=created, updated=created + rng.randrange(3),
        reason=rng.choice(list(Reason)) if status is Status.HELD else None,
        owner=rng.choice(list(OWNERS)) if status is Status.RUNNING else None,
        attempts=rng.randrange(4), started=started, closed=closed,
        deadline=rng.choice([None, T + rng.randrange(9)]), parent=rng.choice([None, None, "a", "B"]),
        queue=rng.choice(QUEUES), priority=rng.randrange(-2, 3), attributes=some_attributes(rng),
        versioning=rng.choice(list(Versioning)), partition=rng.choice(["", "eu", "us"]),
        problem=rng.choice([None, None, *ProblemKind]),  # also of what is closed, which has none to show
    )  # fmt: skip


def some_rows(rng: random.Random, count: int) -> Put:
    """Latest runs, past runs of some, and what else is known of them."""
    rows: list[WorkflowRow] = []
    past: list[WorkflowRow] = []
    for number in range(count):
        earlier = rng.choice([0, 0, 0, 1, 2])
        row = some_row(rng, number, run=earlier + 1)
        rows.append(row)
        past += [
            msgspec.structs.replace(some_row(rng, number, run=run), id=row.id, owner=None)
            for run in range(1, earlier + 1)
        ]
    past = [msgspec.structs.replace(row, status=Status.FAILED) if row.status is Status.RUNNING else row for row in past]
    errors = {row.key: error for row in [*rows, *past] if not row.status.open and (error := rng.choice(ERRORS))}
    return Put(rows, Known(now=T + 20 * SECOND, executors=OWNERS, errors=errors), past)


def held(id: str, **more: Any) -> WorkflowRow:
    """A plain row, for a test that says what matters."""
    fields: dict[str, Any] = {
        "run": 1, "lineage": b"", "name": "flow", "status": Status.QUEUED, "version": "v1", "created": T, "updated": T,
    }  # fmt: skip
    return WorkflowRow(id=id, **{**fields, **more})


async def put(
    store: Store,
    rows: Sequence[WorkflowRow],
    past: Sequence[WorkflowRow] = (),
    errors: Mapping[RunKey, str] | None = None,
) -> None:
    """Write rows as they are; ``errors``: what they failed with, by key."""
    tables: dict[str, tuple[Sequence[str], list[tuple[Any, ...]]]] = {
        "workflow": (COLUMNS, [_values(store, row) for row in rows]),
        "past_run": ((*COLUMNS, *DEFAULTS), [(*_values(store, row), *DEFAULTS.values()) for row in past]),
        "payload": (
            ("app", "id", "run", "input", "outcome", "output"),
            [
                (store.app, *key, _json(store, b"1"), 2, _json(store, failure(name)))
                for key, name in (errors or {}).items()
            ],
        ),
        "incarnation": (
            ("id", "app", "executor", "version", "host", "boot", "space", "pid", "pid_started", "state", "started",
             "lease_until"),
            [(id, store.app, label, "v1", "", "", "", 1, 1, "alive", 1, 1) for id, label in OWNERS.items()],
        ),
    }  # fmt: skip
    for table, (columns, values) in tables.items():
        skip = " on conflict do nothing" if table == "incarnation" else ""
        await _insert(store, f"insert into {{}}{table} ({', '.join(columns)}) values ({{}}){skip}", values)


def failure(name: str) -> bytes:
    """As the library stores one; the message may look like anything."""
    return msgspec.json.encode({"type": f"shop.errors:{name}", "message": f'"type":"{name}" \0'})


async def _insert(store: Store, sql: str, values: list[tuple[Any, ...]]) -> None:
    if not values:
        return
    if isinstance(store, PostgresStore):
        made = sql.format("perdure.", ", ".join(f"${n + 1}" for n in range(len(values[0]))))
        await store._writing.raw(lambda conn: conn.executemany(made, values))
    else:
        assert isinstance(store, SQLiteStore)
        made = sql.format("", ", ".join("?" * len(values[0])))
        await store._write(lambda conn: conn.executemany(made, values) and None)


def _json(store: Store, data: bytes | None) -> str | bytes | None:
    return data.decode() if isinstance(store, PostgresStore) and data is not None else data


def _values(store: Store, row: WorkflowRow) -> tuple[Any, ...]:
    return (
        store.app, row.id, row.run, b"", row.name, CODE[row.status], row.version, row.created, row.updated,
        None if row.reason is None else str(row.reason), row.owner, row.attempts, row.started, row.closed, row.deadline,
        row.parent, row.queue, row.priority, b"", _json(store, row.attributes), CAUSE[row.cause],
        VERSIONING[row.versioning], row.partition, b"", None if row.problem is None else str(row.problem),
    )  # fmt: skip
