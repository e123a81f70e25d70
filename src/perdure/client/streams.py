"""Reading a stream: where a reader stands, and the next page of it.

Promises: values in order of their offsets, each once, from the offset asked for; nothing that is not committed; the end
only after the last value. Where the stream was cut meanwhile, it goes on from what changed first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from perdure.client.bounded import heard
from perdure.client.line import Line
from perdure.client.questions import StreamOf
from perdure.client.waits import worth_telling
from perdure.model.streams import StreamAsk, StreamPage
from perdure.operations.look import not_found

VALUES_MAX = 1000  # of one page
BYTES_MEANT = 256_000  # what a page should have


class Reading:
    """Where one reader stands. ``decode`` makes of a value, and the record it is from, what the reader gets."""

    def __init__(self, id: str, name: str, offset: int, decode: Callable[[bytes, Any], Any]) -> None:
        self._ask = StreamAsk(id, name, offset)
        self._decode = decode
        self._values: deque[bytes] = deque()
        self._record: Any = None
        self._place = offset
        self._limit = self._ask.limit
        self.ended = False

    @property
    def empty(self) -> bool:
        """Whether a page must be read before the next value."""
        return not self._values

    @property
    def question(self) -> StreamOf:
        """What to ask for."""
        return StreamOf(self._ask)

    def within(self, patience: int | None) -> StreamOf:
        """The same, for so many microseconds."""
        return StreamOf(self._ask, patience)

    def feed(self, page: StreamPage, record: Any) -> None:
        """The answer."""
        self._values.extend(page.values)
        self._record = record
        self._place = page.place
        self.ended = page.ended
        if page.values:
            mean = sum(map(len, page.values)) // len(page.values) + 1
            self._limit = max(1, min(VALUES_MAX, BYTES_MEANT // mean))
        self._ask = StreamAsk(self._ask.id, self._ask.name, page.place + len(page.values), page.chain, self._limit)

    def pop(self) -> tuple[int, Any]:
        """The next value and its offset."""
        offset, self._place = self._place, self._place + 1
        return offset, self._decode(self._values.popleft(), self._record)

    def rest(self) -> list[Any]:
        """All values that are here."""
        return [self.pop()[1] for _ in range(len(self._values))]


async def read_page(line: Line, question: StreamOf, patiently: Any) -> StreamPage:
    """What there is for a reader, as soon as there is something. Raises ``WorkflowNotFound``."""
    ask = question.ask
    page: StreamPage | None
    [page] = await patiently(line, line.store.streams, [ask])
    if page is None or worth_telling(ask, page):
        return _known(page, ask, line)
    future: asyncio.Future[StreamPage | None] = line.loop.create_future()

    def told(page: StreamPage | None) -> None:
        if not future.done():
            future.set_result(page)

    watch = line.watcher.stream(ask, told)
    try:
        if question.patience is not None:
            await asyncio.wait([future], timeout=question.patience / 1e6)
            if not future.done():
                return StreamPage(ask.chain, ask.place, (), ended=False)
        return _known(await heard(line, future), ask, line)
    finally:
        watch.cancel()


def _known(page: StreamPage | None, ask: StreamAsk, line: Line) -> StreamPage:
    if page is None:
        raise not_found(ask.id, line.app)
    return page
