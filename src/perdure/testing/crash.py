"""Crashes on order: a store that numbers the writes of its users and, at a chosen one, lets something happen.

Promises: what is numbered is every call that changes workflows (commit, claim, adopt …; or what else the plan says), in
the order of the calls; a call struck before it was sent changed nothing; a call struck after has happened whole;
nothing of the dead is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any

from perdure.errors import DatabaseTrouble, LostAnswer
from perdure.model.records import Kind
from perdure.store.base import Store

NUMBERED = frozenset({
    "commit", "claim", "adopt", "reclaim", "replace", "cancel", "terminate", "release_held", "rewind", "reopen", "fork",
    "pause", "move", "reset", "skip", "claim_line", "line_up", "line_up_declared", "expire", "start_once",
    "change_queue", "change_schedule", "change_deployment", "adopt_strays", "note_trials", "release_orphans",
    "note_turn",
})  # fmt: skip
TURNS_AFTER = 3  # turns of the loop between an answer and the crash after it: the answer has been acted on


class Mode(StrEnum):
    """What happens at a numbered call. The first three kill the process; the others are the database's trouble."""

    BEFORE = "crash before it was sent"
    UNANSWERED = "crash when it was durable, before the answer"
    ANSWERED = "crash right after the answer"
    LOST = "the answer is lost"
    TROUBLE = "the database is in trouble"


CRASHES = (Mode.BEFORE, Mode.UNANSWERED, Mode.ANSWERED)


class Crashed(BaseException):
    """The process that made this call is dead."""


class Plan:
    """Which numbered calls (1, 2, 3 …) are struck, and how. Shared by all stores of one test run."""

    def __init__(self, orders: Mapping[int, Mode] | None = None, numbered: Collection[str] = NUMBERED) -> None:
        self.orders = dict(orders or {})
        self.numbered = frozenset(numbered)  # the calls that count
        self.after_steps: set[str] = set()  # crash once the outcome of such a step is durable; each once
        self.points: list[str] = []  # what each numbered call was
        self.struck: list[tuple[int, Mode]] = []
        self.writes = 0  # so many calls that changed workflows, whether they are numbered or not
        self.counting = False  # what is written before the test begins is not numbered

    def number(self, what: str) -> Mode | None:
        """Number a call; what shall happen to it."""
        if not self.counting:
            return None
        self.writes += what in NUMBERED
        if what not in self.numbered:
            return None
        self.points.append(what)
        mode = self.orders.pop(len(self.points), None)
        if mode is not None:
            self.struck.append((len(self.points), mode))
        return mode

    def nothing_changed(self) -> None:
        """A claim from a line that lets nobody through: it is made at every look, and no work comes of it."""
        self.writes -= self.counting

    def ends_step(self, batch: Iterable[Any]) -> bool:
        """Whether a batch holds the outcome of a step that a crash was ordered after."""
        if not self.after_steps:
            return False
        ended = {r.name for unit in batch for r in unit.records if r.kind is Kind.STEP} & self.after_steps
        self.after_steps -= ended
        return bool(ended)

    def __repr__(self) -> str:
        return " and ".join(f"{mode} at write {point} ({self.points[point - 1]})" for point, mode in self.struck)


class CrashStore:
    """Any store, with a plan. ``die`` ends the process (of a test); None: whoever uses this store outlives the crash.

    Everything that is not numbered goes straight to the store below.
    """

    def __init__(self, store: Store, plan: Plan, die: Callable[[], None], *, mortal: bool = True) -> None:
        self.store = store
        self.plan = plan
        self._die = die
        self._mortal = mortal
        self.on_trouble: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)
        if name not in NUMBERED and name not in self.plan.numbered:
            return method

        async def numbered(*args: Any, **kwargs: Any) -> Any:
            return await self._call(name, method, args, kwargs)

        return numbered

    async def _call(self, name: str, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        mode = self.plan.number(name)
        if mode is Mode.BEFORE:
            self._strike()
        elif mode is Mode.TROUBLE:
            self.on_trouble()
            raise DatabaseTrouble(f"the database is in trouble (ordered at {name})")
        answer = await method(*args, **kwargs)
        if name == "claim_line" and not answer.claimed:
            self.plan.nothing_changed()
        if mode is Mode.LOST:
            self.on_trouble()
            raise LostAnswer(f"the connection broke (ordered at {name}): whether it happened is unknown")
        if mode is Mode.UNANSWERED or (name == "commit" and self.plan.ends_step(args[0])):
            self._strike()
        elif mode is Mode.ANSWERED:
            self._strike_later(TURNS_AFTER)
        return answer

    def _strike(self) -> None:
        self._die()
        if self._mortal:
            raise Crashed

    def _strike_later(self, turns: int) -> None:
        if turns == 0:
            self._die()
        else:
            asyncio.get_running_loop().call_soon(self._strike_later, turns - 1)
