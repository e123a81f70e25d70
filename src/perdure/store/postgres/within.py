"""What this store writes within a transaction of a session of its users' own, in the same database.

The statements are those of a lone caller (``lone.py``), where there is one: a start or a message is the same rows
whoever's connection carries them. Unlike there, nothing is sent twice, so an id that is taken is looked for first: the
lone statement would lock its row until the user commits.
"""

from __future__ import annotations

from typing import Any

from perdure.model.ids import RunKey
from perdure.model.states import CODES
from perdure.model.writes import Send, Start, Unit, Verdict
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
        yield from _start(place, start, verdict, now)
    for send in unit.sends:
        yield from _send(place, send, verdict, now)
    yield Statement(place.sql["within_tell"], (channel_of(place.schema, place.app),))
    return verdict


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


def _start(place: Place, start: Start, verdict: Verdict, now: int | None) -> Within[None]:
    look = Statement(place.sql["rows"], (place.app, [start.id]))
    found = yield look
    if not found:
        ((_, took, *_),) = yield _lone(place, "start", of_start(start), now)
        if took is not None:
            return
        found = yield look  # another's commit came in between
    verdict.exists[start.id] = rows.workflow(found[0])


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
