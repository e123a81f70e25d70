"""Calls that a body has made and not awaited: at its end each is an error that names the line.

Nothing else would tell: the call simply does not happen, and Python warns of it whenever it collects the coroutine.
"""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from types import FrameType
from typing import Any

from perdure.errors import NotAwaited
from perdure.runtime.waits import ContinueAsNew

PRUNE_FROM = 32


class Unawaited:
    """The calls of one body; made when it first calls."""

    __slots__ = ("_made", "_prune_at")

    def __init__(self) -> None:
        self._made: list[tuple[Coroutine[Any, Any, Any], str, int, str, str]] = []
        self._prune_at = PRUNE_FROM

    def note(self, call: Coroutine[Any, Any, Any], what: str, caller: FrameType, path: str = "") -> None:
        """A call was made in ``caller``; ``path`` if it has one already."""
        made = self._made
        if len(made) >= self._prune_at:
            self._made = made = [one for one in made if _not_begun(one[0])]
            self._prune_at = max(PRUNE_FROM, 2 * len(made))
        made.append((call, caller.f_code.co_filename, caller.f_lineno, what, path))

    def beside(self, error: BaseException | None) -> BaseException | None:
        """What the body has ended with, given what it raised: an error of its own says in a note what was dropped.

        ``TypeError: unsupported operand type(s) for +: 'coroutine' and 'int'`` is how most of them show.
        """
        dropped = self.error()
        if dropped is None or error is None or isinstance(error, ContinueAsNew):
            return dropped or error
        if isinstance(error, Exception):
            error.add_note(str(dropped))
        return error

    def error(self) -> NotAwaited | None:
        """The error for the first call that was dropped.

        Not for one that a task had taken, and that was cancelled before its first turn: it was closed then.
        """
        dropped = [one for one in self._made if _not_begun(one[0])]
        self._made = []
        for call, *_ in dropped:
            call.close()  # Python need not say it again
        for _, file, line, what, path in dropped:
            where = f"{file}:{line} (path {path})" if path else f"{file}:{line}"
            return NotAwaited(
                f"{what} was called at {where} and never awaited, so it did not run; write: await {what}(…)"
            )
        return None


def _not_begun(call: Any) -> bool:
    return call.cr_frame is not None and inspect.getcoroutinestate(call) == inspect.CORO_CREATED  # most have ended
