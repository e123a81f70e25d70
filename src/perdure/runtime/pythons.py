"""What asyncio does otherwise on older Pythons, made to be as on later ones on a workflow's loop.

A history outlives the Python that wrote it: the next deploy may bring another, and the body has to make the same calls
there. So on Python 3.11 and 3.12

- ``wait_for`` runs nothing in a task of its own, which would give other paths to its calls (as from 3.12 on; here on
  every Python, and what it was given is closed where its timer is refused);
- ``gather`` counts what is done already at once, not a turn later (as from 3.12 on);
- a ``TaskGroup`` whose member failed takes back that it has cancelled its parent, or a ``timeout`` around it would let
  ``CancelledError`` out instead of ``TimeoutError`` (as from 3.13 on).

``install`` puts a dispatcher before each, once. On any other loop the original runs, unchanged.
"""
# ruff: noqa: SLF001  these Pythons are finished: what is private there stays as it is

from __future__ import annotations

import asyncio
import asyncio.tasks
import functools
import sys
from asyncio import events
from collections.abc import Callable, Sequence
from typing import Any

IsOurs = Callable[[object], bool]


def _wait_for(original: Callable[..., Any], is_ours: IsOurs) -> Callable[..., Any]:
    async def waited(fut: Any, timeout: float | None) -> Any:
        try:
            async with asyncio.timeout(timeout):
                return await fut
        finally:
            if asyncio.iscoroutine(fut):
                fut.close()  # where a body is put away the timer is refused, and nothing has begun

    @functools.wraps(original)
    def wait_for(fut: Any, timeout: float | None) -> Any:
        at_once = timeout is not None and timeout <= 0  # then it is alike everywhere
        return original(fut, timeout) if at_once or not is_ours(events._get_running_loop()) else waited(fut, timeout)

    return wait_for


def _gather(original: Callable[..., Any], is_ours: IsOurs) -> Callable[..., Any]:
    @functools.wraps(original)
    def gather(*awaitables: Any, return_exceptions: bool = False) -> Any:
        outer = original(*awaitables, return_exceptions=return_exceptions)
        if is_ours(events._get_running_loop()):
            done = [one for one in awaitables if asyncio.isfuture(one) and one.done()]
            if done:
                _settle(outer, done, all_are=len(done) == len(awaitables), return_exceptions=return_exceptions)
        return outer

    return gather


def _settle(
    outer: asyncio.Future[Any], done: Sequence[asyncio.Future[Any]], *, all_are: bool, return_exceptions: bool
) -> None:
    """End a gathering at its call by what is done; the callbacks that come find that it has ended."""
    errors = [_error(one) for one in done]
    failed = next((error for error in errors if error is not None), None)
    if failed is not None and not return_exceptions:
        outer.set_exception(failed)
    elif all_are:
        outer.set_result([one.result() if error is None else error for one, error in zip(done, errors, strict=True)])


def _error(future: asyncio.Future[Any]) -> BaseException | None:
    return asyncio.CancelledError() if future.cancelled() else future.exception()


def _task_group_exit(original: Callable[..., Any], is_ours: IsOurs) -> Callable[..., Any]:
    async def balanced(group: Any, *exception: Any) -> Any:
        taken_back = group._parent_cancel_requested  # where it was asked for before, the original takes it back
        try:
            return await original(group, *exception)
        except BaseExceptionGroup:
            parent: asyncio.Task[Any] = group._parent_task
            if group._parent_cancel_requested and not taken_back:
                parent.uncancel()
            if parent.cancelling():  # from outside of the group: it is to be seen at the next await
                parent.uncancel()
                parent.cancel()
            raise

    @functools.wraps(original)
    def leave(group: Any, *exception: Any) -> Any:
        return balanced(group, *exception) if is_ours(group._loop) else original(group, *exception)

    return leave


def install(is_ours: IsOurs) -> None:
    """Put the dispatchers in place that this Python needs: once for the process."""
    modules: list[Any] = [asyncio, asyncio.tasks]
    wait_for, gather = _wait_for(asyncio.wait_for, is_ours), _gather(asyncio.gather, is_ours)
    for module in modules:
        module.wait_for = wait_for
        if sys.version_info < (3, 12):
            module.gather = gather
    if sys.version_info < (3, 13):
        group: Any = asyncio.TaskGroup
        group.__aexit__ = _task_group_exit(group.__aexit__, is_ours)
