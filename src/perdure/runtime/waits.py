"""What a body waits for, where no question says it; and the signal with which it ends to begin anew."""

from __future__ import annotations

from perdure.client.questions import EventOf, StartOrder
from perdure.model.streams import StreamAsk


class ContinueAsNew(BaseException):
    """Ends this run and begins the next one of the same id. Let it pass."""

    def __init__(self, order: StartOrder) -> None:
        super().__init__("the workflow continues as a new run")
        self.order = order


class RecvWait:
    """What a ``recv`` waits for."""

    __slots__ = ("deadline", "topic")

    def __init__(self, topic: str, deadline: int | None) -> None:
        self.topic = topic
        self.deadline = deadline


class EventWait:
    """What a ``get_event`` waits for."""

    __slots__ = ("deadline", "question")

    def __init__(self, question: EventOf, deadline: int | None) -> None:
        self.question = question
        self.deadline = deadline


class StreamWait:
    """What a reader of a stream waits for: more of it."""

    __slots__ = ("ask",)

    def __init__(self, ask: StreamAsk) -> None:
        self.ask = ask
