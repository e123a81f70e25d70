"""What this store writes within a transaction of a session of its users' own, in the same database.

The statements are those of a lone caller (``lone.py``), where there is one: a start or a message is the same rows
whoever's connection carries them. Unlike there, nothing is sent twice, so an id that is taken is looked for first: the
lone statement would lock its row until the user commits.
"""

from __future__ import annotations

from typing import Any

from perdure.model.ids import RunKey
from perdure.model.records import WorkflowRow
from perdure.model.states import CODES
from perdure.model.writes import Send, Start, Unit, Verdict
from perdure.store.lines import Deduplicated, prolongable
from perdure.store.postgres import rows
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link
from perdure.store.postgres.hints import channel_of
from perdure.store.postgres.lone import statement
from perdure.store.postgres.lone_values import of_send, of_start
from perdure.store.postgres.rows import pack_intents
from perdure.store.within import Statement, Within


def within(place: Place, unit: Unit, before: int, now: int | None) -> Within[Verdict]:
    """One record of a run, or what a caller outside starts and sends."""
    verdict = Verdict(applied=True)
    if unit.claim is not None:
        verdict.applied = yield from _record(place, unit, before, now)
        return verdict
    for start in unit.children:
        if (row := (yield from _start(place, start, now))) is not None:
            verdict.exists[start.id] = row
    for send in unit.sends:
        yield from _send(place, send, verdict, now)
    yield _tell(place)
    return verdict


def once(place: Place, start: Start, how: Deduplicated, now: int | None) -> Within[WorkflowRow | None]:
    """A start that has a deduplication key: None, or the row that has the key or the id.

    As ``queues.start_once`` does it, but what is locked stays so until the user commits: the key, for which others
    wait, as they would for any row of his; of workflows only one whose wait is prolonged.
    """
    sql, app = place.sql, place.app
    taken = yield from _row(place, start.id)
    if taken is not None and (how.debounce is None or not prolongable(taken, start.name)):
        return taken
    ((holder, made),) = yield Statement(sql["dedup_lock"], (app, start.queue, how.key, start.id))
    if taken is not None and (made or holder != start.id):
        if made:
            yield Statement(sql["dedup_drop"], (app, start.queue, how.key))
        return taken
    row = yield from _row(place, holder)
    if row is not None and row.status.open and row.queue == start.queue:
        if how.debounce is None or row.name != start.name:
            return row
        if (row := (yield from _debounce(place, start, how, holder, now))) is not None:
            yield _tell(place)
            return row
    if taken is not None:
        return (yield from _row(place, start.id))
    if holder != start.id:
        yield Statement(sql["dedup_set"], (app, start.queue, how.key, start.id))
    if (row := (yield from _insert(place, start, now))) is not None:
        yield Statement(sql["dedup_drop"], (app, start.queue, how.key))
        return row
    yield _tell(place)
    return None


def _debounce(
    place: Place, start: Start, how: Deduplicated, holder: str, now: int | None
) -> Within[WorkflowRow | None]:
    """Let the one that has the key wait from now on, with the new input; None if it has begun meanwhile."""
    sql, app = place.sql, place.app
    yield Statement(sql["lock"], (app, [holder]))
    row = yield from _row(place, holder)
    if row is None or not prolongable(row, start.name):
        return None
    at = now if now is not None else (yield Statement(sql["clock"]))[0][0]
    until = how.until(at, row.created)
    yield Statement(sql["debounce"], (app, row.id, until, start.fingerprint, at, start.nonce))
    yield Statement(sql["debounce_input"], (app, row.id, row.run, start.input.decode()))
    if row.expires is not None:
        yield Statement(sql["expiry_insert"], (app, [row.id]))
    return (yield from _row(place, row.id))


def _tell(place: Place) -> Statement:
    return Statement(place.sql["within_tell"], (channel_of(place.schema, place.app),))


def _row(place: Place, id: str) -> Within[WorkflowRow | None]:
    found = yield Statement(place.sql["rows"], (place.app, [id]))
    return rows.workflow(found[0]) if found else None


def _record(place: Place, unit: Unit, before: int, now: int | None) -> Within[bool]:
    (r,) = unit.records
    ((_, applied, _),) = yield Statement(
        place.sql["within_record"],
        (
            place.app, unit.key.id, unit.claim, unit.key.run, r.seq, r.path, int(r.kind), r.name, r.at, r.fingerprint,
            int(r.outcome), None if r.data is None else r.data.decode(), r.attempt, r.shown, pack_intents(r.intents),
            unit.version, unit.nonce, now, before,
        ),
    )  # fmt: skip
    return bool(applied)


def _lone(place: Place, form: str, values: dict[str, Any], now: int | None) -> Statement:
    sql, names = statement(form, place.schema)
    values |= {"app": place.app, "now": now}
    return Statement(sql, tuple(_plain(values[name]) for name in names))


def _plain(value: Any) -> Any:
    """A code as the number that it is: drivers know no enumerations of ours."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _start(place: Place, start: Start, now: int | None) -> Within[WorkflowRow | None]:
    """None if it is started; else the row that has its id."""
    row = yield from _row(place, start.id)
    return row if row is not None else (yield from _insert(place, start, now))


def _insert(place: Place, start: Start, now: int | None) -> Within[WorkflowRow | None]:
    """The same of one whose id was free a moment ago."""
    ((_, took, *_),) = yield _lone(place, "start", of_start(start), now)
    if took is None:  # another's commit came in between
        return (yield from _row(place, start.id))
    if start.expires is not None:
        yield Statement(place.sql["within_expires"], (place.app, start.id, start.expires))
        yield Statement(place.sql["expiry_insert"], (place.app, [start.id]))
    return None


def _send(place: Place, send: Send, verdict: Verdict, now: int | None) -> Within[None]:
    ((_, delivered),) = yield _lone(place, "send", of_send(send), now)
    if delivered:
        return
    ((_, known, status),) = yield Statement(place.sql["message_fate"], (place.app, [send.dest], [send.mid], [send.key]))
    if not known:
        verdict.undelivered[send.mid] = None if status is None else CODES[status]


async def wrote(link: Link, place: Place, key: RunKey, seq: int, nonce: bytes) -> bool:
    """Whether a transaction whose answer was lost has committed this record. Waits for the end of one under way."""
    async with link.transaction() as tx:
        await tx.fetch(place.sql["within_lock"], place.app, key.id)
        # In a later statement: the snapshot of the one that waited for the lock is older than what it waited for.
        row = await tx.fetchrow(place.sql["within_wrote"], place.app, key.id, key.run, seq)
        return row is not None and row[0] == nonce
