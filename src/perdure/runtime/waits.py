"""What a body waits for, where no question says it; and the signal with which it ends to begin anew."""

from __future__ import annotations

from perdure.client.questions import EventOf, StartOrder


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
