"""The messages of one run that its body has not received yet, by topic, first in first out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from perdure.model.records import Message


class Inbox:
    """What was read of a run's mail; the database may be read again and again: each message counts once."""

    __slots__ = ("_by_topic", "_seen")

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._by_topic: dict[str, deque[Message]] = {}

    def put(self, messages: Iterable[Message]) -> bool:
        """Whether any of them is new."""
        fresh = False
        for message in messages:
            if message.mid not in self._seen:
                self._seen.add(message.mid)
                self._by_topic.setdefault(message.topic, deque()).append(message)
                fresh = True
        return fresh

    def first(self, topic: str) -> Message | None:
        """The oldest on this topic, left where it is."""
        queue = self._by_topic.get(topic)
        return queue[0] if queue else None

    def drop_first(self, topic: str) -> None:
        """The body has received the oldest on this topic."""
        self._by_topic[topic].popleft()
