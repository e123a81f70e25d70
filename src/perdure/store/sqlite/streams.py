"""Streams: appended to in a commit, read, taken along by a run that follows."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.model.ids import RunKey
from perdure.model.records import Kind, Record
from perdure.model.states import FIRST_CLOSED
from perdure.model.streams import StreamAsk, StreamPage, StreamState, gone
from perdure.model.writes import Append, Start, Unit
from perdure.store.sql import queries
from perdure.store.sqlite import rows
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")


def append(conn: Connection, app: str, unit: Unit, now: int) -> bool:
    """Append what the unit holds; whether there was news in it. To be called once its claim is seen to hold."""
    by_name: dict[str, list[Append]] = {}
    for one in unit.appends:
        by_name.setdefault(one.name, []).append(one)
    id, run = unit.key
    news = [_append(conn, (app, id, run, name), some, unit.nonce, now) for name, some in by_name.items()]
    return any(news)


def _append(conn: Connection, key: tuple[str, str, int, str], appends: list[Append], nonce: bytes, now: int) -> bool:
    app, id, run, name = key
    head = conn.execute(Q["stream_head"], key).fetchone()
    chain, place, closed, last = (run, 0, 0, None) if head is None else head
    if last == nonce:
        return False  # a first try of this unit did it
    if not closed:
        for one in appends:
            mark = (app, id, chain, name, run, one.path, one.n)
            if one.data is not None and conn.execute(Q["stream_written"], mark).get is None:
                value = (app, id, chain, name, place, run, one.path, one.n, one.data, now)
                conn.execute(Q["stream_append"], value)
                place += 1
        closed = int(any(one.data is None for one in appends))
    conn.execute(Q["stream_put"], (*key, chain, place, closed, nonce, now))
    return True


def streams(conn: Connection, app: str, asks: Sequence[StreamAsk]) -> list[StreamPage | None]:
    return [_page(conn, app, ask) for ask in asks]


def _page(conn: Connection, app: str, ask: StreamAsk) -> StreamPage | None:
    found = conn.execute(Q["stream_read"], (app, ask.id, ask.name)).fetchone()
    if found is None:
        return None
    status, chain, following, shut = found
    moved, kept = 0, None
    if ask.chain and ask.chain != chain:
        behind = conn.execute(Q["stream_kept"], (app, ask.id, ask.name, ask.chain)).fetchone()
        assert behind is not None, "an aggregate has a row"
        moved, kept = behind
    state = StreamState(
        closed=status >= FIRST_CLOSED, chain=chain, next=following or 0, shut=bool(shut), moved=bool(moved), kept=kept
    )
    begin = state.begin(ask)
    if begin is None:
        return gone(ask)
    bindings = (app, ask.id, chain, ask.name, begin, ask.limit)
    return state.page(ask, begin, tuple(data for (data,) in conn.execute(Q["stream_values"], bindings)))


def records_after(conn: Connection, app: str, key: RunKey, seq: int, limit: int) -> list[Record]:
    return [rows.record(r) for r in conn.execute(Q["records_after"], (app, *key, seq, limit))]


def copy(conn: Connection, app: str, source: RunKey, start: Start, keep: int) -> None:
    """Give a run that was just begun what of the source's streams its first ``keep`` records stand for."""
    bindings = (app, *source, start.id, start.run, Kind.STREAM.value, b"end", Kind.STEP.value, keep)
    conn.execute(Q["stream_values_copy"], bindings)
    conn.execute(Q["stream_copy"], bindings)
