"""The verbs of an operator, from a process that has a line: pause, resume, move, reset, skip, restart, fork."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from perdure.client.line import Line
from perdure.client.questions import (
    Command,
    ForkOf,
    Move,
    MoveOf,
    PauseOf,
    ResetOf,
    RestartOf,
    ResumeOf,
    SkipOf,
    TerminateOf,
    UnpauseOf,
)
from perdure.model.orders import Answered
from perdure.operations.ask import ask_replay
from perdure.operations.end import delete, terminate
from perdure.operations.fork import fork, restart
from perdure.operations.look import settled
from perdure.operations.move import move, skip
from perdure.operations.pause import pause, unpause
from perdure.operations.reset import reset
from perdure.operations.resume import resume
from perdure.store.base import Store
from perdure.store.batches import Batches

Patiently = Callable[..., Awaitable[Any]]
_TIMED = frozenset({
    "poll", "rewind", "reopen", "pause", "move", "reset", "skip", "fork", "terminate", "change_schedule",
    "change_deployment", "deployment", "create", "apply", "change", "list", "count",
})  # fmt: skip


class Patient:
    """The line's store, or a part of it, each call made again until it is answered."""

    def __init__(self, line: Line, patiently: Patiently, of: object = None) -> None:
        self.app = line.app
        self._line = line
        self._patiently = patiently
        self._of = line.store if of is None else of

    @property
    def batches(self) -> Batches:
        """Those of the store, as patiently."""
        return cast("Batches", Patient(self._line, self._patiently, self._line.store.batches))

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._of, name)
        if name == "hint":  # no question
            return cast("Callable[..., Awaitable[Any]]", method)

        async def call(*args: Any, **named: Any) -> Any:
            if name in _TIMED:
                named["now"] = self._line.clock.stamp()
            return await self._patiently(self._line, partial(method, *args, **named))

        return call


async def answer(line: Line, question: Move, patiently: Patiently) -> Any:
    """Do it, and tell those who may run what it has queued."""
    store = cast("Store", Patient(line, patiently))
    token = line.new_token
    if isinstance(question, Command):
        commanded = await _command(line, store, question, patiently)
        _tell(line)
        return commanded
    order = question.order
    check = line.check_replay or partial(ask_replay, store, token)
    match question:
        case ResumeOf(id=id, version=version, force=force):
            done: Any = await resume(store, id, order, token, version=version, force=force, check=check)
        case PauseOf(id=id):
            done = (await pause(store, id, order, token)).status
        case UnpauseOf(id=id):
            done = await unpause(store, id, order, token)
        case RestartOf(id=id, new_id=new_id, terminate=ends, version=version):
            answered = await restart(store, id, order, token, new_id=new_id, terminate=ends, version=version)
            done = answered.new
        case ForkOf(id=id, new_id=new_id, step=step, version=version, input=input):
            answered = await fork(store, id, order, token, new_id=new_id, step=step, version=version, input=input)
            done = answered.new
    _tell(line)
    return done


async def _command(line: Line, store: Store, question: Command, patiently: Patiently) -> Answered:
    token = line.new_token
    match question:
        case MoveOf(id=id, goal=goal, force=force, order=order):
            [answered] = await move(store, [id], goal, order, token, force=force)
        case ResetOf(id=id, point=point, options=options, order=order):
            [answered] = await reset(store, [id], point, order, token, options)
        case SkipOf(id=id, step=step, data=data, order=order):
            answered = await skip(store, id, step, data, order, token)
        case TerminateOf(id=id, order=order):
            answered = await terminate(store, id, order, token)
        case _:
            answered = await patiently(line, partial(delete, line.store, question.id))
    return await settled(store, answered)


def _tell(line: Line) -> None:
    line.watcher.look()
    if line.work is not None:
        line.work.look()
    line.store.hint()
