"""Streams: read, taken along by a run that follows, and who wrote last to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perdure.model.ids import RunKey
from perdure.model.records import Kind, Record
from perdure.model.states import FIRST_CLOSED
from perdure.model.streams import StreamAsk, StreamPage, StreamState, gone
from perdure.model.writes import Start, Unit
from perdure.store.postgres import rows
from perdure.store.postgres.commit import Place, Ways
from perdure.store.postgres.connection import Link, Transaction


async def streams(link: Ways, place: Place, asks: Sequence[StreamAsk]) -> list[StreamPage | None]:
    """All readers in one query."""
    found: list[StreamPage | None] = [None] * len(asks)
    if not asks:
        return found
    columns = zip(*((a.id, a.name, a.place, a.chain, a.limit) for a in asks), strict=True)
    states: dict[int, StreamState] = {}
    values: dict[int, list[bytes]] = {}
    for n, status, chain, following, closed, moved, kept, _, data in await link.fetch(
        place.sql["streams"], place.app, *(list(column) for column in columns)
    ):
        states[n - 1] = StreamState(
            closed=status >= FIRST_CLOSED, chain=chain, next=following or 0, shut=bool(closed), moved=moved, kept=kept
        )
        there = values.setdefault(n - 1, [])
        if data is not None:
            there.append(data.encode())
    for n, state in states.items():
        begin = state.begin(asks[n])
        found[n] = gone(asks[n]) if begin is None else state.page(asks[n], begin, tuple(values[n]))
    return found


async def records_after(link: Link, place: Place, key: RunKey, seq: int, limit: int) -> list[Record]:
    return [rows.record(r) for r in await link.fetch(place.sql["records_after"], place.app, *key, seq, limit)]


async def copy(tx: Transaction, place: Place, source: RunKey, start: Start, keep: int) -> None:
    """Give a run that was just begun what of the source's streams its first ``keep`` records stand for."""
    kinds = Kind.STREAM.value, b"end", Kind.STEP.value
    await tx.fetch(place.sql["stream_copy"], place.app, *source, start.id, start.run, *kinds, keep)


async def who_wrote(tx: Transaction, place: Place, units: Iterable[Unit]) -> set[str]:
    """The runs for which this would be the first try of what appends."""
    names = {(unit.key.id, unit.key.run, append.name): unit.nonce for unit in units for append in unit.appends}
    if not names:
        return set()
    ids, runs, streams_ = zip(*names, strict=True)
    last: list[bytes | None] = [None] * len(names)
    for n, nonce in await tx.fetch(place.sql["stream_nonces"], place.app, ids, runs, streams_):
        last[n - 1] = nonce
    return {key[0] for (key, nonce), was in zip(names.items(), last, strict=True) if was != nonce}
