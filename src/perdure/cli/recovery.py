"""``perdure recovery …``: what recovery would decide, without deciding it; or, over a query, what a person would do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import click
import msgspec

from perdure.cli.amounts import AMOUNT
from perdure.cli.exits import Code
from perdure.cli.output import emit_many, note, table
from perdure.cli.recovering import Said, carry_out, over_query, show
from perdure.cli.rollcall import Rollcall, call_roll
from perdure.cli.run import home_of, load_app
from perdure.cli.target import Given, common, opened, run
from perdure.errors import ConfigError, ExecutorNotFound
from perdure.model.ids import TokenMaker
from perdure.model.records import Request, WorkflowRow
from perdure.model.states import Cause, Status
from perdure.operations.ask import ask_executor
from perdure.operations.look import not_found
from perdure.query.conditions import where
from perdure.runtime.plan import KIND, Asker, Planned, cause_of, plan
from perdure.store.base import Store
from perdure.store.coded import coded
from perdure.store.pages import pages

PAGE = 500


@click.group()
def recovery() -> None:
    """What recovery policies would decide; what is to be done about all that a bad version has left."""


@recovery.command("plan")
@common
@click.argument("ids", nargs=-1, metavar="[WORKFLOW_ID]...")
@click.option("--executor", "executors", multiple=True, metavar="ID", help="Work of this executor, be it alive.")
@click.option("--code", metavar="MODULE:APP", help="Ask the policies of this code, here.")
@click.option("--timeout", type=click.FloatRange(min=0), default=15.0, show_default=True, metavar="SECONDS",
              help="How long to wait for executors that have the code.")  # fmt: skip
@click.option("--limit", type=AMOUNT, default=1000, show_default=True)
@over_query(needed=False)
def plan_(
    given: Given, ids: Sequence[str], executors: Sequence[str], code: str | None, timeout: float, limit: int,
    said: Said,
) -> None:  # fmt: skip
    """Show what would be decided about unfinished work, and change nothing.

    About the workflows that are named, or those of the executors that are named, or of all executors that are gone.
    Policies are code: without --code, live executors of the same version are asked.

    With --query and --to: what to do about all that it names, by type, version, state and problem: a verb for each
    group, with its evidence, and the command that does it. Exits with 1 if a sample diverges.
    """
    if said.query is None:
        said.check_without_query()
        run(_plan(given, ids, executors, code, timeout, limit))
    elif ids or executors:
        raise ConfigError("workflows, or executors, and --query were given; give one of them")
    else:
        run(show(given, said, code, timeout, _decided))


@recovery.command("apply")
@common
@over_query(needed=True)
@click.option("--code", metavar="MODULE:APP", help="Replay samples and ask policies here, on this code.")
@click.option("--timeout", type=click.FloatRange(min=0), default=15.0, show_default=True, metavar="SECONDS",
              help="How long to wait for executors that have the code.")  # fmt: skip
@click.option("--rate", metavar="N", help="Changed workflows a second, at most: 100, 0.5/s.")
@click.option("--even-diverging", is_flag=True, help="Groups, too, of which a sample does not replay.")
@click.option("--yes", is_flag=True, help="Do it.")
def apply(
    given: Given, said: Said, code: str | None, timeout: float, rate: str | None, even_diverging: bool, yes: bool
) -> None:
    """Do what `recovery plan --query` shows: a batch for each group, each workflow once, however often it is ordered.

    Without --yes and --reason it is a plan. Exits with 1 if a workflow has failed, or a group was left out.
    """
    if not (yes and said.reason.strip()):
        run(show(given, said, code, timeout, _decided))
        note("nothing was changed: to recover them, add --yes and --reason TEXT")
        raise click.exceptions.Exit(int(Code.NO))
    run(carry_out(given, said, code, timeout, _decided, rate=rate, even_diverging=even_diverging))


async def _decided(store: Store, code: str | None, rows: Sequence[WorkflowRow], timeout: float) -> dict[str, str]:
    """What policies would decide about those of the rows that there is something to decide about."""
    chosen = [(row, "") for row in rows if cause_of(row) is not Cause.NONE]
    if not chosen:
        return {}
    if code is not None:
        planned = await _here(store, code, {row.id: label for row, label in chosen})
    else:
        planned = await _elsewhere(store, await call_roll(store), chosen, timeout)
    return {one.id: f"{one.decision} ({one.policy})" for one in planned if one.policy}


async def _plan(
    given: Given, ids: Sequence[str], executors: Sequence[str], code: str | None, timeout: float, limit: int
) -> None:
    async with opened(given) as store:
        roll = await call_roll(store)
        chosen = await _choose(store, roll, ids, executors, limit)
        if code is not None:
            planned = await _here(store, code, {row.id: label for row, label in chosen})
        else:
            planned = await _elsewhere(store, roll, chosen, timeout)
    labels = {row.id: label for row, label in chosen}
    cells = [
        (one.id, one.name, one.cause, labels[one.id], one.decision, one.policy, one.because) for one in planned
    ]  # fmt: skip
    head = ("id", "type", "cause", "executor", "decision", "policy", "because")
    lines = table(head, cells, "nothing to decide: no unfinished work of executors that are gone")
    fields = [{**msgspec.structs.asdict(one), "executor": labels[one.id]} for one in planned]
    emit_many(given.output, "decisions", fields, lines)
    if unknown := sum(one.decision == "unknown" for one in planned):
        note(f"{unknown} unknown: no live executor has that code; to ask it here: --code MODULE:APP")


Chosen = list[tuple[WorkflowRow, str]]


async def _choose(store: Store, roll: Rollcall, ids: Sequence[str], executors: Sequence[str], limit: int) -> Chosen:
    """Which workflows, each with the label of the executor that has it. Raises ``ExecutorNotFound``."""
    known = {who.executor for who in roll.known}
    if unknown := [label for label in executors if label not in known]:
        raise ExecutorNotFound(
            f"no executor is called {unknown[0]!r}; known: {', '.join(sorted(known)) or 'none'}. One that has left and "
            "has nothing more to do is forgotten. See: perdure executor list"
        )
    if ids:
        rows = await store.rows(ids)
        for id in ids:
            if id not in rows:
                raise not_found(id, store.app)
        found = [rows[id] for id in dict.fromkeys(ids)]
    else:
        found = await _unfinished(store)
    chosen: Chosen = []
    for row in found:
        if cause_of(row) is Cause.NONE:
            continue
        holder = roll.holder_of(row.owner, row.claim)
        label = "" if holder is None else holder.executor
        gone = row.owner is None or holder is None or not roll.lives(holder)
        if ids or (label in executors if executors else gone):
            chosen.append((row, label))
    return chosen[:limit]


async def _unfinished(store: Store) -> list[WorkflowRow]:
    query = where(statuses=[Status.RUNNING, Status.QUEUED])
    return [row async for page in pages(store, query, PAGE) for row in page]


async def _here(store: Store, code: str, ids: Mapping[str, str]) -> list[Planned]:
    """Ask the policies of code that is here."""
    home = home_of(load_app(code))
    registry = home.definitions()
    asker = Asker(coded(store, registry.codec) if registry.codec is not None else store, registry, "")
    try:
        return await plan(asker, ids)
    finally:
        asker.close()


async def _elsewhere(store: Store, roll: Rollcall, chosen: Chosen, timeout: float) -> list[Planned]:
    """Ask live executors of each version; ``unknown`` where there is none, or none answers in time."""
    served = {who.version for who in roll.live}
    new_token = TokenMaker()
    by_version: dict[str, dict[str, str]] = {}
    for row, label in chosen:
        by_version.setdefault(row.version, {})[row.id] = label
    planned: dict[str, Planned] = {}
    unasked = {id for version, ids in by_version.items() if version not in served for id in ids}

    async def ask(version: str, ids: dict[str, str]) -> None:
        request = Request(new_token(), KIND, msgspec.json.encode(ids))
        answer = await ask_executor(store, version, request, patience=timeout)
        if answer is None:
            unasked.update(ids)
        else:
            planned.update((one.id, one) for one in msgspec.json.decode(answer, type=list[Planned]))

    await asyncio.gather(*(ask(version, ids) for version, ids in by_version.items() if version in served))
    for row, _ in chosen:
        if row.id in unasked:
            cause = cause_of(row).value
            planned[row.id] = Planned(id=row.id, name=row.name, cause=cause, decision="unknown", because=_nobody(row))
    return [planned[row.id] for row, _ in chosen if row.id in planned]


def _nobody(row: WorkflowRow) -> str:
    return f"no live executor of version {row.version!r} answered" if row.version else "no live executor answered"
