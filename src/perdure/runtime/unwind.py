"""Putting a run away: end its coroutines and async generators where they stand, and cut what ties its tasks together.

User code unwinds with ``Evicted``: its ``finally`` and ``__aexit__`` run once. Promises: nothing is printed or logged,
whatever user code does while it unwinds; afterwards no cycle of futures, callbacks and tasks keeps a frame alive.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from contextvars import Context
from typing import Any, cast

from perdure.errors import Evicted

# Cleanup code may await (TaskGroup.__aexit__ does): each await is answered by another Evicted. What still stands after
# this many will never end.
THROWS_MAX = 100

# Such coroutines: deleting one would make Python print "coroutine ignored GeneratorExit", so the last few are kept.
_undying: deque[object] = deque(maxlen=1000)


def _evicted() -> Evicted:
    return Evicted("Perdure is putting this workflow body away; it will be replayed when there is something to do.")


def end_coroutine(coro: Coroutine[Any, Any, Any]) -> bool:
    """Throw ``Evicted`` into ``coro`` until it has ended. False if it swallowed it: went on, or returned as if done."""
    for _ in range(THROWS_MAX):
        try:
            coro.throw(_evicted())
        except StopIteration:
            return False
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            return True  # Evicted as it should, or what cleanup code made of it: either way it is over
    _undying.append(coro)
    return False


def end_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], context: Context) -> bool:
    """End a task's coroutine inside its context, with ``asyncio.current_task()`` telling the truth."""
    cast(Any, task)._log_destroy_pending = False  # asyncio's own switch; the C task offers no other
    coro = cast("Coroutine[Any, Any, Any] | None", task.get_coro())
    if coro is None:
        return True  # an eager task that never suspended (Python 3.12)

    def throw() -> bool:
        asyncio.tasks._enter_task(loop, task)
        try:
            return end_coroutine(coro)
        finally:
            asyncio.tasks._leave_task(loop, task)

    return context.run(throw)


def end_generator(generator: AsyncGenerator[Any, Any]) -> bool:
    """Close an async generator that nobody iterates any more. False if it would not end."""
    closing = cast("Coroutine[Any, Any, Any]", generator.aclose())
    try:
        closing.send(None)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return True
    return end_coroutine(closing)


def cut(future: asyncio.Future[Any] | None) -> None:
    """Take every callback off a future and off those that it gathers: they are what ties tasks into cycles.

    The future stays as it is, so that whoever resolves it later does no harm.
    """
    if future is None:
        return
    raw = cast(Any, future)  # ``_callbacks`` is how asyncio's repr() reads them; there is no public list
    for callback, _ in getattr(raw, "_callbacks", None) or ():
        future.remove_done_callback(callback)
    gathered: list[asyncio.Future[Any]] = getattr(raw, "_children", None) or []
    for child in gathered:
        cut(child)


def awaited(task: asyncio.Task[Any] | None) -> asyncio.Future[Any] | None:
    """What a task waits for."""
    found: asyncio.Future[Any] | None = getattr(task, "_fut_waiter", None)  # private; the same in C and in Python
    return found


def cut_task(task: asyncio.Task[Any]) -> None:
    cut(awaited(task))
    cut(task)


def named(body: object) -> str:
    return getattr(body, "__qualname__", None) or repr(body)
