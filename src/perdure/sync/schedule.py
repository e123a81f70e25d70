# Produced from perdure/api/schedule.py by tools/async_to_sync.py; do not edit.
"""Schedules: declared above a workflow, made and changed at run time."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any, Literal, TypedDict, TypeVar, Unpack, cast, get_args

from perdure.api.keys import check_name
from perdure.api.options import check_id
from perdure.client import operate
from perdure.client.schedules import Verb, do
from perdure.definitions import ScheduleDef, WorkflowDef
from perdure.errors import DefinitionError
from perdure.model.amounts import check_amount
from perdure.model.durations import Duration, to_us
from perdure.model.info import from_datetime
from perdure.model.schedules import (
    CATCH_UP,
    FiringInfo,
    ScheduleInfo,
    Spec,
    Which,
    firing_info,
    schedule_info,
)
from perdure.operations import schedules as operations
from perdure.runtime import sface
from perdure.runtime.face import Home
from perdure.schedules.times import check
from perdure.serde.hints import call_hints
from perdure.sync.workflow import Workflow

W = TypeVar("W", bound="Workflow[[], Any] | Workflow[[datetime], Any]")


class Changes(TypedDict, total=False):
    """What of a schedule can be changed at run time; see ``Router.schedule``."""

    cron: str
    every: Duration
    tz: str
    missed: Literal["skip", "once", "all"]
    overlap: Literal["allow", "skip", "queue"]
    catch_up: int | Duration
    queue: str | None


def spec_of(
    workflow: str,
    definition: WorkflowDef | None,
    cron: str | None,
    every: Duration | None,
    tz: str,
    missed: Literal["skip", "once", "all"],
    overlap: Literal["allow", "skip", "queue"],
    catch_up: int | Duration | None,
    queue: str | None,
    *,
    takes_due: bool | None = None,
) -> Spec:
    """What was asked for, checked. Raises ``DefinitionError`` showing the value."""
    if takes_due is None:
        takes_due = definition is not None and _takes_due(definition)
    spec = Spec(
        workflow=workflow,
        cron=_text(cron),
        every=None if every is None else to_us(every, "every"),
        tz=tz,
        missed=missed,
        overlap=overlap,
        takes_due=takes_due,
        queue=queue,
        **read_catch_up(CATCH_UP if catch_up is None else catch_up),
    )
    check(spec)
    return spec


def _text(cron: object) -> str | None:
    if cron is not None and not isinstance(cron, str):
        raise DefinitionError(
            f"{cron!r} is no cron expression: give its text, such as '0 2 * * *', or every=timedelta(…)"
        )
    return cron


def read_catch_up(bound: object) -> dict[str, int | None]:
    """A number of times, or a duration (a ``timedelta``; here a number is no seconds)."""
    if type(bound) is int:
        return {"catch_up": bound, "catch_up_span": None}
    if isinstance(bound, (bool, int, str)):
        raise DefinitionError(f"catch_up={bound!r} cannot be: give a number of times, or a timedelta")
    return {"catch_up": None, "catch_up_span": to_us(cast("Duration", bound), "catch_up")}


def read_changes(given: dict[str, Any]) -> dict[str, Any]:
    """Changes as the row has them. Raises ``DefinitionError`` for what cannot be changed."""
    known = Changes.__annotations__
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise DefinitionError(f"there is no {name!r} of a schedule to change; there is: {', '.join(sorted(known))}")
        match name:
            case "every":
                changes |= {"every": to_us(value, "every"), "cron": None}
                changes.setdefault("tz", "UTC")
            case "cron":
                changes |= {"cron": _text(value), "every": None}
            case "catch_up":
                changes |= read_catch_up(value)
            case _:
                changes[name] = value
    if "cron" in given and "every" in given:
        raise DefinitionError(f"cron={given['cron']!r} and every={given['every']!r} were both given; give one")
    return changes


def _takes_due(definition: WorkflowDef) -> bool:
    """Whether the workflow is given the nominal time. Raises ``DefinitionError`` if it wants more, or another thing."""
    parameters = list(definition.args.signature.parameters.values())
    free = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    needed = [one for one in free if one.default is one.empty]
    by_name = [one.name for one in needed if one.kind is one.KEYWORD_ONLY]
    first = free[0] if free else None
    hint = None if first is None else call_hints(definition.fn).get(first.name, Any)
    timely = hint is datetime or datetime in get_args(hint)
    if len(needed) > 1 or by_name or (needed and not timely and hint is not Any):
        raise DefinitionError(
            f"workflow {definition.name}{definition.args.signature} ({definition.place}) cannot be scheduled: it takes "
            "nothing, or the nominal time as its one argument (due: datetime)"
        )
    return bool(needed) or timely


def declared(
    workflow: object, prefix: str, name: str | None, cron: str | None, every: Duration | None, tz: str,
    missed: Literal["skip", "once", "all"], overlap: Literal["allow", "skip", "queue"], catch_up: int | Duration | None,
) -> ScheduleDef:  # fmt: skip
    """The schedule that a decorator declares. Raises ``DefinitionError``."""
    if not isinstance(workflow, Workflow) or workflow.definition is None:
        raise DefinitionError(
            f"@app.schedule was put on {workflow!r}; it stands above a workflow: @app.schedule(…), then @app.workflow"
        )
    definition: WorkflowDef = workflow.definition
    chosen = definition.name if name is None else prefix + check_name(name, "schedule")
    options = workflow.options_given
    spec = spec_of(
        definition.name, definition, cron, every, tz, missed, overlap, catch_up, options.queue or definition.queue
    )
    return ScheduleDef(operations.check_name(chosen), spec, f"{definition.place} ({cron or every})")


class ScheduleHandle:
    """A schedule, by its name. Making one does no I/O. Not to be used in a workflow's body: in a step it may be.

    >>> # nightly = app.client.schedule("nightly")
    >>> # await nightly.pause(because="the ledger is closed")
    """

    def __init__(self, home: Home, name: str) -> None:
        self.name = name
        self._home = home

    def info(self) -> ScheduleInfo:
        """What it is now. Raises ``ScheduleNotFound``."""
        return schedule_info(self._do(lambda store, _: operations.one(store, self.name)))

    def firings(self, *, limit: int = 100) -> list[FiringInfo]:
        """What became of its nominal times, the latest first. Raises ``Misuse`` for a ``limit`` below 1."""
        which = Which(schedule=self.name, limit=check_amount(limit, "limit"))
        return [firing_info(one) for one in self._do(lambda store, _: store.firings(which))]

    def set(self, **changes: Unpack[Changes]) -> ScheduleInfo:
        """Change it. Of a declared one this holds, over later deploys too, until ``reset``.

        Raises ``DefinitionError`` for what cannot be, before anything is changed.
        """
        read = read_changes(cast("dict[str, Any]", changes))
        return schedule_info(self._do(lambda store, _: operations.change(store, self.name, read)))

    def reset(self) -> ScheduleInfo:
        """Take back what was changed at run time, a pause too: it is as the code declares it.

        Raises ``ScheduleConflict`` for one that the code does not declare.
        """
        return schedule_info(self._do(lambda store, _: operations.reset(store, self.name)))

    def pause(self, *, because: str = "") -> ScheduleInfo:
        """Fire no more until it is resumed, whatever is deployed. What runs goes on."""
        return schedule_info(self._do(lambda store, _: operations.pause(store, self.name, because)))

    def resume(self) -> ScheduleInfo:
        """Fire again, from the next nominal time on; those that passed are noted as skipped.

        Raises ``ScheduleConflict`` for one that is paused because the code declares it no longer.
        """
        return schedule_info(self._do(lambda store, _: operations.resume(store, self.name)))

    def trigger(self) -> str:
        """Fire now, paused or not: the workflow's id, once its start is durable. Its nominal time is now.

        With ``overlap="queue"`` it starts when the one before has ended. Raises ``ScheduleConflict`` with
        ``overlap="skip"`` while that is open.
        """
        id: str = self._do(lambda store, hand: operations.trigger(store, self.name, hand))
        return id

    def backfill(self, since: datetime, until: datetime) -> list[str]:
        """Fire the nominal times of the past, both ends included, that were not started: the workflows' ids.

        All at once with ``overlap="allow"``, else one after the other. Repeated, it does what is left. Raises
        ``DefinitionError`` for naive datetimes, a span that is not past, or more than 10,000 times.
        """
        ends = instant(since, "since"), instant(until, "until")
        ids: list[str] = self._do(lambda store, hand: operations.backfill(store, self.name, *ends, hand))
        return ids

    def delete(self) -> None:
        """Forget it and its firings; its workflows stay. Raises ``ScheduleConflict`` for one that the code declares."""
        self._do(lambda store, _: operations.delete(store, self.name))

    def _do(self, verb: Verb[Any]) -> Any:
        return _do(self._home, self.name, verb)

    def __repr__(self) -> str:
        return f"<schedule {self.name}>"


def instant(when: datetime, what: str) -> int:
    """An aware datetime. Raises ``DefinitionError``."""
    if not isinstance(when, datetime) or when.tzinfo is None:  # pyright: ignore[reportUnnecessaryIsInstance]  users without a checker
        raise DefinitionError(f"{what}={when!r} is no aware datetime; give one with a time zone (tzinfo=UTC)")
    return from_datetime(when)


def _do(home: Home, name: str, verb: Verb[Any]) -> Any:
    return sface.operate(home, f"schedule {name!r}", partial(do, verb=verb))


def list_schedules(home: Home) -> tuple[ScheduleInfo, ...]:
    """All schedules of an app, by name."""
    rows = sface.operate(home, "client.schedules()", operate.schedules)
    return tuple(schedule_info(row) for row in rows)


def create_schedule(
    home: Home, name: str, workflow: Workflow[..., Any] | str, cron: str | None, every: Duration | None, tz: str,
    missed: Literal["skip", "once", "all"], overlap: Literal["allow", "skip", "queue"], catch_up: int | Duration | None,
    takes_due: bool | None, queue: str | None,
) -> ScheduleHandle:  # fmt: skip
    """Make a schedule at run time."""
    named = workflow if isinstance(workflow, str) else workflow.name
    definition = home.registry.workflows.get(named)
    queue = queue if queue is not None or definition is None else definition.queue
    spec = spec_of(check_id(named), definition, cron, every, tz, missed, overlap, catch_up, queue, takes_due=takes_due)
    _do(home, name, lambda store, _: operations.create(store, name, spec))
    return ScheduleHandle(home, name)
