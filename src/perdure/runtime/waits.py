"""What a body waits for, where no question says it; and the signal with which it ends to begin anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

from perdure.client.line import Line
from perdure.client.questions import StartOrder
from perdure.client.timers import Timer
from perdure.model.states import Status
from perdure.model.streams import StreamAsk
from perdure.model.writes import Rest


class Standing(NamedTuple):
    """How the next run of a process begins: at rest, or queued to go on."""

    status: Status
    attributes: bytes | None
    rest: Rest


class ContinueAsNew(BaseException):
    """Ends this run and begins the next one of the same id. Let it pass."""

    def __init__(self, order: StartOrder, stands: Standing | None = None) -> None:
        super().__init__("the workflow continues as a new run")
        self.order = order
        self.stands = stands


def as_signal(error: BaseException) -> BaseException:
    """The signal in place of a group that holds nothing else (a task group wraps what ends it); else as it is."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    inner = [as_signal(one) for one in group.exceptions]
    return inner[0] if all(isinstance(one, ContinueAsNew) for one in inner) else group


class RecvWait:
    """What a ``recv`` waits for."""

    __slots__ = ("deadline", "topic")

    def __init__(self, topic: str, deadline: int | None) -> None:
        self.topic = topic
        self.deadline = deadline

    def timers(self, line: Line, out_of_time: Callable[[], None]) -> list[Timer]:
        """What calls ``out_of_time``: where it is over already, which is a mere look at what is there, the loop."""
        if self.deadline is None:
            return []
        if self.deadline > line.clock.now():
            return [line.timers.at(self.deadline, out_of_time)]
        line.loop.call_soon(out_of_time)
        return []


class StreamWait:
    """What a reader of a stream waits for: more of it."""

    __slots__ = ("ask",)

    def __init__(self, ask: StreamAsk) -> None:
        self.ask = ask
