"""What asyncio hands around on a workflow's loop: handles, timers, futures, tasks.

Promises: a task's or future's hash depends on the run and on the order of creation only, never on its address, so
that a ``set`` of them iterates alike in every replay; equality is identity; nothing here knows a store or a history.
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from typing import Any, Protocol, cast

import msgspec

get_running_loop = events._get_running_loop  # the public form raises where there is none
set_running_loop = events._set_running_loop

HASH_MODULUS = (1 << 61) - 1  # what Python reduces hashes of ints by: values below it are their own hash
_STRIDE = 0x9E3779B97F4A7C15 % HASH_MODULUS  # odd and irregular: neighbours fall into different slots of a small set
_FUTURES_FROM = 1 << 40  # futures are numbered apart from tasks: a new waiter inside asyncio must not shift the tasks


def run_seed(identity: bytes) -> int:
    """The run's share of every hash: without it, tasks 1, 2, 3 of all runs collide in asyncio's process-wide set."""
    return int.from_bytes(identity, "big") % HASH_MODULUS


def mixed(seed: int, number: int) -> int:
    return (seed + number * _STRIDE) % HASH_MODULUS


class Numbering(Protocol):
    """What a future asks of its loop."""

    def next_future_hash(self) -> int: ...


class LoopHandle(msgspec.Struct, eq=False, weakref=True):
    """A callback in the ready queue. Does what user code can do with an ``asyncio.Handle``, at a third of its cost."""

    callback: Callable[..., object] | None
    args: tuple[Any, ...] | None
    context: Context
    dropped: bool = False

    def cancel(self) -> None:
        self.dropped = True
        self.callback = self.args = None

    def cancelled(self) -> bool:
        return self.dropped

    def get_context(self) -> Context:
        return self.context


class TimerOwner(Protocol):
    """What a timer asks of its loop."""

    def drop_timer(self, timer: LoopTimer) -> None: ...


class LoopTimer(asyncio.TimerHandle):
    """A durable timer: ``path`` names it in the history, ``deadline`` is in microseconds.

    The loop never fires it by itself: ``WorkflowLoop.fire`` does, when the database's clock says so.
    """

    __slots__ = ("armed", "call", "call_args", "call_context", "deadline", "owner", "path")

    def __init__(
        self,
        owner: TimerOwner,
        path: str,
        deadline: int,
        call: Callable[..., object],
        call_args: tuple[Any, ...],
        call_context: Context,
    ) -> None:
        # Not super().__init__: it would make a context, ask the loop for debug mode and keep a second set of the same.
        self.owner: TimerOwner | None = owner
        self.path = path
        self.deadline = deadline
        self.call: Callable[..., object] | None = call
        self.call_args = call_args
        self.call_context = call_context
        self.armed = False
        self._cancelled = False
        raw = cast(Any, self)  # slots of the base that its repr() and asyncio's debug helpers read, absent in typeshed
        raw._when = deadline / 1e6
        raw._callback = raw._args = raw._source_traceback = raw._repr = raw._loop = None
        raw._context = call_context
        raw._scheduled = False

    def when(self) -> float:
        return self.deadline / 1e6

    def get_context(self) -> Context:
        return self.call_context

    def cancel(self) -> None:
        owner = self.owner
        self._cancelled = True
        self.forget()
        if self.armed and owner is not None:
            self.armed = False
            owner.drop_timer(self)

    def ring(self) -> None:
        """Run the callback, unless it was cancelled between the firing and its turn."""
        call = self.call
        if call is not None:
            call(*self.call_args)

    def forget(self) -> None:
        """Let go of the callback and the loop: whoever still holds the timer holds nothing else."""
        self.call = None
        self.call_args = ()
        self.owner = None

    def __repr__(self) -> str:
        state = "cancelled" if self._cancelled else "armed" if self.armed else "fired"
        return f"<LoopTimer {self.path} {state} deadline={self.deadline}>"

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)


class LoopFuture(asyncio.Future[Any]):
    """A future of a run. Its hash is numbered when it is first asked for, which is a moment of the body itself."""

    __slots__ = ("digest",)
    digest: int

    def __hash__(self) -> int:
        try:
            return self.digest
        except AttributeError:
            self.digest = digest = cast(Numbering, self.get_loop()).next_future_hash()
            return digest

    # Equality stays the identity of object: a written __eq__ would slow every set and dict of futures down.


class Lineage:
    """The paths of one task: its calls are ``prefix1, prefix2 …``, its timers ``prefixt1, prefixt2 …``."""

    __slots__ = ("calls", "prefix", "timers")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.calls = 0
        self.timers = 0


class LoopTask(asyncio.Task[Any]):
    """A task of a run: hash by order of creation, and the lineage of the calls that it makes."""

    __slots__ = ("called_off", "calls", "digest", "own_context", "prefix", "timers")
    called_off: bool  # cancelled once because the main task had ended
    calls: int
    digest: int
    own_context: Context  # Task.get_context() came with Python 3.12
    prefix: str
    timers: int

    def __hash__(self) -> int:
        return self.digest


def blank_task(context: Context, prefix: str, digest: int) -> LoopTask:
    """A task with its hash and its paths, for ``begin_task``: asyncio hashes it and, if eager, runs it in __init__."""
    task: LoopTask = LoopTask.__new__(LoopTask)
    task.digest = digest
    task.prefix = prefix
    task.calls = 0
    task.timers = 0
    task.called_off = False
    task.own_context = context
    return task


def begin_task(task: LoopTask, coro: Any, loop: asyncio.AbstractEventLoop, name: str, *, eager: bool = False) -> None:
    begin = cast(Any, task).__init__  # called by name once, after __new__: typecheckers see a second initialisation
    if eager:
        begin(coro, loop=loop, name=name, context=task.own_context, eager_start=True)  # since Python 3.12
    else:
        begin(coro, loop=loop, name=name, context=task.own_context)


def future_number(count: int) -> int:
    return _FUTURES_FROM + count


def unretrieved(task: asyncio.Task[Any]) -> bool:
    """Whether a done task holds an exception that nobody has asked for: asyncio's own mark for its warning."""
    return task.done() and bool(cast(Any, task)._log_traceback)


def unfinished(generator: AsyncGenerator[Any, Any]) -> bool:
    return cast(Any, generator).ag_frame is not None  # typeshed knows it on types.AsyncGeneratorType only
