"""The small deterministic event loop on which one async workflow body runs.

One loop per run, driven in bursts from plain callbacks of the host's loop; it knows no store, journal or history.
Whoever drives it decides everything that comes from outside: when a timer fires, when an outcome arrives, what time
it is. Promises: the same body with the same outcomes handed over in the same order makes the same calls, in the same
order, under the same paths, in every process; a burst gives the host back within its bounds; nothing that the host
has set (running loop, context variables, async generator hooks) is seen by the body, or changed when a burst ends.

Two rules for the driver:

- after ``burst()`` answered False, hand nothing over and leave ``now`` alone until a later one has answered True:
  where a burst was cut depends on the machine, and nothing may enter the body at such a place;
- hand over one outcome (or fire one timer), then burst, so that the order of outcomes is all there is to record.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import Context, copy_context
from threading import get_ident
from typing import Any, NamedTuple, Protocol, TypeVar, TypeVarTuple, Unpack, cast

from perdure.errors import Evicted, NotDurable
from perdure.model.real import time
from perdure.runtime import ordered, refused, unwind
from perdure.runtime.aio import (
    Lineage,
    LoopFuture,
    LoopHandle,
    LoopTask,
    LoopTimer,
    begin_task,
    blank_task,
    future_number,
    get_running_loop,
    mixed,
    run_seed,
    set_running_loop,
    unfinished,
    unretrieved,
)
from perdure.runtime.collected import COLLECTOR

__all__ = ["LoopError", "LoopFuture", "LoopTask", "LoopTimer", "TimerSink", "WorkflowLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SECOND = 1_000_000
DELAY_MAX = 1000 * 366 * 86_400 * SECOND  # a thousand years: what sleep(math.inf) becomes, so that it fits a column
ERRORS_MAX = 100
CHECK_EVERY = 4  # callbacks between two looks at the clock
PRUNE_FROM = 32

if sys.version_info >= (3, 12):
    _current_task = asyncio.current_task
else:  # there it is written in Python, and each call of a body asks for it
    _current_task = cast("Any", asyncio.tasks)._current_tasks.get  # noqa: SLF001
_set_hooks = sys.set_asyncgen_hooks
# LoopHandle is no asyncio.Handle but answers as one; naming it so here costs nothing at each call.
_new_handle = cast("Callable[[Any, Any, Context], asyncio.Handle]", LoopHandle)
_EAGER_FACTORY: object = getattr(asyncio, "eager_task_factory", None)  # since Python 3.12


class TimerSink(Protocol):
    """Who drives a run: keeps its timers, and is told if it is spoilt."""

    def timer_armed(self, timer: LoopTimer) -> None:
        """``call_at`` or ``call_later`` was called with a time to come."""
        ...

    def timer_disarmed(self, timer: LoopTimer) -> None:
        """It was cancelled before it was fired."""
        ...

    def touched(self, error: NotDurable) -> None:
        """The body is spoilt: somebody else has woken it, in any thread; ``error`` is what he is told."""
        ...


class LoopError(NamedTuple):
    """An error that no task or caller took: of a plain callback, or of a task that nobody awaited."""

    message: str
    exception: BaseException | None


class WorkflowLoop(refused.RefusingLoop):
    """See the head of this file."""

    # AbstractEventLoop has no __slots__, so there is a __dict__ as well; it is never filled, and so never made.
    __slots__ = (
        "_bursting",
        "_eager",
        "_futures",
        "_generators",
        "_numbered",
        "_prune_generators_at",
        "_prune_tasks_at",
        "_ready",
        "_root",
        "_seed",
        "_sink",
        "_strays",
        "_tasks",
        "_thread",
        "_timers",
        "delivering",
        "errors",
        "gone",
        "main",
        "now",
        "run",
    )

    burst_callbacks_max = 10_000
    burst_seconds_max = 0.05

    def __init__(self, identity: bytes, sink: TimerSink) -> None:
        self.run: Any = None
        self.now = 0
        self.gone = False
        self.main: LoopTask | None = None
        self.errors: list[LoopError] = []
        self._sink: TimerSink | None = sink
        self._seed = run_seed(identity)
        self._numbered = 0  # tasks so far
        self._futures = 0  # futures that were hashed so far
        self._ready: deque[Any] = deque()
        self._timers: dict[str, LoopTimer] = {}
        self._tasks: list[asyncio.Task[Any]] = []  # in order of creation; the done ones are pruned now and then
        self._prune_tasks_at = PRUNE_FROM
        self._generators: list[AsyncGenerator[Any, Any]] = []
        self._prune_generators_at = PRUNE_FROM
        self._root: Any = None  # lineage of main, and of callbacks outside any task
        self._strays: dict[asyncio.Task[Any], Lineage] | None = None
        self._bursting = 0  # in a burst: the thread it runs in
        self._thread = get_ident()
        self._eager = False
        self.delivering = False  # set by the driver for just so long as it wakes the body: see ``_refuse_outside``

    # -- for the engine: start, burst, fire, end

    def start(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Make the main task, in an empty context. It first runs in the next burst."""
        if self.main is not None:
            raise RuntimeError("this loop has its main task already")
        task = blank_task(Context(), "", mixed(self._seed, 0))
        self.delivering = True
        try:
            begin_task(task, coro, self, "main")
        finally:
            self.delivering = False
        self.main = self._root = task
        self._tasks.append(task)
        return task

    def burst(self, more: Callable[[], bool] | None = None) -> bool:
        """Run what is ready until nothing is (True) or the bound on callbacks or time is reached (False).

        ``more`` is called whenever nothing is ready: it hands over one outcome and answers True, or answers False. To
        enter and leave costs as much as a short burst does, so a replay does it once. It schedules nothing itself: its
        context is the host's.

        Only from a plain callback of the host's loop: inside a host task, asyncio would see two tasks run at once.
        """
        ready = self._ready
        if not ready and more is None:
            return True
        host = get_running_loop()
        if self._bursting or (host is not None and _current_task(host) is not None):
            raise RuntimeError("burst() was called inside a task; it belongs into a plain callback of the host's loop")
        hooks = sys.get_asyncgen_hooks()
        left = CHECK_EVERY
        callbacks = self.burst_callbacks_max
        until = time.monotonic() + self.burst_seconds_max
        self._bursting = self._thread
        _set_hooks(_generator_started, None)
        set_running_loop(self)
        try:
            while ready or (more is not None and more()):
                if not ready:
                    continue
                handle: LoopHandle = ready.popleft()
                if handle.dropped:
                    continue
                try:
                    handle.context.run(handle.callback, *handle.args)  # type: ignore[arg-type, misc]  # None once dropped
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as error:
                    self._callback_failed(handle, error)
                left -= 1
                if not left:
                    left = CHECK_EVERY
                    callbacks -= CHECK_EVERY
                    if callbacks <= 0 or time.monotonic() > until:
                        return not ready and more is None
            return True
        finally:
            self._bursting = 0
            set_running_loop(host)
            _set_hooks(*hooks)

    def pending(self) -> bool:
        """Whether the body could wake by itself: a callback is ready, or a timer is armed."""
        return bool(self._ready or self._timers)

    @property
    def timers(self) -> dict[str, LoopTimer]:
        """The armed timers by path, in the order in which they were armed. To be read, not changed."""
        return self._timers

    def fire(self, timer: LoopTimer) -> None:
        """Schedule the callback of an armed timer; the next burst runs it. Nothing if it was fired or cancelled."""
        if timer.armed and not self.gone:
            timer.armed = False
            del self._timers[timer.path]
            self._ready.append(_new_handle(timer.ring, (), timer.call_context))

    def next_path(self) -> str:
        """The lineage path of the next call of the current task; a callback outside any task belongs to main."""
        if COLLECTOR.thread:
            COLLECTOR.refuse()
        task = _current_task(self)
        lineage = task if type(task) is LoopTask else self._lineage(task)
        lineage.calls = calls = lineage.calls + 1
        return f"{lineage.prefix}{calls}"

    @contextmanager
    def deliver(self) -> Generator[None]:
        """Here the driver wakes the body. Where each outcome passes it sets ``delivering`` itself, which costs less."""
        before, self.delivering = self.delivering, True
        try:
            yield
        finally:
            self.delivering = before

    def cancel_main(self) -> None:
        """Raise ``CancelledError`` where the main task stands; the next burst delivers it."""
        if self.main is not None:
            with self.deliver():
                self.main.cancel()

    def throw_into_main(self, error: BaseException) -> None:
        """Raise ``error`` where the main task stands; the next burst delivers it."""
        waits_for = unwind.awaited(self.main)
        while isinstance(waits_for, asyncio.Task):  # where that one stands: it is what main stands in
            waits_for = unwind.awaited(waits_for)
        if waits_for is not None and not waits_for.done():
            with self.deliver():
                waits_for.set_exception(error)

    def cancel_leftovers(self) -> list[asyncio.Task[Any]]:
        """When main has ended: cancel what still lives, in order of creation, and close abandoned async generators.

        Answers the tasks that are not done yet, in order; each is cancelled once, however often this is called. Burst
        (and hand over what their cleanup asks for) until they are done. An empty list: nothing is left.
        """
        live = self.live_tasks()
        if live or self._generators:
            with self.deliver():
                self._cancel_leftovers(live)
        if not live:
            self.report_unretrieved()
        return live

    def _cancel_leftovers(self, live: list[asyncio.Task[Any]]) -> None:
        for task in live:
            if isinstance(task, LoopTask):
                if task.called_off:
                    continue
                task.called_off = True
            task.cancel()
        generators = [generator for generator in self._generators if unfinished(generator)]
        self._generators.clear()
        if generators:
            closer = self._create(_close_generators(generators, live, self.errors), None, Context(), eager=False)
            closer.called_off = True  # it is the cleanup
            live.append(closer)

    def report_unretrieved(self) -> None:
        """Note now, in order, what asyncio would say whenever the collector finds the task; each once."""
        for task in self._tasks:
            if task is self.main or not unretrieved(task):
                continue
            error = task.exception()
            if isinstance(error, Evicted):
                self.errors.append(LoopError(*refused.behind_the_end(unwind.named(task.get_coro()), error)))
            else:
                self.errors.append(LoopError(f"Task exception was never retrieved ({task!r})", error))

    def unwind(self) -> list[str]:
        """Put the body away: end every coroutine where it stands, newest task first, main last; then let go of all.

        User code unwinds with ``Evicted``. Answers the names of those that swallowed it. May be called again.
        """
        if self._bursting:
            raise RuntimeError("a body cannot be put away from inside its own burst")
        self.gone = True
        self._ready = deque(maxlen=0)  # what cleanup code schedules vanishes
        for timer in self._timers.values():
            timer.armed = False
            timer.forget()
        self._timers.clear()
        live = self.live_tasks()
        swallowed = self._end_all(live) if live or self._generators else []
        for task in self._tasks:
            unwind.cut_task(task)
        self._tasks = []
        self._generators = []
        self._strays = self._root = self.main = self._sink = self.run = None
        self.errors.clear()
        return swallowed

    def plain_future(self) -> asyncio.Future[Any]:
        """A future that the body never sees as an object: asyncio serves its own class 0.2 to 0.7 µs faster."""
        return asyncio.Future(loop=self)

    def live_tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks that are not done, in order of creation."""
        return [task for task in self._tasks if not task.done()]

    in_our_words = staticmethod(refused.in_our_words)

    # -- asyncio's side: what a body may use

    def time(self) -> float:
        return self.now / SECOND

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if not self.delivering and get_ident() != self._bursting:
            self._refuse_outside()
        if context is None:
            # Outside a burst the current context is the host's, and none of the body's business.
            context = copy_context() if self._bursting else Context()
        handle = _new_handle(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self._arm(_micros(delay), callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        # ``when`` is a float of some 1.8e9 seconds, exact to a quarter of a microsecond; the difference of two such
        # floats is exact, so that timeout(5) and call_later(5) come to the same integer.
        return self._arm(_micros(when - self.time()), callback, args, context)

    def create_future(self) -> asyncio.Future[Any]:
        return LoopFuture(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: object = None,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        eager = options.pop("eager_start", None)
        if options:
            raise TypeError(f"create_task() got an unexpected keyword argument {next(iter(options))!r}")
        return self._create(coro, name, context, eager=self._eager if eager is None else bool(eager))

    def set_task_factory(self, factory: Any) -> None:
        """None or ``asyncio.eager_task_factory``: tasks of other makers would have no path and no stable order."""
        if factory is not None and factory is not _EAGER_FACTORY:
            raise refused.not_durable("set_task_factory", "tasks that Perdure cannot order")
        self._eager = factory is not None

    def get_task_factory(self) -> Any:
        return _EAGER_FACTORY if self._eager else None

    def call_exception_handler(self, context: Any) -> None:
        if self.gone or len(self.errors) >= ERRORS_MAX:
            return
        message = str(context.get("message", "unhandled error"))
        subject = context.get("task") or context.get("future") or context.get("handle")
        if subject is not None:
            message = f"{message} ({subject!r})"  # in words: the object itself would keep its frames alive
        self.errors.append(LoopError(message, context.get("exception")))

    def get_exception_handler(self) -> None:
        return None

    def is_running(self) -> bool:
        return not self.gone

    def is_closed(self) -> bool:
        return self.gone

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        if enabled:
            raise refused.not_durable("set_debug", refused.SETTING)

    # -- below: how it is done

    def _refuse_outside(self) -> None:
        """Somebody who is not the body wakes, cancels or schedules what is its own: a replay would not see it.

        Told by burst and thread: the running loop costs more to ask for (before Python 3.12 a system call), and context
        variables tell nothing, since an outcome may be handed over in the context of a step. The body is not what a
        replay makes of it any more (asyncio marks a future before it asks for its callbacks to be called, and forgets
        them if that fails), so the driver is told as well: whoever did it may catch the exception.
        """
        if self.gone or refused.being_collected():
            return
        error = refused.from_outside()
        if self._sink is not None:
            self._sink.touched(error)
        raise error

    def drop_timer(self, timer: LoopTimer) -> None:
        """An armed timer was cancelled (called by the timer)."""
        if not self.delivering and get_ident() != self._bursting:
            self._refuse_outside()
        self._timers.pop(timer.path, None)
        if self._sink is not None and not self.gone:
            self._sink.timer_disarmed(timer)

    def next_future_hash(self) -> int:
        self._futures += 1
        return mixed(self._seed, future_number(self._futures))

    def generator_started(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Hold it until it has ended: the collector must not choose the moment of its ``finally``."""
        held = self._generators
        if len(held) >= self._prune_generators_at:
            held[:] = [one for one in held if unfinished(one)]
            self._prune_generators_at = max(PRUNE_FROM, 2 * len(held))
        held.append(generator)

    def _arm(
        self, delay: int, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> LoopTimer:
        if not self.delivering and get_ident() != self._bursting:
            self._refuse_outside()
        if context is None:
            context = copy_context() if self._bursting else Context()
        if delay <= 0 or self.gone:
            timer = LoopTimer(self, "", self.now, callback, args, context)
            self._ready.append(_new_handle(timer.ring, (), context))
            return timer
        lineage = self._lineage(_current_task(self))
        lineage.timers += 1
        path = f"{lineage.prefix}t{lineage.timers}"
        timer = LoopTimer(self, path, self.now + delay, callback, args, context)
        timer.armed = True
        self._timers[path] = timer
        if self._sink is not None:
            self._sink.timer_armed(timer)
        return timer

    def _lineage(self, task: asyncio.Task[Any] | None) -> Any:
        if type(task) is LoopTask:
            return task
        if task is not None:
            return self._stray_lineage(task)
        if self._root is None:
            self._root = Lineage("")
        return self._root

    def _stray_lineage(self, task: asyncio.Task[Any]) -> Lineage:
        """A task made by ``asyncio.Task(…)`` itself is first seen when it calls: it gets a number of main's then."""
        if self._strays is None:
            self._strays = {}
        lineage = self._strays.get(task)
        if lineage is None:
            self._root.calls += 1
            self._strays[task] = lineage = Lineage(f"{self._root.calls}.")
            self._keep(task)
        return lineage

    def _create(self, coro: Any, name: object, context: Context | None, *, eager: bool) -> LoopTask:
        if self.gone:
            if hasattr(coro, "close"):
                coro.close()  # else Python would warn that it was never awaited
            raise Evicted("this workflow body is being put away: it can make no tasks")
        if not self.delivering and get_ident() != self._bursting:
            self._refuse_outside()
        path = self.next_path()
        self._numbered = number = self._numbered + 1
        if context is None:
            context = copy_context() if self._bursting else Context()
        task = blank_task(context, f"{path}.", mixed(self._seed, number))
        self._keep(task)  # before it begins: an eager task runs within begin_task, and may ask for all_tasks()
        try:
            begin_task(
                task,
                coro,
                self,
                f"task {path}" if name is None else str(name),
                eager=eager and _EAGER_FACTORY is not None,
            )
        except BaseException:
            self._tasks.remove(task)  # not a coroutine, for instance
            raise
        return task

    def _keep(self, task: asyncio.Task[Any]) -> None:
        tasks = self._tasks
        if len(tasks) >= self._prune_tasks_at:
            tasks[:] = [one for one in tasks if not one.done()]
            self._prune_tasks_at = max(PRUNE_FROM, 2 * len(tasks))
        tasks.append(task)

    def _callback_failed(self, handle: LoopHandle, error: BaseException) -> None:
        self.call_exception_handler({"message": f"Error in callback {handle.callback!r}", "exception": error})

    def _end_all(self, live: list[asyncio.Task[Any]]) -> list[str]:
        swallowed: list[str] = []
        host = get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        _set_hooks(None, None)
        set_running_loop(self)
        try:
            for task in reversed(live):
                context = task.own_context if isinstance(task, LoopTask) else Context()
                if not unwind.end_task(self, task, context):
                    swallowed.append(f"{task.get_name()}: {unwind.named(task.get_coro())}")
            swallowed.extend(
                f"async generator {unwind.named(generator)}"
                for generator in self._generators
                if unfinished(generator) and not Context().run(unwind.end_generator, generator)
            )
        finally:
            set_running_loop(host)
            _set_hooks(*hooks)
        return swallowed


def _micros(delay: float) -> int:
    """Seconds to microseconds. A delay above zero stays above zero; infinity becomes a thousand years."""
    if delay <= 0:
        return 0
    if math.isnan(delay):
        raise ValueError("a timer's delay is not a number (NaN)")
    return max(1, round(delay * SECOND)) if delay < DELAY_MAX / SECOND else DELAY_MAX


def _generator_started(generator: AsyncGenerator[Any, Any]) -> None:
    """The hook for async generators. One function for all loops: a bound method would tie each loop to itself."""
    loop = get_running_loop()
    if isinstance(loop, WorkflowLoop):
        loop.generator_started(generator)


async def _close_generators(
    generators: list[AsyncGenerator[Any, Any]], live: list[asyncio.Task[Any]], errors: list[LoopError]
) -> None:
    """Close what was abandoned, in the order in which it was begun, once nobody can be iterating it any more."""
    others = [task for task in live if task is not asyncio.current_task()]
    if others:
        await asyncio.wait(others)
    for generator in generators:
        try:
            await generator.aclose()
        except asyncio.CancelledError:
            continue  # of what it waited for: nobody cancels this task
        except (Exception, Evicted) as error:
            if asyncio.get_running_loop().is_closed():
                raise  # put away
            if isinstance(error, Evicted):  # of one: the others are closed all the same
                errors.append(LoopError(*refused.behind_the_end(unwind.named(generator), error)))
            else:
                errors.append(LoopError(f"Error while closing {generator!r}", error))


refused.refuse_the_rest(WorkflowLoop)
ordered.install(WorkflowLoop)
