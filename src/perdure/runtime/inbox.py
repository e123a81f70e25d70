"""The messages of one run that its body has not received yet, by topic, first in first out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from perdure.core.run import Run
from perdure.model.records import Message, Outcome
from perdure.runtime.unread import unread


class Receiver(Protocol):
    """What receiving needs of an execution."""

    run: Run
    woken: Mapping[bytes, None]

    def own(self, name: str) -> Any: ...


def hand_out(execution: Any) -> None:
    """Hand messages to those who wait for them, one delivery at a time; what is owed is read once nothing is left."""
    short = False
    for op in list(execution.receiving.values()):
        if execution.gone or not op.is_open:
            continue
        if execution.in_mid_burst:  # a message goes with the record that receives it, which cannot be made now
            execution.line.loop.call_soon(execution.match_mail)
            return
        inbox: Inbox | None = execution.inbox
        message = None if inbox is None else inbox.first(op.what.topic)
        if inbox is None or message is None:
            short = True
        elif not unread(execution, op, message.data):
            inbox.receive(op.what.topic, execution)
            execution.settle(op, Outcome.VALUE, message.data)
    if short:
        execution.host.post.want([execution.id])


class Inbox:
    """What was read of a run's mail; the database may be read again and again: each message counts once."""

    __slots__ = ("_by_topic", "_seen", "_wakes")

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._wakes: dict[bytes, bytes] = {}  # nonces of their wake rows, of messages that were handed over unread
        self._by_topic: dict[str, deque[Message]] = {}

    def put(self, messages: Iterable[Message], wake: bytes | None = None) -> bool:
        """Whether any of them is new. ``wake``: the nonce of the wake row of the one that is given."""
        fresh = False
        for message in messages:
            if message.mid not in self._seen:
                self._seen.add(message.mid)
                self._by_topic.setdefault(message.topic, deque()).append(message)
                if wake is not None:
                    self._wakes[message.mid] = wake
                fresh = True
        return fresh

    def first(self, topic: str) -> Message | None:
        """The oldest on this topic, left where it is."""
        queue = self._by_topic.get(topic)
        return queue[0] if queue else None

    def receive(self, topic: str, by: Receiver) -> None:
        """The body receives the oldest on this topic: taken, and its wake row gone, with the record that comes next."""
        mid = self._by_topic[topic].popleft().mid
        by.run.add_taken(mid)
        wake = self._wakes.pop(mid, None)
        if wake is not None and wake not in by.woken:
            by.own("woken")[wake] = None
            by.run.add_woken(wake)
