"""What was found of an interrupted process, and what a decision makes of it. Pure: from values to values.

Judged is the persisted state: that of the input, or of the latest ``STATE`` record of the run. What was under way is
its latest ``MOVE``; a run without one has not begun, and is nobody's to decide about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from perdure.definitions import WorkflowDef
from perdure.errors import SchemeError, StateNotFound, Unserializable
from perdure.model.processes import AT, START, At, Entry, Go, ProcessStatus, read_go, recorded
from perdure.model.records import Record, WorkflowRow
from perdure.model.states import Cause, Reason
from perdure.policy.decisions import (
    Decision,
    Hold,
    Rerun,
    Resume,
    RunFrom,
    SetStatus,
    Skip,
)
from perdure.schemes import times
from perdure.schemes.declaration import Declaration
from perdure.schemes.expressions import answered
from perdure.schemes.form import Scheme, Timer
from perdure.serde.values import ArgsShape, Shape


class Impossible(Exception):
    """The decision cannot be done to this process; the text says why."""


class Facts(NamedTuple):
    """See the head of this file."""

    declaration: Declaration
    args: ArgsShape
    values: dict[str, Any]  # as persisted
    at: At
    go: Go | None  # the latest move that began in this run
    arrived: bool  # … and its state is persisted

    @property
    def scheme(self) -> Scheme:
        return self.declaration.scheme

    @property
    def begun(self) -> bool:
        """Whether anything of the burst is on record."""
        return self.go is not None

    @property
    def over(self) -> bool:
        """Whether it stands in a final state: only its end is left to be written, or still waits for a child."""
        return self.arrived and self.scheme.has(self.at.state) and self.scheme.state(self.at.state).final

    @property
    def state(self) -> str:
        """The persisted state: the initial one, if it is that which was being entered."""
        return self.at.state or self.scheme.initial

    @property
    def entering(self) -> str | None:
        """The state whose actions were under way."""
        if self.go is None or self.arrived or self.go.how == "exits":
            return None
        return self.go.target or self.scheme.initial

    @property
    def would_be(self) -> ProcessStatus:
        """What the process becomes by the exits of the persisted state."""
        return ProcessStatus.ERROR if self.scheme.answers(self.state) else ProcessStatus.TERMINATED

    @property
    def missing(self) -> str:
        """Why this scheme cannot go on with it; "" if it can."""
        go = self.at.go
        if not self.at.state or self.scheme.has(self.at.state) or (go is not None and self.scheme.has(go.target)):
            return ""  # or it is on its way into one that the scheme has
        names = ", ".join(state.name for state in self.scheme.states)
        return (
            f"it stands in state {self.at.state!r}, which the scheme {self.scheme.name!r} of this code does not have "
            f"(it has: {names}). Deploy code that has it"
        )


def facts_of(definition: WorkflowDef, input: bytes, history: Sequence[Record]) -> Facts:
    """What is known of a process. Raises ``Unserializable`` where its parameters do not fit the code."""
    assert definition.process is not None, f"{definition.name} is no process"
    stands, move, arrived = recorded(history)
    _, values = definition.args.decode(input if stands is None else stands)
    at = values.pop(AT, None) or START
    go = None if move is None else read_go(move)
    return Facts(definition.process, definition.args, values, at, go, arrived)


def refusal(definition: WorkflowDef, input: bytes, history: Sequence[Record]) -> tuple[Reason, str] | None:
    """Why a process cannot be run by the code that is here."""
    try:
        facts = facts_of(definition, input, history)
    except Unserializable as error:
        return Reason.UNDECODABLE, str(error)
    return (Reason.NO_CODE, facts.missing) if facts.missing else None


def default_of(facts: Facts, row: WorkflowRow, max_deaths: int) -> Decision:
    """What happens to a process whose burst was cut off, unless a policy says otherwise."""
    if facts.missing:
        return Hold(because=f"{facts.missing}, or decide with RunFrom(one of these)")  # who rests is not asked about
    if row.cause is Cause.CRASH and row.attempts > max_deaths:
        return Hold(because=f"{row.attempts} executors died while it was in flight (limit {max_deaths})")
    if row.cause is Cause.DRAINED or facts.scheme.on_crash == "resume":
        return Resume()
    return SetStatus(facts.would_be)


class Settled(NamedTuple):
    """What becomes of a process: the input of its next run, and what its history says of it."""

    values: dict[str, Any]
    at: At
    entries: tuple[Entry, ...]


class Why(NamedTuple):
    """What a decision answers to."""

    cause: Cause
    now: int
    because: str
    by_default: bool
    failure: str = ""  # the encoded exception, of an error


def settle(facts: Facts, decision: Decision, why: Why) -> Settled:
    """What a decision makes of a process. Raises ``Impossible``."""
    values = {**facts.values, **_set(facts, decision.set)}
    begun = facts.at if facts.at.state else _stands(facts, why.now)
    if isinstance(decision, SetStatus):
        return _as_status(facts, values, begun, decision, why)
    failed = why.cause is Cause.ERROR
    trigger: Any = "error" if failed else "recovery"
    token = facts.go.token if failed and facts.go is not None else ""
    match decision:
        case Resume():
            go = Go(how="exits")
        case Rerun() if failed and facts.go is not None:
            go = msgspec.structs.replace(facts.go, attempt=facts.go.attempt + 1)
        case Rerun():
            go = Go(how="enter", target=facts.state)
        case RunFrom():
            go = Go(how="enter", target=_target(facts, decision))
        case Skip() if facts.entering is not None:
            go = Go(how="stand", target=facts.entering)
        case _:
            raise Impossible(f"answered {decision.name}, which is nothing that can be done to a process here")
    if go.how != "edge":
        go = msgspec.structs.replace(go, trigger=trigger, token=token, because=why.because)
    at = facts.at if go.how == "enter" else begun  # what is entered at last is then its first state
    at = msgspec.structs.replace(at, go=go, timers=_timers(facts, at, why))
    entries = () if token or facts.go is None or not facts.go.token else (_answered(facts, at, why, ""),)
    return Settled(values, _counted(at, entries), entries)


def _as_status(facts: Facts, values: dict[str, Any], at: At, decision: SetStatus, why: Why) -> Settled:
    status = decision.rests
    because = why.because or _rule(facts, at, why)
    if status == "Idled":
        because = ""
    timers = {} if status == "Terminated" else _timers(facts, at, why)
    at = msgspec.structs.replace(at, status=status, because=because, timers=timers, go=None, bursts=at.bursts + 1)
    entries = (_answered(facts, at, why._replace(because=why.because or because), status),)
    return Settled(values, _counted(at, entries), entries)


def _rule(facts: Facts, at: At, why: Why) -> str:
    """Why it has that status, where nobody said: what happened, and by which exits."""
    what = {Cause.CRASH: "its executor died", Cause.DRAINED: "its executor was shut down"}.get(
        why.cause, str(why.cause)
    )
    where = "" if facts.entering is None else f" in actions of {facts.entering}"
    if not why.by_default:
        return what + where
    exits = "a command or a timer leaves" if facts.scheme.answers(at.state) else "no command and no timer leaves"
    return f"{what}{where}; {exits} {at.state}"


def _answered(facts: Facts, at: At, why: Why, status: str) -> Entry:
    """The line of the history that says so; it answers the order that was being carried out."""
    go = facts.go
    failed = why.cause is Cause.ERROR
    answer: Any = ("failed" if why.by_default else "") if failed else "interrupted"
    return Entry(
        kind="status", trigger="error" if failed else "recovery", name="" if go is None else go.name, source=at.state,
        target=at.state, actor=None if go is None else go.actor, at=why.now, status=status, because=why.because,
        token="" if go is None else go.token, answer=answer, failure=why.failure if answer == "failed" else "",
    )  # fmt: skip


def interrupted(facts: Facts, now: int, because: str) -> Entry | None:
    """The answer to the order that was being carried out, if there was one, of a process that is held or ended."""
    if facts.go is None or not facts.go.token:
        return None
    return _answered(facts, facts.at, Why(Cause.CRASH, now, because, by_default=False), "")


def _counted(at: At, entries: Sequence[Entry]) -> At:
    return msgspec.structs.replace(at, entries=at.entries + len(entries))


def _stands(facts: Facts, now: int) -> At:
    """One that was cut off in the actions of its initial state: that counts as the persisted one."""
    timers: dict[str, int] = {}
    for name, timer in facts.scheme.clocks(facts.scheme.initial).arm:
        due = _due(timer, now, facts.values)
        if due is not None:
            timers[name] = due
    return msgspec.structs.replace(facts.at, state=facts.scheme.initial, entered=now, timers=timers, go=None)


def _timers(facts: Facts, at: At, why: Why) -> dict[str, int]:
    """Timers keep their times. One whose own actions failed is armed anew: at its old time it would fail at once."""
    go = facts.go
    if why.cause is not Cause.ERROR or go is None or go.trigger != "timer" or go.name not in at.timers:
        return at.timers
    timers = {name: due for name, due in at.timers.items() if name != go.name}
    for edge in facts.scheme.fired(at.state, go.name)[:1]:
        due = None if edge.timer is None else _due(edge.timer, why.now, facts.values)
        if due is not None and due > why.now:
            timers[go.name] = due
    return timers


def _due(timer: Timer, now: int, values: Mapping[str, Any]) -> int | None:
    """When a timer is due, as far as that can be said without running code of the process."""
    try:
        due: int | None = answered(times.due(timer, now), values)
        return due
    except (KeyError, TypeError, AttributeError, SchemeError):
        return None


def _target(facts: Facts, decision: RunFrom) -> str:
    try:
        return facts.scheme.state(decision.target_step).name
    except StateNotFound as error:
        if decision.version is not None:
            return decision.target_step  # of other code
        raise Impossible(f"answered {decision}: {error}") from None


def _set(facts: Facts, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a decision changes, if they fit."""
    known = {parameter.name: parameter for parameter in facts.scheme.parameters if not parameter.temporary}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise Impossible(f"sets {name!r}, which is no parameter of {facts.scheme.name}; it has: {', '.join(known)}")
        shape = Shape.of(known[name].hint)
        try:
            found[name] = shape.decode(shape.encode(value, name), name)
        except Unserializable as error:
            raise Impossible(f"sets {name!r}: {error}") from None
    return found
