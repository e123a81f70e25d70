"""Those of this process who have read a stream to where it is written and wait for more: one query for all."""

from __future__ import annotations

from typing import Protocol

from perdure.model.streams import StreamAsk, StreamPage
from perdure.store.base import Store


class Told(Protocol):
    """Somebody who is told once."""

    def tell(self, value: object) -> None:
        """Hand over what there is."""
        ...


class StreamWaits:
    """See the head of this file."""

    def __init__(self) -> None:
        self._waiting: dict[Told, StreamAsk] = {}
        self._readers: dict[str, int] = {}  # by workflow

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, ask: StreamAsk, watch: Told) -> None:
        """Somebody waits."""
        self._waiting[watch] = ask
        self._readers[ask.id] = self._readers.get(ask.id, 0) + 1

    def forget(self, watch: Told) -> None:
        """They wait no more."""
        ask = self._waiting.pop(watch, None)
        if ask is not None:
            self._readers[ask.id] -= 1
            if not self._readers[ask.id]:
                del self._readers[ask.id]

    def has(self, id: str) -> bool:
        """Whether anybody waits for more of a stream of this workflow."""
        return id in self._readers

    async def look(self, store: Store) -> None:
        """Ask once for all of them, and tell those for whom there is something. Raises ``DatabaseTrouble``."""
        waiting = dict(self._waiting)
        asks = list(dict.fromkeys(waiting.values()))
        found = dict(zip(asks, await store.streams(asks), strict=True))
        for watch, ask in waiting.items():
            page = found[ask]
            if watch in self._waiting and (page is None or worth_telling(ask, page)):
                self.forget(watch)
                watch.tell(page)


def worth_telling(ask: StreamAsk, page: StreamPage) -> bool:
    """Whether a page has anything for who asked: values, the end, or another place to go on from."""
    return page.news or (page.chain, page.place) != (ask.chain, ask.place)
