"""Streams as values: what is asked of one, and what is answered. How they are kept: ``docs/internals/streams.md``."""

from __future__ import annotations

import msgspec

PROGRESS = "perdure:progress"  # the stream that ``track`` writes to


class StreamAsk(msgspec.Struct, frozen=True, gc=False):
    """Values of a stream from ``place`` on, by someone who reads ``chain`` (0: of no chain yet)."""

    id: str
    name: str
    place: int
    chain: int = 0
    limit: int = 64  # values; a page may have fewer


class StreamPage(msgspec.Struct, frozen=True):
    """What one look found. ``place`` is where the values begin: not where it was asked, if that was cut off since."""

    chain: int
    place: int
    values: tuple[bytes, ...]
    ended: bool  # no value will ever follow these

    @property
    def news(self) -> bool:
        """Whether a reader who waits has something to be told."""
        return bool(self.values) or self.ended


class StreamState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a store has of the stream that a reader asks for, as one statement saw it."""

    closed: bool  # the workflow
    chain: int | None = None  # None: nothing was ever written
    next: int = 0
    shut: bool = False  # the stream
    kept: int | None = None  # what stands as it stood, of the chain that is read; None: it is another's by now
    moved: bool = False  # there are chains after the one that is read

    def begin(self, ask: StreamAsk) -> int | None:
        """Where the values to be read begin; None: the workflow that was read is gone from this id."""
        if not ask.chain or ask.chain == self.chain:
            return ask.place
        if self.chain is None or not self.moved or self.kept is None:
            return None
        return min(ask.place, self.kept)

    def page(self, ask: StreamAsk, place: int, values: tuple[bytes, ...]) -> StreamPage:
        """The page, once the values are read."""
        ended = (self.closed or self.shut) and place + len(values) >= self.next
        return StreamPage(self.chain or 0, place, values, ended)


def gone(ask: StreamAsk) -> StreamPage:
    """The end, for who read a workflow that was replaced."""
    return StreamPage(ask.chain, ask.place, (), True)
