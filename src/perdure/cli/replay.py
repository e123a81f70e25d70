"""``perdure replay MODULE:APP``: a gate for deploys: whether the open workflows of a database would go on on this code.

It reads rows and histories and writes nothing; bodies are replayed here, without effect.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from perdure.cli.amounts import AMOUNT
from perdure.cli.exits import Code, Exit
from perdure.cli.output import clean, emit_many, note
from perdure.cli.run import AnyApp, home_of, load_app
from perdure.cli.target import Given, Place, check_schema, choose_app, common, find_database, must_exist, run
from perdure.config import Settings, read_settings
from perdure.model.records import WorkflowRow
from perdure.model.states import Versioning
from perdure.runtime.launch import code_of
from perdure.runtime.pasts import open_pasts
from perdure.runtime.replay_check import Finding, Replayer, Verdict
from perdure.store.base import Store


class Tally(msgspec.Struct):
    """What a gate has seen."""

    checked: int = 0
    pinned: int = 0  # to other versions: this code will never meet them
    broken: list[tuple[WorkflowRow, Verdict]] = msgspec.field(default_factory=lambda: [])


@click.command("replay")
@common
@click.argument("target", metavar="MODULE:APP")
@click.option("--workflow", "names", multiple=True, metavar="NAME", help="Only workflows of this name.")
@click.option("--limit", type=AMOUNT, metavar="N", help="Only the newest N (default: all).")
def replay_(given: Given, target: str, names: Sequence[str], limit: int | None) -> None:
    """Would the open workflows go on on this code? Exits with 1 if one would not, and shows who and why.

    Replays each open workflow's history on the code of MODULE:APP, without any effect; writes nothing. Workflows that
    are pinned to another version are left out.
    """
    app = load_app(target)
    if given.app not in (None, app.name):
        raise Exit(Code.USAGE, f"{target} is the app {app.name!r}, not {given.app!r} as --app says")
    tally = run(_replay(given, app, names, limit))
    _report(given, target, tally)
    if tally.broken:
        raise click.exceptions.Exit(int(Code.NO))


async def _replay(given: Given, app: AnyApp, names: Sequence[str], limit: int | None) -> Tally:
    home = home_of(app)
    settings = read_settings(app.name, {**home.arguments, "database": given.database or home.arguments.get("database")})
    store = await _open(given, app, settings)
    tally = Tally()
    version = code_of(app.name, home.definitions(), settings.version).version
    replayer = Replayer(home.registry, version=version, executor_id=settings.executor_id)
    try:
        async for page in open_pasts(store, names, limit):
            met = [past for past in page if _meets(past.row, version)]
            tally.pinned += len(page) - len(met)
            tally.checked += len(met)
            verdicts = await replayer.check_all(met)
            tally.broken += [(past.row, v) for past, v in zip(met, verdicts, strict=True) if not v.safe]
    finally:
        replayer.close()
        await store.close()
    return tally


def _meets(row: WorkflowRow, version: str) -> bool:
    """Whether code of this version may come to run it."""
    return row.versioning is not Versioning.PINNED or row.version in ("", version)


async def _open(given: Given, app: AnyApp, settings: Settings) -> Store:
    """The store that an executor of this app would open, its codec with it; nothing is made or migrated."""
    place = Place(settings.database, settings.database_from, settings.schema)
    if not settings.chosen:  # as for every other command: the single file in ./.perdure
        place = find_database(msgspec.structs.replace(given, app=app.name))
    must_exist(place)
    store: Store = home_of(app).make_store(place.url, app.name, place.schema)
    await store.open()
    try:
        await check_schema(store, place)
        choose_app(app.name, await _apps(home_of(app), place), store.url, may_be_new=False)
    except BaseException:
        await store.close()
        raise
    return store


async def _apps(home: Any, place: Place) -> list[str]:
    store: Store = home.make_store(place.url, "", place.schema)
    await store.open()
    try:
        return await store.apps()
    finally:
        await store.close()


# -- telling


def _report(given: Given, target: str, tally: Tally) -> None:
    fields = [_fields(row, verdict) for row, verdict in tally.broken]
    emit_many(
        given.output, "breaks", fields, _lines(target, tally), checked=tally.checked, pinned=tally.pinned,
        ok=not tally.broken,
    )  # fmt: skip
    if tally.pinned:
        note(f"{tally.pinned} more are pinned to other versions, and will not meet this code")


def _fields(row: WorkflowRow, verdict: Verdict) -> dict[str, Any]:
    return {
        "id": row.id,
        "run": row.run,
        "type": row.name,
        "status": str(row.status),
        "version": row.version,
        "finding": str(verdict.finding),
        "detail": verdict.detail,
        "recorded": verdict.recorded,
        "called": verdict.called,
        "where": verdict.where,
        "line": verdict.line,
    }


def _lines(target: str, tally: Tally) -> list[str]:
    lines: list[str] = []
    for row, verdict in tally.broken:
        version = f", version {row.version}" if row.version else ""
        lines.append(click.style(clean(f"{row.id}  {row.name}, {row.status}{version}: {verdict.finding}"), bold=True))
        if verdict.recorded and verdict.called:
            lines += [f"  history  {clean(verdict.recorded)}", f"  code     {clean(verdict.called)}"]
        else:
            lines.append(f"  {clean(verdict.detail)}")
        if verdict.where:
            lines.append(f"           {clean(_short(verdict.where))}: {clean(verdict.line)}")
    if lines:
        lines.append("")
    return [*lines, _summary(target, tally)]


def _summary(target: str, tally: Tally) -> str:
    if not tally.checked:
        return f"no open workflows to replay on {target}"
    many = "" if tally.checked == 1 else "s"
    if not tally.broken:
        return f"{tally.checked} open workflow{many} replayed on {target}: all would go on"
    found = Counter(verdict.finding for _, verdict in tally.broken)
    kinds = ", ".join(f"{count} {finding}" for finding, count in sorted(found.items()))
    unknown = " (of an unknown one nobody can tell)" if found[Finding.UNKNOWN] else ""
    return (
        f"{tally.checked} open workflow{many} replayed on {target}: {len(tally.broken)} would break: {kinds}{unknown}. "
        f"{_ways_out([verdict for _, verdict in tally.broken])}"
    )


def _ways_out(broken: Sequence[Verdict]) -> str:
    """What helps: patched() where the code asks for something else, less where a model that is passed has changed."""
    ways: list[str] = []
    passed = [verdict for verdict in broken if _differs_in_arguments(verdict)]
    if any(verdict.finding not in _OTHERWISE and verdict not in passed for verdict in broken):
        ways.append("To let them go on as they began: if patched(…)")
    if passed:
        ways.append(
            "Where only arguments differ, pass what was passed before. A field that a model has gained is compared, "
            "too: there patched(…) helps only if the old branch passes the old shape, or ids and plain values"
        )
    ways += [words for finding, words in _OTHERWISE.items() if any(verdict.finding is finding for verdict in broken)]
    return f"{'. '.join(ways)}; or keep their version running until they are done"


_OTHERWISE = {  # where patched() is no help
    Finding.NO_CODE: "Keep a workflow under the name that is recorded: name=… in its decorator",
    Finding.NO_STATE: "Keep a state of a scheme until no process stands in it",
    Finding.UNDECODABLE: "Let the code take what is recorded: give what is new a default, keep the types there were",
}


def _differs_in_arguments(verdict: Verdict) -> bool:
    """Whether the code makes the call that was recorded, with other arguments; not where it makes it elsewhere."""
    was, opens, rest = verdict.recorded.partition("(")
    return rest.endswith(")") and verdict.called.partition("(")[:2] == (was, opens)


def _short(where: str) -> str:
    """A path from here, if it lies here."""
    path, _, number = where.rpartition(":")
    here = Path.cwd()
    inside = Path(path).is_relative_to(here)
    return f"{os.path.relpath(path, here) if inside else path}:{number}"
