"""What a workflow body says and asks for itself: sleep, receive, publish, tell the time."""

from __future__ import annotations

import random as _random
import uuid as _uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast, overload

from perdure.api.keys import Event, Topic, name_and_shape
from perdure.model.durations import Duration, to_us
from perdure.model.info import to_datetime
from perdure.runtime import aface
from perdure.serde.codec import seal

if TYPE_CHECKING:  # type parameters have defaults only since Python 3.13; checkers know them from here
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")


@aface.at_the_call
async def sleep(duration: Duration, /) -> None:
    """Sleep durably: a crash does not start it anew, and a long one costs a row, no thread or task.

    The wait ends not before ``duration`` by the database's clock.
    """
    await aface.sleep(to_us(duration, "sleep"))


@overload
async def recv(topic: Topic[T] | str = "", *, timeout: None = None) -> T: ...
@overload
async def recv(topic: Topic[T] | str = "", *, timeout: Duration) -> T | None: ...
@aface.at_the_call
async def recv(topic: Topic[T] | str = "", *, timeout: Duration | None = None) -> T | None:
    """Take the next message of a topic, first in first out; without a topic, of those sent without one.

    Waits for ever, or until ``timeout`` has passed: then None. What is taken is taken once, whatever crashes.
    """
    name, shape = name_and_shape(topic, "topic")
    return cast("T | None", await aface.recv(name, shape, None if timeout is None else to_us(timeout, "timeout")))


@aface.at_the_call
async def set_event(event: Event[T] | str, value: T) -> None:
    """Publish a value about this workflow, or update it. Readable from anywhere, also after the end."""
    execution = aface.need_body("set_event")
    name, shape = name_and_shape(event, "event")
    where = f"event {name!r}"
    data = seal(shape.encode(value, where), where, execution.host.registry.codec)
    execution.note_event(execution.next_path(), name, data)


def now() -> datetime:
    """The time of the latest outcome that this workflow was handed: the same on every replay. Aware, UTC."""
    return to_datetime(aface.need_body("now()").run.now)


def uuid4() -> _uuid.UUID:
    """A UUID, the same on every replay."""
    return cast("_uuid.UUID", aface.need_body("uuid4()").chance.uuid4())


class _WorkflowRandom(_random.Random):
    """A ``random.Random`` whose numbers are the same on every replay of the workflow that draws them."""

    def random(self) -> float:
        return cast("float", aface.need_body("random").chance.random.random())

    def getrandbits(self, k: int, /) -> int:
        return cast("int", aface.need_body("random").chance.random.getrandbits(k))

    def seed(self, a: object = None, version: int = 2) -> None:
        """The seed is the workflow's own; there is no other."""

    def getstate(self) -> Any:
        raise NotImplementedError("the state of a workflow's random numbers belongs to the workflow")

    def setstate(self, state: Any) -> None:
        self.getstate()


random: _random.Random = _WorkflowRandom()
"""Random numbers for a workflow body: ``random.random()``, ``random.choice(…)``; the same on every replay."""
