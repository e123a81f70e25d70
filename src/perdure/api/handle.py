"""Handles: how anybody speaks to a workflow by its id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Generic, Literal, TypeVar, cast

from perdure.api.keys import Event, Stream, Topic, check_message_key, encode_message, name_and_shape
from perdure.api.options import check_id
from perdure.client.questions import (
    CancelOf,
    DeleteOf,
    EventOf,
    ForkOf,
    InfoOf,
    MoveOf,
    PauseOf,
    ProblemsOf,
    ResetOf,
    RestartOf,
    ResultOf,
    ResumeOf,
    SendTo,
    SkipOf,
    TerminateOf,
    UnpauseOf,
)
from perdure.model.amounts import check_amount
from perdure.model.durations import Duration, to_us
from perdure.model.info import Problem, WorkflowInfo
from perdure.model.orders import Answered, read_goal
from perdure.model.resets import read_point
from perdure.model.states import Status
from perdure.operations.look import Order, who
from perdure.operations.reset import Options as Resets
from perdure.runtime import aface
from perdure.runtime.face import Home
from perdure.serde.codec import seal
from perdure.serde.values import ArgsShape, Shape

ANY_ARGS = ArgsShape.of(lambda *_args, **_named: None)  # the code need not be here: by their own types

R = TypeVar("R")
T = TypeVar("T")


class Handle(Generic[R]):
    """A workflow, by its id. Making one does no I/O; inside a workflow, what it does or answers is recorded.

    >>> # await checkout.handle("order-42").send(True, shipped)
    """

    def __init__(self, home: Home, id: str, shape: Shape, ended: object = None) -> None:
        self.id = id
        self._ended = ended  # of a run that this process started: its end need not be asked for
        self._home = home
        self._shape = shape

    @aface.at_the_call
    async def result(self, *, timeout: Duration | None = None) -> R:
        """Wait for the end: the result, or the exception that the workflow ended with.

        Raises ``ResultTimeout`` when ``timeout`` has passed (the workflow goes on), ``WorkflowCancelled`` and its
        sisters when it did not complete, ``WorkflowNotFound`` for an unknown id.
        """
        question = ResultOf(self.id, self._shape, None if timeout is None else to_us(timeout, "timeout"), self._ended)
        return cast("R", await aface.ask(self._home, question))

    @aface.at_the_call
    async def info(self) -> WorkflowInfo:
        """The workflow's state now. Raises ``WorkflowNotFound``."""
        return cast("WorkflowInfo", await aface.ask(self._home, InfoOf(self.id)))

    @aface.at_the_call
    async def status(self) -> Status:
        """The workflow's status now. Raises ``WorkflowNotFound``."""
        return (await self.info()).status

    @aface.at_the_call
    async def problems(self) -> list[Problem]:
        """Attempts that did not get it on: steps that failed and are tried again, deaths, code that does not fit.

        What is over stays, with ``cleared``; the oldest first. Not inside a workflow. Raises ``WorkflowNotFound``.

        >>> # [problem] = await handle.problems()   # problem.kind == "step_failed", problem.step, problem.next …
        """
        return cast("list[Problem]", await aface.ask(self._home, ProblemsOf(self.id)))

    @aface.at_the_call
    async def cancel(self, *, reason: str = "") -> Status:
        """Cancel: it stops before its next step, wakes from waits, cleans up once.

        Answers with the status it ended with, once that is definite: ``cancelled``, or the one it already had.
        ``superseded``: another run has taken its place that was not told: it was reset without commands, or had ended
        and was resumed, reset or replaced at once. Any other run that follows is told, too, and awaited. Raises
        ``WorkflowNotFound``.
        """
        return cast("Status", await aface.ask(self._home, CancelOf(self.id, reason)))

    @aface.at_the_call
    async def send(
        self, value: T, topic: Topic[T] | str = "", *, key: str | None = None, session: object = None
    ) -> None:
        """Send a message; durable when this returns. With ``key`` it is delivered once, however often it is sent.

        What one sender sends, each when the one before is durable, is received in that order, on each topic.

        ``key``: at most 1024 bytes. ``session``: send it in this transaction of yours, so that it is delivered if that
        commits, and before what you send after the commit.

        Raises ``WorkflowNotFound`` for an unknown id, ``WorkflowClosed`` for one that has ended, ``Unserializable``.
        """
        name, shape = name_and_shape(topic, "topic")
        data = seal(encode_message(value, shape, name), "value", self._home.registry.codec)
        question = SendTo(self.id, name, data, check_message_key(key))
        if session is not None:
            await aface.send_within(self._home, question, session)
        else:
            await aface.ask(self._home, question)

    @aface.at_the_call
    async def get_event(self, event: Event[T] | str, *, timeout: Duration | None = None) -> T | None:
        """Wait for an event of the workflow: its latest value.

        None when ``timeout`` has passed, or when the workflow closed without setting it. Raises ``WorkflowNotFound``.
        """
        name, shape = name_and_shape(event, "event")
        wait = None if timeout is None else to_us(timeout, "timeout")
        return cast("T | None", await aface.ask(self._home, EventOf(self.id, name, shape, wait)))

    def read_stream(self, stream: Stream[T] | str, *, offset: int = 0) -> AsyncIterator[T]:
        """The values of a stream in order, from ``offset`` on, as they are written; the end when it is closed or ended.

        Raises ``WorkflowNotFound`` for an unknown id, when the first value is asked for; ``Misuse`` for an ``offset``
        that is no whole number from 0 on.

        >>> # async for token in handle.read_stream(tokens): …
        """
        name, shape = name_and_shape(stream, "stream")
        return aface.StreamReader(self._home, self.id, name, shape, check_amount(offset, "offset", 0))

    @aface.at_the_call
    async def resume(self, *, version: str | None = None, force: bool = False, reason: str = "") -> Status:
        """Let it go on from its last recorded step: held, cancelled, timed out; queued or scheduled, it starts now.

        Answers with the status it then has; what runs or waits goes on already. ``version``: the code that goes on
        with it; ``force``: even if nobody has checked that its history replays there. Not inside a workflow.

        Raises ``WorkflowClosed`` for what is final (restart or fork it), ``WorkflowStranded``, ``WorkflowNotFound``.
        """
        question = ResumeOf(id=self.id, version=version, force=force, order=Order(by=who(), reason=reason))
        status = cast("Status", await aface.ask(self._home, question))
        self._ended = None  # the end that was known is no longer the end
        return status

    @aface.at_the_call
    async def pause(self, *, reason: str = "") -> Status:
        """Stop it before its next step, until ``unpause``; the steps in flight end, and what they gave is recorded.

        Answers once that is definite: ``held``, or the status of one that has ended. Its deadline holds, its timers
        keep their times, its mail is kept, and a cancel works at once. Not inside a workflow. Raises
        ``WorkflowNotFound``.
        """
        question = PauseOf(id=self.id, order=Order(by=who(), reason=reason))
        return cast("Status", await aface.ask(self._home, question))

    @aface.at_the_call
    async def unpause(self, *, reason: str = "") -> Status:
        """Let it go on where it was paused; timers that are overdue fire.

        Answers with the status it then has; one that is not paused keeps its own. Not inside a workflow. Raises
        ``WorkflowNotFound``.
        """
        question = UnpauseOf(id=self.id, order=Order(by=who(), reason=reason))
        return cast("Status", await aface.ask(self._home, question))

    @aface.at_the_call
    async def move(self, to: str, *, one_time: bool = False, force: bool = False, reason: str = "") -> Status:
        """Let an open workflow run on elsewhere, whatever its code declares; its status then.

        ``to``: a version; ``"auto-upgrade"``: with the routing; ``"unset"``: as its code declares again. ``one_time``:
        on that version until it next comes to rest there. ``force``: also to a version that was never launched. What
        runs is taken from its executor in the same commit. A history that does not fit the code there holds it,
        without effect. Done already, it does nothing. Not inside a workflow.

        Raises ``WorkflowRefused`` for what has ended (reset it), ``VersionNotFound``, ``WorkflowNotFound``.

        >>> # await handle.move("v3", reason="v2 charges twice")
        """
        goal = read_goal(to, once=one_time)
        question = MoveOf(id=self.id, goal=goal, force=force, order=Order(by=who(), reason=reason))
        return cast("Answered", await aface.ask(self._home, question)).status or Status.QUEUED

    @aface.at_the_call
    async def reset(
        self,
        to: str,
        *,
        exclude: Literal["none", "messages", "all"] = "none",
        move_to: str | None = None,
        children: Literal["keep", "reset"] = "keep",
        key: str | None = None,
        again: bool = False,
        force: bool = False,
        reason: str = "",
    ) -> Status:
        """Begin another run of this id from its records before a point, whether it is open or closed; its status then.

        ``to``: ``"first"``; ``"last"``, up to the last wait that ended; a step by its name, path (``"2.1"``) or record
        (``"#7"``); ``"before-version:V"``. What is dropped stays readable, steps run again under the same idempotency
        keys, and messages are received again unless ``exclude`` says otherwise (``"all"``: commands, too). ``move_to``:
        as ``move``, in the same commit. ``children="reset"``: with those that the dropped part started. The same order
        (``key``, else all of this) is done once, unless ``again``. Not inside a workflow.

        Raises ``WorkflowRefused`` (no such step …), ``VersionNotFound``, ``WorkflowNotFound``.

        >>> # await handle.reset("charge", move_to="v3", reason="v2 charged the wrong account")
        """
        goal = None if move_to is None else read_goal(move_to)
        options = Resets(exclude=exclude, goal=goal, children=children, key=key, again=again, force=force)
        question = ResetOf(
            id=self.id, point=read_point(to), options=options, order=Order(by=who(), reason=reason)
        )  # fmt: skip
        status = cast("Answered", await aface.ask(self._home, question)).status
        self._ended = None  # the end that was known is no longer the end
        return status or Status.QUEUED

    @aface.at_the_call
    async def skip(self, step: str, result: Any, *, reason: str = "") -> Status:
        """Give a step in flight its result: the body sees that, and the step does not run; the workflow's status then.

        ``step``: its name or path. Not inside a workflow. Raises ``WorkflowRefused`` if it has an outcome or has not
        begun, ``WorkflowNotFound``, ``Unserializable``.

        >>> # await handle.skip("charge", "ch_42", reason="charged by hand")
        """
        data = seal(Shape.of(Any).encode(result, "result"), "result", self._home.registry.codec)
        question = SkipOf(id=self.id, step=step, data=data, order=Order(by=who(), reason=reason))
        return cast("Answered", await aface.ask(self._home, question)).status or Status.QUEUED

    @aface.at_the_call
    async def terminate(self, *, reason: str = "") -> Status:
        """End it at once, with no cleanup; whoever runs it writes nothing more.

        Not inside a workflow. Raises ``WorkflowRefused`` if it had ended otherwise, ``WorkflowNotFound``.
        """
        question = TerminateOf(id=self.id, order=Order(by=who(), reason=reason))
        return cast("Answered", await aface.ask(self._home, question)).status or Status.TERMINATED

    @aface.at_the_call
    async def delete(self) -> None:
        """Forget it, all its runs: only what has ended. Not inside a workflow.

        Raises ``WorkflowRefused`` if it is open, ``WorkflowNotFound``.
        """
        await aface.ask(self._home, DeleteOf(id=self.id))

    @aface.at_the_call
    async def restart(
        self, *, id: str | None = None, terminate: bool = False, version: str | None = None, reason: str = ""
    ) -> Handle[R]:
        """Begin anew under another id (default: this one with ``-2``, ``-3`` …), with the same name and input.

        ``terminate``: ends this one at once, in the same commit. ``version``: of the code that runs the new one. With
        an ``id`` it may be repeated. Not inside a workflow. Raises ``WorkflowNotFound``, ``WorkflowConflict``,
        ``VersionNotFound``.
        """
        new_id = None if id is None else check_id(id)
        question = RestartOf(
            id=self.id, new_id=new_id, terminate=terminate, version=version, order=Order(by=who(), reason=reason)
        )
        return Handle(self._home, cast("str", await aface.ask(self._home, question)), self._shape)

    @aface.at_the_call
    async def fork(
        self,
        step: str | int | None = None,
        *,
        id: str | None = None,
        version: str | None = None,
        input: Sequence[Any] | None = None,
        reason: str = "",
    ) -> Handle[R]:
        """Begin another workflow that keeps what this one has recorded before ``step``; this one stays as it is.

        ``step``: a name, a path (``"2.1"``) or a record's number (an int, or ``"#7"``); None keeps all. ``id``: of the
        new one (default: this one with ``-2``, ``-3`` …); given one, it may be repeated. ``version``: the code that
        goes on. ``input``: other arguments, in order; if records are kept, a replay that does not fit holds it.
        Not inside a workflow.

        Raises ``StepNotFound``, ``WorkflowNotFound``, ``WorkflowConflict``, ``Unserializable``.
        """
        new_id = None if id is None else check_id(id)
        data = None if input is None else seal(ANY_ARGS.encode(tuple(input), {}), "input", self._home.registry.codec)
        question = ForkOf(
            id=self.id, new_id=new_id, step=step, version=version, input=data, order=Order(by=who(), reason=reason)
        )
        return Handle(self._home, cast("str", await aface.ask(self._home, question)), self._shape)

    def __repr__(self) -> str:
        return f"<Handle {self.id!r}>"
