"""``perdure recovery plan|apply --query``: a verb for each group of what a bad version has left, and the batches."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import click
import msgspec

from perdure.cli.amounts import FROM_ZERO
from perdure.cli.batch_verbs import options_of
from perdure.cli.batches import judge_of, line_of, rate_of, sample_lines, summary, to_its_end
from perdure.cli.exits import Code
from perdure.cli.output import clean, emit_one, note, redacted
from perdure.cli.run import home_of, load_app
from perdure.cli.target import Given
from perdure.client import batches
from perdure.client.line import Line
from perdure.errors import ConfigError
from perdure.model.batches import BatchInfo, BatchState
from perdure.model.records import WorkflowRow
from perdure.model.recoveries import Assumed
from perdure.operations.batch_plans import SAMPLES
from perdure.operations.look import Order, who
from perdure.operations.recovery_plans import Evidence, GroupPlan, RecoveryOrder, RecoveryPlan, plan
from perdure.store.base import Store

F = TypeVar("F", bound=Callable[..., Any])
BATCHES_MAX = 1000  # the latest of the app, among which those of the plan are looked for
Decided = Callable[[Store, str | None, Sequence[WorkflowRow], float], Awaitable[Mapping[str, str]]]


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of the set and its groups."""

    query: str | None  # None: it was not given; an empty one is refused as any that names nothing
    to: str | None
    fixed: str | None
    corrupted: tuple[str, ...]
    intact: tuple[str, ...]
    replace: tuple[str, ...]
    samples: int
    seed: int
    reason: str

    def check_without_query(self) -> None:
        """Raises ``ConfigError`` for what only a plan over a query takes: without one it would say nothing."""
        for option, value in {
            "--to": self.to, "--fixed": self.fixed, "--assume-corrupted": self.corrupted,
            "--assume-intact": self.intact, "--replace": self.replace,
        }.items():  # fmt: skip
            if value:
                raise ConfigError(f"{option} goes with --query QUERY: what a bad version has left")

    def order(self) -> RecoveryOrder:
        """As it is carried out. Raises ``ConfigError``."""
        if self.to is None:
            raise ConfigError("--query goes with --to V: the good version that what begins anew runs on")
        assumed = Assumed(
            to=self.to, fixed=self.fixed or self.to, corrupted=self.corrupted, intact=self.intact, replace=self.replace
        )
        return RecoveryOrder(query=self.query or "", assumed=assumed, order=Order(by=who(), reason=self.reason))


def over_query(*, needed: bool) -> Callable[[F], F]:
    """The options that name a set and say of its groups; the command gets them as ``said``."""
    group = "TYPE, or TYPE:STATE, TYPE:PROBLEM, TYPE:VERSION."
    options = [
        click.option("--query", required=needed, metavar="QUERY", help="What a bad version has left."),
        click.option("--to", metavar="V", help="With --query: the good version that what begins anew runs on."),
        click.option("--fixed", metavar="V", help="The version that histories replay on (default: as --to)."),
        click.option("--assume-corrupted", "corrupted", multiple=True, metavar="GROUP", help=f"Wrong state: {group}"),
        click.option("--assume-intact", "intact", multiple=True, metavar="GROUP", help="Their state is right."),
        click.option("--replace", multiple=True, metavar="GROUP", help="Others with the same input will do."),
        click.option("--samples", type=FROM_ZERO, default=SAMPLES, show_default=True, metavar="N",
                     help="Workflows of each group to replay."),
        click.option("--seed", type=int, default=0, show_default=True, help="Draws the samples."),
        click.option("--reason", "--because", "reason", default="", metavar="TEXT", help="Why; part of the keys."),
    ]  # fmt: skip

    def decorated(command: F) -> F:
        @functools.wraps(command)
        def told(*args: Any, **all_said: Any) -> Any:
            fields = {name: all_said.pop(name) for name in Said.__struct_fields__}
            return command(*args, said=Said(**fields), **all_said)

        wrapped: Any = told
        for option in reversed(options):
            wrapped = option(wrapped)
        return cast("F", wrapped)

    return decorated


async def show(given: Given, said: Said, code: str | None, timeout: float, decided: Decided) -> None:
    """``recovery plan --query``."""
    order = said.order()
    async with line_of(given) as line:
        found = await _plan(line, order, said, code, timeout, decided)
    _tell(given, order, found, [])
    if any(group.diverges for group in found.groups):
        raise click.exceptions.Exit(int(Code.NO))


async def carry_out(
    given: Given, said: Said, code: str | None, timeout: float, decided: Decided, *, rate: str | None,
    even_diverging: bool,
) -> None:  # fmt: skip
    """``recovery apply``: first what is unfinished of it, then each group."""
    order, pace = said.order(), rate_of(rate)
    left = False
    async with line_of(given, changes=True) as line:
        found = await _plan(line, order, said, code, timeout, decided)
        for one in await batches.listing(line, limit=BATCHES_MAX):
            if one.key.startswith(found.prefix) and one.state is BatchState.RUNNING:
                await to_its_end(given, line, await batches.take(line, key=one.key, order=order.order))
        for group in found.groups:
            ordered = group.ordered(order.order)
            if ordered is None:
                continue
            if group.diverges and not even_diverging:
                left = True
                note(f"left out, since a sample diverges: {_title(group)}; all the same: --even-diverging")
                continue
            work, _ = await batches.begin(line, order=msgspec.structs.replace(ordered, rate=pace))
            info = await to_its_end(given, line, work)
            if group.before is not None and group.before.finished:
                note(f"{summary(info)}, before: what its query names now is left; with another reason it is another")
        done = [one for one in await batches.listing(line, limit=BATCHES_MAX) if one.key.startswith(found.prefix)]
    _tell(given, order, found, done[::-1])
    if left or any(one.failed or one.state is BatchState.CANCELLED for one in done):
        raise click.exceptions.Exit(int(Code.NO))


async def _plan(
    line: Line, order: RecoveryOrder, said: Said, code: str | None, timeout: float, decided: Decided
) -> RecoveryPlan:
    judge = declared = None
    if code is not None:
        judge = judge_of(line.store, code)
        declared = {name: of.restartable for name, of in home_of(load_app(code)).definitions().workflows.items()}

    async def policies(rows: Sequence[WorkflowRow]) -> Mapping[str, str]:
        return await decided(line.store, code, rows, timeout)

    evidence = Evidence(
        samples=said.samples, seed=said.seed, patience=timeout, judge=judge, declared=declared, policies=policies
    )
    found = await plan(line.store, order, line.new_token, evidence)
    for one in found.unmatched:
        note(f"{one!r} names none of the groups")
    return found


def command_of(group: GroupPlan, order: RecoveryOrder) -> str | None:
    """The command that is the group's batch."""
    if group.verb is None:
        return None
    reason = order.order.reason
    key = ["--key", group.key, "--reason", reason] if reason else ["--reason", "TEXT"]  # a key is of a reason, too
    return shlex.join(
        ["perdure", "batch", "apply", group.verb.name, group.query, *options_of(group.verb), *key, "--yes"]
    )


def _title(one: GroupPlan) -> str:
    group = one.group
    problem = f", {group.problem}" if group.problem else ""
    return f"{group.count} {group.type}, version {group.version or 'none'}, {group.state}{problem}"


def _tell(given: Given, order: RecoveryOrder, found: RecoveryPlan, done: Sequence[BatchInfo]) -> None:
    fields = {
        "query": order.query, "to": order.assumed.to, "fixed": order.assumed.fixed, "total": found.total,
        "groups": [_fields(group, order) for group in found.groups],
        "batches": [msgspec.to_builtins(one) for one in done],
    }  # fmt: skip
    lines: list[str] = []
    for group in found.groups:
        lines += [*_lines(group, order), ""]
    if not found.groups:
        lines.append("no workflows match: there is nothing to recover")
    lines += [summary(one) for one in done]
    emit_one(given.output, "recovery", fields, lines, id="query")


def _fields(one: GroupPlan, order: RecoveryOrder) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(one.group), "case": str(one.case), "because": one.because,
        "restartable": one.restartable, "verb": None if one.verb is None else one.verb.name,
        "options": {} if one.verb is None else msgspec.to_builtins(one.verb), "group_query": one.query, "key": one.key,
        "samples": msgspec.to_builtins(one.samples), "problems": [redacted(text) for text in one.problems],
        "policies": dict(one.policies), "command": command_of(one, order),
    }  # fmt: skip


def _lines(one: GroupPlan, order: RecoveryOrder) -> list[str]:
    lines = [click.style(clean(_title(one)), bold=True)]
    told = ", ".join(f"{count} {status}" for status, count in sorted(one.group.statuses.items()))
    what = "left as they are" if one.verb is None else " ".join([one.verb.name, *options_of(one.verb)])
    lines.append(clean(f"  {one.case}: {what}"))
    lines.append(clean(f"  {told}; {one.because}"))
    lines += [clean(f"  problem  {redacted(text)}") for text in one.problems]
    lines += [clean(f"  policy   {decision}: {count}") for decision, count in sorted(one.policies.items())]
    lines += sample_lines(one.samples)
    if one.before is not None:
        lines.append(f"  ordered before: {summary(one.before)}")
    command = command_of(one, order)
    if command is not None:
        lines.append(clean(f"  {command}"))
    return lines
