"""Transactions in another database than the app's: their records, in a table there.

``perdure_transaction`` holds one row for each transaction that has committed there and one for each workflow that
transacts there (run 0, path ""): its *fence*, whose nonce is the claim token of the run's holder. A record is inserted
only while the fence is the inserter's own, and only once for each call of each run: so neither a second attempt nor
whoever held the run before can commit there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from perdure.sessions.base import Dialect, ask
from perdure.store.within import Within

TABLE = "perdure_transaction"
_BYTES = {"postgres": "bytea", "sqlite": "blob"}


def ddl(dialect: Dialect) -> str:
    """What makes the table, for who would rather do it himself.

    >>> "create table if not exists perdure_transaction" in ddl("postgres")
    True
    """
    blob = _BYTES[dialect]
    return f"""create table if not exists {TABLE} (
    app text not null,
    id text not null,
    run integer not null,
    path text not null,
    lineage {blob} not null,
    fingerprint {blob} not null,
    outcome integer not null,
    data text,
    nonce {blob} not null,
    at bigint not null,
    primary key (app, id, run, path, lineage)
)"""


class Call(NamedTuple):
    """A call of a transaction, by which its record is found."""

    app: str
    id: str
    run: int
    path: str
    lineage: bytes
    claim: bytes  # of whoever makes it now


class Recorded(NamedTuple):
    """What the table has of a call."""

    fingerprint: bytes
    outcome: int
    data: bytes | None
    nonce: bytes


class Found(NamedTuple):
    """What a look at the table tells."""

    there: bool  # the table
    fenced: bool  # for the caller
    recorded: Recorded | None


# S608, here and below: the table's name is ours
_EXISTS: dict[Dialect, str] = {
    "postgres": f"select to_regclass('{TABLE}') is not null",
    "sqlite": f"select exists (select 1 from sqlite_master where type = 'table' and name = '{TABLE}')",  # noqa: S608
}
_LOOK = f"""select run, fingerprint, outcome, data, nonce from {TABLE}
where app = $1 and id = $2 and ((run = 0 and path = '') or (run = $3 and path = $4 and lineage = $5))"""  # noqa: S608
_FENCE = f"""insert into {TABLE} (app, id, run, path, lineage, fingerprint, outcome, data, nonce, at)
values ($1, $2, 0, '', $3, $3, 0, null, $4, $5)
on conflict (app, id, run, path, lineage) do update set nonce = excluded.nonce, at = excluded.at"""  # noqa: S608
_LOCK = f"select nonce from {TABLE} where app = $1 and id = $2 and run = 0 and path = ''"  # noqa: S608
_RECORD = f"""insert into {TABLE} (app, id, run, path, lineage, fingerprint, outcome, data, nonce, at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""  # noqa: S608
_OLD = f"""select id, run, path, lineage from {TABLE} where app = $1 and run > 0 order by at limit 500"""  # noqa: S608
_FENCES = f"""select id, run, path, lineage from {TABLE} f
where app = $1 and run = 0 and path = '' and not exists (
    select 1 from {TABLE} r where r.app = f.app and r.id = f.id and r.run > 0)
order by at limit 500"""  # noqa: S608
_FORGET = f"delete from {TABLE} where app = $1 and id = $2 and run = $3 and path = $4 and lineage = $5"  # noqa: S608


def exists(dialect: Dialect) -> Within[bool]:
    ((there,),) = yield from ask(_EXISTS[dialect])
    return bool(there)


def look(dialect: Dialect, call: Call, *, known: bool) -> Within[Found]:
    """What there is of a call. ``known``: the table was seen there before."""
    if not known and not (yield from exists(dialect)):
        return Found(there=False, fenced=False, recorded=None)
    fenced, recorded = False, None
    for run, fingerprint, outcome, data, nonce in (
        yield from ask(_LOOK, call.app, call.id, call.run, call.path, call.lineage)
    ):
        if run == 0:
            fenced = bytes(nonce) == call.claim
        else:
            text = None if data is None else data.encode()
            recorded = Recorded(bytes(fingerprint), outcome, text, bytes(nonce))
    return Found(there=True, fenced=fenced, recorded=recorded)


def make(dialect: Dialect) -> Within[None]:
    yield from ask(ddl(dialect))


def fence(call: Call, at: int) -> Within[None]:
    """From now on only this holder's records are taken."""
    yield from ask(_FENCE, call.app, call.id, b"", call.claim, at)


def record(dialect: Dialect, call: Call, what: Recorded, at: int) -> Within[bool]:
    """Insert the record, as the last statement before the commit; False: another holds the run."""
    if not (yield from lock(dialect, call)):
        return False
    data = None if what.data is None else what.data.decode()
    yield from ask(
        _RECORD, call.app, call.id, call.run, call.path, call.lineage, what.fingerprint, what.outcome, data,
        what.nonce, at,
    )  # fmt: skip
    return True


def lock(dialect: Dialect, call: Call) -> Within[bool]:
    """Wait for transactions of this workflow that are under way, and keep others off; whether the fence is mine."""
    rows = yield from ask(_LOCK + (" for update" if dialect == "postgres" else ""), call.app, call.id)
    return bool(rows) and bytes(rows[0][0]) == call.claim


class Row(NamedTuple):
    """The key of a row: of a record, or (run 0) of a fence."""

    id: str
    run: int
    path: str
    lineage: bytes


def old(app: str) -> Within[list[Row]]:
    """The oldest records of an app, and the oldest fences of workflows that have none."""
    rows = [*(yield from ask(_OLD, app)), *(yield from ask(_FENCES, app))]
    return [Row(id, run, path, bytes(lineage)) for id, run, path, lineage in rows]


def forget(app: str, rows: Sequence[Row]) -> Within[None]:
    for row in rows:
        yield from ask(_FORGET, app, *row)
