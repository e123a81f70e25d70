"""What the store's tests are built of: short ways to say a unit, and a dump of all tables to compare."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from perdure.model.cuts import Cut, mark
from perdure.model.ids import RunKey
from perdure.model.records import Kind, Outcome, Record, WorkflowRow
from perdure.model.states import Status
from perdure.model.writes import Append, Close, Receipt, Rewind, Send, Start, Unit, Verdict
from perdure.store.asks import ClaimRequest
from perdure.store.base import Store
from perdure.store.lines import LineRequest

T = 1_800_000_000_000_000  # the tests' now: years ahead of real time, so that a forgotten `now` shows
SECOND = 1_000_000
ME = b"me".ljust(16, b".")
OTHER = b"other".ljust(16, b".")

_numbers = itertools.count(1)
LETTERS = str.maketrans("0123456789", "abcdefghij")


def tok(label: str = "t") -> bytes:
    """16 bytes that no one else has, with a label to read in a failure; no digits, which a test may look for."""
    number = f"{next(_numbers):09d}".translate(LETTERS)
    return f"{label[:7]}{number}".ljust(16, ".").encode()


def start(id: str, claim: bytes | None = None, **more: Any) -> Start:
    fields: dict[str, Any] = {
        "id": id,
        "lineage": tok("line"),
        "name": "flow",
        "version": "v1",
        "input": b'{"n":1}',
        "fingerprint": b"fp-" + id.encode(),
        "nonce": tok("start"),
        "claim": claim,
        "owner": None if claim is None else ME,
        "status": Status.QUEUED if claim is None else Status.RUNNING,
    }
    return Start(**{**fields, **more})


def own(id: str, claim: bytes, **more: Any) -> Unit:
    """The first unit of a run that begins held."""
    s = more.pop("start", None) or start(id, claim)
    return Unit(key=RunKey(id, s.run), claim=claim, nonce=tok("unit"), version="v1", start=s, **more)


def unit(id: str, claim: bytes, run: int = 1, **more: Any) -> Unit:
    return Unit(key=RunKey(id, run), claim=claim, nonce=tok("unit"), version="v1", **more)


def outside(**more: Any) -> Unit:
    return Unit(key=RunKey("", 0), nonce=tok("out"), **more)


def record(seq: int, kind: Kind = Kind.STEP, data: bytes | None = b'"done"', **more: Any) -> Record:
    return Record(seq, str(seq), kind, "step", T + seq, b"fp", Outcome.VALUE, data, **more)


def send(dest: str, **more: Any) -> Send:
    fields: dict[str, Any] = {"mid": tok("mid"), "topic": "t", "data": b'"hi"', "wake": tok("wake")}
    return Send(dest=dest, **{**fields, **more})


def append(data: object, path: str = "p", n: int = 0, name: str = "s") -> Append:
    """A value for a stream; None closes it."""
    return Append(name, path, n, None if data is None else str(data).encode())


def close(status: Status = Status.COMPLETED, **more: Any) -> Close:
    return Close(status, Outcome.VALUE, b'"end"', tok("wake"), **more)


def rewind(id: str, keep: int, claim: bytes | None = None, run: int = 1, **more: Any) -> Rewind:
    """Go on as the next run from the first ``keep`` records."""
    begun = more.pop("next", None) or start(id, claim, run=run + 1)
    cut = mark(Cut(id, run, keep, 1), "rewind", at=T + 99, shown="by tests")
    return Rewind(next=begun, keep=keep, mark=cut, wake=tok("wake"), **more)


def letin(queue: str, limit: int = 10, **more: Any) -> LineRequest:
    """A request to let through the line of a queue."""
    fields: dict[str, Any] = {"owner": ME, "token": tok("claim"), "version": "v1"}
    return LineRequest(queue=queue, limit=limit, **{**fields, **more})


def want(limit: int = 10, owner: bytes = ME, token: bytes | None = None, version: str = "v1") -> ClaimRequest:
    return ClaimRequest(owner=owner, token=token or tok("claim"), version=version, limit=limit)


async def commit(store: Store, *units: Unit, now: int = T) -> Receipt:
    return await store.commit(units, now=now)


async def one(store: Store, u: Unit, now: int = T) -> Verdict:
    return (await store.commit([u], now=now)).verdicts[0]


async def running(store: Store, *ids: str, now: int = T, **more: Any) -> bytes:
    """Start workflows that are held by ``ME`` under one token."""
    claim = tok("claim")
    receipt = await store.commit([own(id, claim, start=start(id, claim, **more)) for id in ids], now=now)
    assert all(v.applied for v in receipt.verdicts)
    return claim


async def queued(store: Store, *ids: str, now: int = T, **more: Any) -> None:
    verdict = await one(store, outside(children=[start(id, **more) for id in ids]), now)
    assert verdict.applied
    assert not verdict.exists


async def row(store: Store, id: str) -> WorkflowRow:
    return (await store.rows([id]))[id]


async def status(store: Store, id: str) -> Status:
    return (await row(store, id)).status


async def history(store: Store, id: str, run: int = 1) -> list[Record]:
    key = RunKey(id, run)
    return (await store.histories([key]))[key]


# -- dumps

TABLES = (
    "workflow",
    "past_run",
    "payload",
    "history",
    "event",
    "message",
    "wake",
    "watch",
    "incarnation",
    "version",
    "routing",
    "deployment_change",
    "trial",
    "problem",
    "decision",
    "request",
    "queue",
    "slot",
    "pace",
    "dedup",
    "expiry",
    "stream",
    "stream_value",
    "upkeep",
    "schedule",
    "firing",
    "batch",
    "batch_target",
    "audit_line",
)
_TEXT = {
    "input",
    "output",
    "data",
    "attributes",
    "intents",
    "parameters",
    "evidence",
    "body",
    "answer",
}  # JSON: text in one dialect, bytes in the other
_OWN = {"watched"}  # columns that only one dialect needs

Dump = dict[str, list[dict[str, Any]]]


async def dump(store: Store) -> Dump:
    """All rows of all tables, in an order and a form that both dialects share."""
    rows = await _postgres(store) if hasattr(store, "schema") else _sqlite(store)
    return {table: sorted((_plain(r) for r in found), key=repr) for table, found in rows.items()}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    def value(name: str, x: Any) -> Any:
        return x.decode() if name in _TEXT and isinstance(x, bytes) else x

    return {name: value(name, row[name]) for name in sorted(row) if name not in _OWN}


def _sqlite(store: Any) -> dict[str, Sequence[dict[str, Any]]]:
    import apsw

    conn = apsw.Connection(str(store.path))
    try:
        found: dict[str, Sequence[dict[str, Any]]] = {}
        for table in TABLES:
            cursor = conn.execute(f"select * from {table} limit 0")
            names = [c[1] for c in conn.execute(f"pragma table_info({table})")]
            del cursor
            found[table] = [dict(zip(names, r, strict=True)) for r in conn.execute(f"select * from {table}")]
        return found
    finally:
        conn.close()


async def _postgres(store: Any) -> dict[str, Sequence[dict[str, Any]]]:
    import asyncpg

    conn = await asyncpg.connect(store.test_url)
    try:
        return {table: [dict(r) for r in await conn.fetch(f"select * from {store.schema}.{table}")] for table in TABLES}
    finally:
        await conn.close()
