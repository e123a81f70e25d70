"""A workflow reads another's stream: each page is an outcome, recorded as it was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from perdure.client import verbs
from perdure.client.waits import worth_telling
from perdure.core.run import Op
from perdure.errors import Unserializable
from perdure.model.records import Outcome, Record
from perdure.model.streams import StreamAsk, StreamPage
from perdure.operations.look import not_found
from perdure.runtime.durable import all_durable
from perdure.runtime.unread import in_words, unread
from perdure.runtime.waits import StreamWait
from perdure.serde.codec import is_coded
from perdure.serde.values import Shape


class Page(msgspec.Struct, frozen=True):
    """A page as a record holds it."""

    chain: int
    place: int
    values: list[msgspec.Raw]
    ended: bool


_pages = msgspec.json.Decoder(Page)


def page_of(record: Record) -> StreamPage:
    """The page that was recorded."""
    page = _pages.decode(record.data or b"")
    return StreamPage(page.chain, page.place, tuple(bytes(value) for value in page.values), page.ended)


def decoder(execution: Any | None, shape: Shape) -> Callable[[bytes, Any], Any]:
    """What makes a value for the reader. In a body whose code has other types by now, the run is held."""

    def decode(value: bytes, record: Any) -> Any:
        try:
            return shape.decode(value)
        except Unserializable as error:
            if execution is None:
                raise
            execution.run.refuse_value(record, in_words("it", error, execution.host.registry.codec))

    return decode


async def watch_stream(execution: Any, op: Op, ask: StreamAsk) -> bytes:
    """Wait for the page: a look first, then with all others of this process."""
    line = execution.line

    def told(page: StreamPage | None) -> None:
        if page is None:
            page = StreamPage(ask.chain, ask.place, (), True)  # deleted meanwhile: nothing will follow
        line.loop.call_soon(_observe, execution, op, page)

    await all_durable(execution)  # its start may be in this very run's last writes; a cut run's children are judged
    page: StreamPage | None
    [page] = await verbs.patiently(line, line.store.streams, [ask])
    if page is None:
        raise not_found(ask.id, line.app)
    if worth_telling(ask, page):
        told(page)
    elif op.is_open and not execution.gone:
        op.what = StreamWait(ask)
        execution.begin_wait(op, line.watcher.stream(ask, told))
    return b""


def _observe(execution: Any, op: Op, page: StreamPage) -> None:
    """Hand the page over, unless a value of it cannot be read here."""
    if any(is_coded(value) and unread(execution, op, value) for value in page.values):
        return
    data = msgspec.json.encode(Page(page.chain, page.place, [msgspec.Raw(value) for value in page.values], page.ended))
    execution.settle(op, Outcome.VALUE, data)
