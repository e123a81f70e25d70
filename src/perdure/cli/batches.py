"""``perdure batch …``: one verb to all workflows that a query names: planned, applied, watched, retried.

``apply`` freezes the targets and carries the verb out in this process; whatever becomes of it, the same command again
goes on, or is answered with what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import click
import msgspec

from perdure.cli.amounts import AMOUNT, FROM_ZERO, LIST_MAX
from perdure.cli.batch_verbs import with_verb
from perdure.cli.exits import Code
from perdure.cli.output import clean, emit_many, emit_one, instant, note, redacted, say, table
from perdure.cli.progress import shower
from perdure.cli.run import home_of, load_app
from perdure.cli.target import Given, common, opened, run
from perdure.client import batches
from perdure.client.line import Line
from perdure.model.batches import (
    AuditRow,
    BatchInfo,
    BatchPlan,
    BatchState,
    Fate,
    PlanSample,
    TargetInfo,
    batch_info,
    target_info,
)
from perdure.model.info import from_datetime, to_datetime
from perdure.model.records import WorkflowRow
from perdure.model.resets import Point
from perdure.model.trials import Judged
from perdure.model.verbs import Verb
from perdure.operations import batch_plans
from perdure.operations.batch_plans import Judge
from perdure.operations.batches import BatchOrder, Work, check_key, check_rate, find
from perdure.operations.look import Order, who
from perdure.runtime.judging import judge
from perdure.store.base import Store
from perdure.store.coded import coded

SHOWN_MAX = 20  # failed targets of an answer; all of them: perdure batch show KEY --state failed
_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/s)?")


@click.group()
def batch() -> None:
    """One verb to all workflows that a query names: plan it, apply it, watch it, retry what failed."""


def rate_of(text: str | None) -> float | None:
    """A rate such as ``100`` or ``0.5/s``. Raises ``ConfigError``."""
    if text is None:
        return None
    found = _RATE.fullmatch(text.strip())
    return check_rate(float(found[1]) if found else text)


@contextlib.asynccontextmanager
async def line_of(given: Given, *, changes: bool = False) -> AsyncGenerator[Line]:
    """A line to the app of this command; ``changes``: as of ``opened``."""
    async with opened(given, changes=changes) as store:
        line = Line(store, asyncio.get_running_loop())
        try:
            yield line
        finally:
            line.drop()


# -- plan


@batch.command("plan")
@common
@with_verb
@click.option("--reason", "--because", "reason", default="", metavar="TEXT", help="Why; part of the key.")
@click.option("--key", metavar="KEY", help="The key that it is to be applied under.")
@click.option("--samples", type=FROM_ZERO, default=batch_plans.SAMPLES, show_default=True, metavar="N",
              help="Workflows of each type and version to replay.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the samples.")
@click.option("--timeout", type=click.FloatRange(min=0), default=15.0, show_default=True, metavar="SECONDS",
              help="How long to wait for executors to replay them.")  # fmt: skip
@click.option("--code", metavar="MODULE:APP", help="Replay them here, on this code.")
def plan(
    given: Given, verb: Verb, text: str, reason: str, key: str | None, samples: int, seed: int, timeout: float,
    code: str | None,
) -> None:  # fmt: skip
    """What a verb would do to the workflows of a query; nothing is changed.

    Counts by type, version, status and problem. Where the verb names a version, samples are replayed on it, without any
    effect: safe, diverges at a step, unknown. Exits with 1 if one diverges.
    """
    order = BatchOrder(verb=verb, query=text, order=Order(by=who(), reason=reason), key=_key_of(key))

    async def go() -> BatchPlan:
        async with line_of(given) as line:
            here = None if code is None else judge_of(line.store, code)
            return await batch_plans.plan(
                line.store, order, line.new_token, samples=samples, seed=seed, patience=timeout, judge=here
            )

    found = run(go())
    emit_one(given.output, "plan", msgspec.to_builtins(found), plan_lines(found), id="key")
    if any(sample.verdict == "diverges" for sample in found.samples):
        raise click.exceptions.Exit(int(Code.NO))


def judge_of(store: Store, code: str) -> Judge:
    """Replays on code that is here."""
    registry = home_of(load_app(code)).definitions()
    plain = coded(store, registry.codec) if registry.codec is not None else store

    async def here(rows: Sequence[WorkflowRow], version: str, point: Point | None) -> dict[str, Judged]:
        found = await judge(plain, registry, [row.id for row in rows], version=version, point=point)
        return {one.id: one for one in found}

    return here


def plan_lines(plan: BatchPlan) -> list[str]:
    """A plan for people."""
    cells = [
        (str(group.count), group.type, group.version, group.status, group.problem or "",
         "" if group.applies else "left as they are")
        for group in plan.groups
    ]  # fmt: skip
    head = ("count", "type", "version", "status", "problem", "")
    lines = table(head, cells, "no workflows match", paint=3)
    applies = sum(group.count for group in plan.groups if group.applies)
    lines += ["", clean(f"{plan.verb}: {plan.total} workflows, {applies} of them to be changed; key {plan.key}")]
    if plan.samples:
        lines += ["", click.style(f"samples, replayed on version {clean(plan.target or '')}", bold=True)]
        lines += sample_lines(plan.samples)
    if plan.unsampled:
        lines.append(f"({plan.unsampled} workflows are of smaller groups, of which no samples were taken)")
    if plan.before is not None:
        lines.append(clean(f"ordered before: {summary(plan.before)}; apply is answered with it"))
    return lines


def sample_lines(samples: Sequence[PlanSample]) -> list[str]:
    """What samples came to, for people."""
    lines: list[str] = []
    for sample in samples:
        lines.append(clean(f"  {sample.verdict:9} {sample.id}  {sample.type}, version {sample.version}"))
        if sample.recorded and sample.called:
            lines.append(clean(f"            at step {sample.step}"))
            lines += [
                clean(f"            history  {sample.recorded}"),
                clean(f"            code     {sample.called}"),
            ]
        elif sample.verdict != "safe":
            lines.append(clean(f"            {sample.detail}"))
    return lines


# -- apply


@batch.command("apply")
@common
@with_verb
@click.option("--reason", "--because", "reason", default="", metavar="TEXT", help="Why; kept with each. Needed.")
@click.option("--key", metavar="KEY", help="Ordered once under it (default: a hash of all that is said).")
@click.option("--rate", metavar="N", help="Changed workflows a second, at most: 100, 0.5/s.")
@click.option("--again", is_flag=True, help="Another batch, though this was ordered before.")
@click.option("--yes", is_flag=True, help="Do it.")
def apply(
    given: Given, verb: Verb, text: str, reason: str, key: str | None, rate: str | None, again: bool, yes: bool
) -> None:
    """Freeze the workflows that a query names, and carry a verb out on each, once.

    Without --yes and --reason it is a plan. Interrupted, the same command goes on; done, it is answered with what came
    of it. Exits with 1 if any has failed.
    """
    apply_verb(given, verb, text, reason=reason, key=key, rate=rate, again=again, yes=yes)


def apply_verb(
    given: Given, verb: Verb, text: str, *, reason: str, key: str | None, rate: str | None, again: bool, yes: bool
) -> None:
    """``batch apply``, whichever command it was asked by."""
    order = BatchOrder(
        verb=verb, query=text, order=Order(by=who(), reason=reason), key=_key_of(key), rate=rate_of(rate), again=again
    )
    if not (yes and reason.strip()):
        run(_only_planned(given, order))
        raise click.exceptions.Exit(int(Code.NO))

    async def begin(line: Line) -> Work:
        work, made = await batches.begin(line, order=order)
        if not made:
            row = work.row
            note(f"batch {row.key} was ordered before, by {row.by} at {instant(row.created)}; another one: --again")
        return work

    run(_carry_out(given, begin))


def _key_of(given: str | None) -> str | None:
    """A key that was given; an empty one (a variable that is not set) is none, and refused."""
    return None if given is None else check_key(given)


async def _only_planned(given: Given, order: BatchOrder) -> None:
    async with line_of(given) as line:
        plan = await batch_plans.plan(line.store, order, line.new_token, samples=0)
    emit_one(given.output, "plan", msgspec.to_builtins(plan), plan_lines(plan), id="key")
    note(f"nothing was changed: to {plan.verb} them, add --yes and --reason TEXT")


async def _carry_out(given: Given, begin: Callable[[Line], Awaitable[Work]]) -> None:
    """Carry a batch out to its end, shown as it goes; exits with 1 if anything has failed."""
    async with line_of(given, changes=True) as line:
        info = await to_its_end(given, line, await begin(line))
        failed = await batches.targets(line, key=info.key, fate=Fate.FAILED, after="")
    _tell(given, info, [target_info(one) for one in failed[:SHOWN_MAX]])
    _exit(info)


async def to_its_end(given: Given, line: Line, work: Work) -> BatchInfo:
    """Carry a batch out, shown as it goes; what came of it."""
    shown = shower(given.output)
    info = batch_info(work.row)
    try:
        while not info.finished:
            info = await batches.step(line, work=work)
            shown.goes_on(info)
    except asyncio.CancelledError:
        note(f"interrupted with {info.waiting} left; to go on: perdure batch resume {info.key}")
        raise
    shown.ended()
    return info


def _tell(given: Given, info: BatchInfo, failed: Sequence[TargetInfo]) -> None:
    fields = {**msgspec.to_builtins(info), "failures": [msgspec.to_builtins(one) for one in failed]}
    lines = [summary(info), *(f"  {clean(one.id)}: {clean(redacted(one.detail))}" for one in failed)]
    if info.failed > len(failed):
        lines.append(f"  (and {info.failed - len(failed)} more: perdure batch show {info.key} --state failed)")
    if info.failed and info.state is BatchState.DONE:
        lines.append(f"to try these again: perdure batch retry {info.key}")
    emit_one(given.output, "batch", fields, lines, id="key")


def _exit(info: BatchInfo) -> None:
    if info.failed or info.state is BatchState.CANCELLED:
        raise click.exceptions.Exit(int(Code.NO))


def summary(info: BatchInfo) -> str:
    left = f", {info.waiting} left" if info.waiting else ""
    return clean(
        f"batch {info.key} is {info.state}: {info.verb}, {info.total} workflows: {info.done} done, {info.skipped} "
        f"skipped, {info.failed} failed{left}"
    )


# -- those that are there


@batch.command("list")
@common
@click.option("--limit", type=AMOUNT, default=LIST_MAX, show_default=True)
def list_(given: Given, limit: int) -> None:
    """Batches, the newest first."""
    run(_list(given, limit))


async def _list(given: Given, limit: int) -> None:
    async with line_of(given) as line:
        found = await batches.listing(line, limit=limit)
    cells = [
        (one.key, one.verb, str(one.state), instant(from_datetime(one.created)), str(one.total), str(one.done),
         str(one.skipped), str(one.failed), str(one.waiting), one.query)
        for one in found
    ]  # fmt: skip
    head = ("key", "verb", "state", "created", "total", "done", "skipped", "failed", "waiting", "query")
    emit_many(given.output, "batches", [msgspec.to_builtins(one) for one in found], table(head, cells, "no batches"),
              id="key", one="batch")  # fmt: skip


@batch.command("show")
@common
@click.argument("key")
@click.option("--state", type=click.Choice([str(fate) for fate in Fate]), help="Only targets that came to this.")
@click.option("--limit", type=AMOUNT, default=LIST_MAX, show_default=True, help="Targets to show.")
def show(given: Given, key: str, state: str | None, limit: int) -> None:
    """A batch: what was ordered, what was asked of it since, and its targets with what came of each."""
    run(_show(given, key, None if state is None else Fate(state), limit))


async def _show(given: Given, key: str, fate: Fate | None, limit: int) -> None:
    async with line_of(given) as line:
        row = await find(line.store, key)
        found = await line.store.batches.targets(key, fate, "", limit + 1)
        asked = await line.store.batches.audits(key, [""])
    info = batch_info(row)
    head = ("id", "state", "at", "")
    cells = [(one.id, str(one.fate), instant(one.at), redacted(one.detail)) for one in found[:limit]]
    options = {name: value for name, value in info.options.items() if value not in (None, False)}
    with_ = "".join(f" {name}={value}" for name, value in options.items())
    lines = [
        summary(info),
        clean(f"{info.verb}{with_}: {info.query}"),
        clean(f"ordered by {info.by} at {instant(row.created)}: {info.reason}"),
        *(clean(f"{one.verb} by {one.by} at {instant(one.at)}: {one.after}") for one in asked),
        "",
        *table(head, cells, "no targets"),
    ]
    if len(found) > limit:
        lines.append(f"(the first {limit}; for more: --limit {limit * 10})")
    fields = {
        **msgspec.to_builtins(info), "targets": [msgspec.to_builtins(target_info(one)) for one in found[:limit]],
        "more": len(found) > limit, "asked": [_asked(one) for one in asked],
    }  # fmt: skip
    emit_one(given.output, "batch", fields, lines, id="key")


def _asked(line: AuditRow) -> dict[str, Any]:
    at = msgspec.to_builtins(to_datetime(line.at))
    return {"verb": line.verb, "by": line.by, "reason": line.reason, "at": at, "answer": line.after}


@batch.command("watch")
@common
@click.argument("key")
def watch(given: Given, key: str) -> None:
    """Follow a batch to its end: a bar on a terminal, elsewhere a JSON line for each change.

    Exits with 1 if any of its targets has failed, or if it was cancelled.
    """
    run(_watch(given, key))


async def _watch(given: Given, key: str) -> None:
    shown = shower(given.output, follows=True)
    async with line_of(given) as line:
        seen: BatchInfo | None = None
        while seen is None or not seen.finished:
            found = await batches.news(line, key=key, seen=seen)
            if found != seen:
                shown.goes_on(found)
            seen = found
    shown.ended()
    if not shown.lines:
        say(summary(seen))
    _exit(seen)


@batch.command("resume")
@common
@click.argument("key")
@click.option("--reason", "--because", "reason", default="", metavar="TEXT", help="Why; kept in the audit.")
def resume(given: Given, key: str, reason: str) -> None:
    """Carry out what is left of a batch whose process is gone; one that is still at it leaves it to this one."""
    order = Order(by=who(), reason=reason)
    run(_carry_out(given, lambda line: batches.take(line, key=key, order=order)))


@batch.command("retry")
@common
@click.argument("key")
@click.option("--reason", "--because", "reason", default="", metavar="TEXT", help="Why; kept in the audit.")
def retry(given: Given, key: str, reason: str) -> None:
    """Put the failed targets of a batch back, and carry them out again; the others stay as they are."""
    order = Order(by=who(), reason=reason)
    run(_carry_out(given, lambda line: batches.retry(line, key=key, order=order)))


@batch.command("cancel")
@common
@click.argument("key")
@click.option("--reason", "--because", "reason", default="", metavar="TEXT", help="Why; kept in the audit.")
def cancel(given: Given, key: str, reason: str) -> None:
    """Act on no more targets of a batch: final. What is done stays done."""
    run(_cancel(given, key, Order(by=who(), reason=reason)))


async def _cancel(given: Given, key: str, order: Order) -> None:
    async with line_of(given, changes=True) as line:
        info = await batches.cancel(line, key=key, order=order)
    if info.state is not BatchState.CANCELLED:
        note("it was done already: nothing was left to cancel")
    emit_one(given.output, "batch", msgspec.to_builtins(info), [summary(info)], id="key")
    if info.state is not BatchState.CANCELLED:
        raise click.exceptions.Exit(int(Code.NO))
