"""A step's body under way: on the loop (``async def``) or in a thread (``def``), with its timeout and its attempts.

The body's outcome is encoded where it ended; what does not survive the round trip is the step's failure (the effect
is done, it is never run again). KeyboardInterrupt, SystemExit and MemoryError are a crash, not an outcome: raised in
the main thread the first two end the process, anything else holds the workflow. Every other exception is an outcome.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from perdure.core.run import Op, Run
from perdure.definitions import StepDef
from perdure.errors import DefinitionError, StepFailed, StepOutcomeUnknown, StepTimeout
from perdure.model.records import MOVE, Kind, Outcome, Record, WorkflowRow
from perdure.model.states import Reason
from perdure.model.text import written_out
from perdure.policy.retry import Retry
from perdure.runtime.context import STEP, StepContext
from perdure.runtime.pool import settle
from perdure.serde.codec import Codec, seal
from perdure.serde.failures import describe_failure, encode_failure
from perdure.serde.show import SHOWN_MAX, show_call, show_none

T = TypeVar("T")
CRASHES = (KeyboardInterrupt, SystemExit, MemoryError)


class Stage(Protocol):
    """What a step needs of the execution it is called in."""

    host: Any
    line: Any
    run: Run
    row: WorkflowRow

    def step_done(self, op: Op, outcome: Outcome, data: bytes | None, error: Exception | None) -> None:
        """The body has ended."""
        ...

    def hold(self, reason: Reason, detail: str) -> None:
        """Park with a reason."""
        ...


class StepCall:
    """One call of a step: what to run, and the run of it that is under way."""

    __slots__ = (
        "_execution", "_op", "_task", "_timed_out", "_timer", "args", "definition", "earlier", "kwargs", "name",
        "retry", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        definition: StepDef,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        retry: Retry | None,
        timeout: int | None,
        name: str,
    ) -> None:
        self.definition = definition
        self.args = args
        self.kwargs = kwargs
        self.retry = retry
        self.timeout = timeout
        self.name = name
        self.earlier: tuple[str, ...] = ()
        self._task: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timed_out = False

    def wants_retry(self, error: Exception, attempt: int) -> bool:
        return self.retry is not None and self.retry.wants(error, attempt)

    def wait(self, attempt: int) -> int:
        """Microseconds until the attempt after this one, which has failed."""
        return 0 if self.retry is None else self.retry.wait_us(attempt)

    def remember(self, attempt: int, error: Exception) -> None:
        """Earlier attempts become notes of the last one's exception."""
        self.earlier += (f"attempt {attempt} failed: {type(error).__name__}: {error}",)

    def recall(self, path: str, history: Sequence[Record]) -> bool:
        """The same, from history: attempts made before a restart. Whether an order has moved it since the latest."""
        moved = False
        for record in history:
            moved = moved or (record.kind is Kind.DECISION and record.name == MOVE)
            if record.kind is not Kind.ATTEMPT or record.path != path:
                continue
            moved = False
            failure = describe_failure(record.data or b"")
            name = failure.type_name.rpartition(".")[2]
            self.earlier += (f"attempt {record.attempt} failed: {name}: {failure.message}",)
        return moved

    def context(self, execution: Stage, op: Op) -> contextvars.Context:
        """The step's own context: what was set when the app was opened, and who this step is."""
        context: contextvars.Context = execution.host.context.copy()
        run = execution.run
        step = StepContext(
            run.key,
            run.lineage,
            execution.row.name,
            run.version,
            op.path,
            op.attempt,
            execution.host.executor_id,
            run.decided,
            execution,
            op,
        )
        context.run(STEP.set, step)
        return context

    def start(self, execution: Stage, op: Op) -> None:
        """Run the body; ``execution.step_done`` is called once, from a plain callback of the loop."""
        loop: asyncio.AbstractEventLoop = execution.line.loop
        context = self.context(execution, op)
        self._timed_out = False
        fn, is_async = execution.host.body_of(self.definition)
        try:
            if is_async:
                body = fn(*self.args, **self.kwargs)
                if execution.host.thread is not threading.main_thread():  # its loop's
                    body = _contained(body)
                task: asyncio.Future[Any] = asyncio.Task(body, loop=loop, context=context)
            else:
                task = execution.host.step_pool.run(context, fn, self.args, self.kwargs)
        except BaseException as refused:  # at the call itself, or no thread is to be had: an outcome like any other
            task = loop.create_future()
            settle(task, None, refused)
        self._task = task
        if self.timeout is not None:
            self._timer = loop.call_later(self.timeout / 1e6, self._time_out)
        self._execution, self._op = execution, op
        task.add_done_callback(self._done)

    def _time_out(self) -> None:
        self._timed_out = True
        if self._task is not None:
            self._task.cancel()

    def stop(self) -> None:
        """Nobody waits for it any more: cancel the body; its outcome is dropped."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._task = None
        execution, op = self._execution, self._op
        del self._execution, self._op
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if task.cancelled():
            outcome, data, error = self._stopped(cancellation(task))
        else:
            raised = task.exception()
            if isinstance(raised, _Contained):
                raised = raised.error
            if isinstance(raised, CRASHES):
                crashed(execution, raised, f"step {self.name}", in_thread=not isinstance(task, asyncio.Task))
                return
            outcome, data, error = self.conclude(raised, task.result, execution.host.registry.codec)
        execution.step_done(op, outcome, data, error)

    def _stopped(self, error: BaseException) -> tuple[Outcome, bytes | None, Exception | None]:
        if self._timed_out and self.timeout is not None:
            error = StepTimeout(f"step {self.name} ran longer than its timeout of {self.timeout / 1e6:g} s")
        return self.failed(error)

    def conclude(
        self, error: BaseException | None, value: Callable[[], Any], codec: Codec | None
    ) -> tuple[Outcome, bytes | None, Exception | None]:
        """The body's outcome as it will be recorded. Not for a crash."""
        if error is not None:
            return self.failed(error)
        given: Any = None
        try:
            where = f"result of {self.name}"
            given = value()
            return Outcome.VALUE, seal(self.definition.result.encode(given, where), where, codec), None
        except Exception as unserializable:  # recorded as the step's failure: its effect is done
            passed_on = any(given is one for one in (*self.args, *self.kwargs.values()))  # the caller's to await
            why = None if passed_on else not_awaited(self.definition, given)
            return Outcome.ERROR, encode_failure(why or unserializable), None

    def unknown(self) -> bytes:
        """The outcome of a step that may have begun before, and must not begin again."""
        return encode_failure(
            StepOutcomeUnknown(
                f"step {self.name} is declared at_most_once, and its executor died before or while it ran. "
                "Whether its effect happened is unknown: look, then go on or fail"
            )
        )

    def failed(self, error: BaseException) -> tuple[Outcome, bytes | None, Exception | None]:
        for note in self.earlier:
            error.add_note(note)
        return Outcome.ERROR, encode_failure(recordable(error)), error if isinstance(error, Exception) else None


def shown(
    execution: Stage, path: str, fingerprint: bytes, of: StepDef, args: Sequence[Any], kwargs: dict[str, Any]
) -> str:
    """The arguments as people see them. On replay history has shown them already, if it is the same call."""
    recorded = execution.run.recorded(path)
    if recorded is not None and recorded.fingerprint == fingerprint:
        return recorded.shown
    if execution.host.registry.codec is not None:
        return show_none(args, kwargs)
    return show_call(args, kwargs, SHOWN_MAX, of.hidden)


def not_awaited(definition: StepDef, given: object) -> DefinitionError | None:
    """The error of a step that gave something to await in place of its value; a coroutine is closed, unbegun."""
    if not inspect.isawaitable(given):
        return None
    what = type(given).__name__
    if inspect.iscoroutine(given) and inspect.getcoroutinestate(given) == inspect.CORO_CREATED:
        given.close()
    return DefinitionError(
        f"step {definition.name} returned a {what}, and what that would do was not done: nobody awaited it. If a "
        f"decorator wraps the step, make the wrapper 'async def' and await the function in it; declared at "
        f"{definition.place}"
    )


def value_outside(definition: StepDef, given: T) -> T:
    """What a ``def`` step gave to a caller outside a workflow."""
    error = not_awaited(definition, given) if inspect.iscoroutine(given) else None
    if error is not None:
        raise error
    return given


def cancellation(task: asyncio.Future[Any]) -> asyncio.CancelledError:
    """With what a cancelled task ended: with the words of whoever cancelled it."""
    try:
        task.result()
    except asyncio.CancelledError as error:
        return error
    return asyncio.CancelledError()


def recordable(error: BaseException) -> BaseException:
    """An exception as it can be recorded: one of neither kind (``pytest.fail`` in a fake, GeneratorExit) as text."""
    if isinstance(error, (Exception, asyncio.CancelledError)):
        return error
    known = type(error)
    copy = StepFailed(f"{known.__module__}.{known.__qualname__}".removeprefix("builtins."), str(error))
    for note in getattr(error, "__notes__", ()):
        copy.add_note(note)
    return copy.with_traceback(error.__traceback__)


class _Contained(BaseException):
    """Carries what asyncio would let end the loop."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _contained(body: Awaitable[Any]) -> Any:
    """A body on a loop in a thread: its SystemExit would stop the loop, and nothing would say so."""
    try:
        return await body
    except (KeyboardInterrupt, SystemExit) as error:
        raise _Contained(error) from None


def _may_end_process() -> bool:
    return threading.current_thread() is threading.main_thread()


def crashed(execution: Stage, error: BaseException, what: str, *, in_thread: bool) -> None:
    """User code raised what counts as a crash. In the main thread it ends the process, as anywhere in Python.

    It need not be the code's own there: a handler of a signal raises it wherever the main thread is. ``in_thread``: it
    was raised beside the loop. Then, or if the loop is not the main thread's, it is the code's own and the process
    lives on: the workflow is held with nothing recorded, and tried again at the next launch.
    """
    if not (in_thread or isinstance(error, MemoryError)) and _may_end_process():
        raise error
    said = f": {written_out(str(error))}" if str(error) else ""
    execution.hold(
        Reason.CRASHED,
        f"{what} raised {type(error).__name__}{said}. That counts as a crash: nothing was recorded, and the next "
        "launch tries again. To fail instead, raise an ordinary exception",
    )
