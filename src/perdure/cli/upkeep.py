"""``perdure db purge|size|copy``: keep a database small, tell its size, carry an app to another one."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import click
import msgspec

from perdure.cli.durations import is_too_long, seconds_of
from perdure.cli.exits import Code
from perdure.cli.output import emit_many, emit_one, instant, note, table
from perdure.cli.target import Given, check_schema, choose_app, common, must_exist, opened, run
from perdure.cli.target import Place as Where
from perdure.config import read_settings
from perdure.model.retention import ENDS, Retention, Rules
from perdure.operations import copy as carry
from perdure.operations.retention import Purged, sweep
from perdure.operations.retention import purge as purge_all
from perdure.operations.size import DatabaseSize, measure
from perdure.store.base import Store
from perdure.store.open import open_store

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def read_age(text: str) -> int:
    """An age such as ``30d``, ``12h``, ``90s``, in microseconds."""
    age = seconds_of(text, _UNITS)
    if age is None:
        raise click.BadParameter(f"{text!r} is not an age; write 30d, 12h, 45m or 90s")
    if is_too_long(age):
        raise click.BadParameter(f"{text!r} is more than a century; write 30d, 12h, 45m or 90s")
    return round(age * 1_000_000)


def readable(size: int) -> str:
    """Bytes for people."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("the last unit ends the loop")


# -- purge


@click.command()
@common
@click.option("--older-than", "older", metavar="AGE", help="Ended so long ago: 30d, 12h, 45m. Needed with --yes.")
@click.option("--status", "statuses", multiple=True, metavar="STATUS", help=f"Of {', '.join(ENDS)}; default: all.")
@click.option("--type", "types", multiple=True, metavar="NAME", help="The workflow's name; default: all.")
@click.option("--plan", is_flag=True, help="Say what would go, and change nothing.")
@click.option("--vacuum", is_flag=True, help="Give the room back to the file system (SQLite): rewrites the file.")
@click.option("--yes", is_flag=True, help="Do it.")
def purge(
    given: Given, older: str | None, statuses: Sequence[str], types: Sequence[str], plan: bool, vacuum: bool, yes: bool
) -> None:
    """Delete workflows that ended long ago, whole, with everything that belongs to them.

    Never an open one, nor the child of an open parent. `past` among the statuses means earlier runs of an id. In
    bounded commits with pauses; interrupted, it is simply run again. Without --yes it says what would go.
    """
    ends = [part.strip() for text in statuses for part in text.split(",")] or list(ENDS)
    if unknown := [end for end in ends if end not in ENDS]:
        raise click.BadParameter(f"{unknown[0]!r} is no end of a workflow; known: {', '.join(ENDS)}")
    if yes and not plan and older is None:
        raise click.UsageError("how old? give --older-than AGE, such as 30d (0s: everything that has ended)")
    age = Retention(dict.fromkeys(ends, read_age(older or "0s")))
    rules = Rules(dict.fromkeys(types, age)) if types else Rules({}, age)
    run(_purge(given, rules, plan=plan or not yes, asked=plan, vacuum=vacuum))


async def _purge(given: Given, rules: Rules, *, plan: bool, asked: bool, vacuum: bool) -> None:
    async with opened(given, changes=not plan) as store:
        lines = await purge_all(store.upkeep, rules, plan=plan)
        swept = 0 if plan else await sweep(store.upkeep)
        freed = await store.upkeep.vacuum() if vacuum and not plan else 0
    rows = [{"id": f"{p.name} {p.status}", **msgspec.to_builtins(p)} for p in lines]
    emit_many(given.output, "purged", rows, _lines(lines, plan=plan), planned=plan, swept=swept, freed=freed)
    if plan:
        if not asked and lines:
            note("nothing was changed: to delete them, say --older-than AGE --yes")
            raise click.exceptions.Exit(int(Code.NO))
        return
    if store.url.startswith("sqlite"):
        if not vacuum and lines:
            note("their room in the file will be used again; --vacuum gives it back to the file system")
        elif vacuum:
            note(f"{readable(freed)} given back to the file system")
    elif vacuum:
        note("on Postgres autovacuum makes their room free for new rows; there is nothing to do")


def _lines(lines: Sequence[Purged], *, plan: bool) -> list[str]:
    if not plan:
        return table(
            ("type", "status", "deleted"), [(p.name, p.status, str(p.count)) for p in lines], "nothing is that old"
        )
    cells = [(p.name, p.status, str(p.count), str(p.rows), readable(p.bytes)) for p in lines]
    return table(("type", "status", "would go", "rows", "bytes"), cells, "nothing is that old")


# -- size


@click.command()
@common
def size(given: Given) -> None:
    """What the database holds: rows and bytes by table, by workflow and status; what has become large, and what to do.

    Reads much (each table on SQLite, up to 20,000 workflows), changes nothing.
    """
    run(_size(given))


async def _size(given: Given) -> None:
    async with opened(given) as store:
        found = await measure(store.upkeep)
        url = store.url
    fields = {"database": url, **msgspec.to_builtins(found)}
    emit_one(given.output, "size", fields, _size_lines(url, found), id="bytes")


def _size_lines(url: str, found: DatabaseSize) -> list[str]:
    free = f", {readable(found.free)} of it free" if found.free else ""
    lines = [f"{url}: {readable(found.bytes)}{free}", ""]
    tables = sorted(found.tables, key=lambda t: -t.bytes)
    if found.exact:
        cells = [(t.name, str(t.rows), readable(t.bytes)) for t in tables]
        lines += table(("table", "rows", "bytes"), cells, "no tables")
    else:  # as the server last knew them
        known = [(t.name, f"about {t.rows}", readable(t.bytes), str(t.dead)) for t in tables]
        lines += table(("table", "rows", "bytes", "dead"), known, "no tables")
    lines.append("")
    kinds = [
        (k.name, str(k.status), str(k.count), str(k.rows), ("" if k.exact else "about ") + readable(k.bytes),
         instant(k.oldest))
        for k in sorted(found.kinds, key=lambda k: -k.bytes)
    ]  # fmt: skip
    lines += table(("type", "status", "count", "rows", "bytes", "oldest"), kinds, "no workflows", paint=1)
    if found.past_runs:
        lines.append(f"earlier runs: {found.past_runs}")
    return [*lines, *("" for _ in found.advice[:1]), *found.advice]


# -- copy


@click.command()
@common
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO", required=False)
@click.option("--undo", is_flag=True, help="Take a move back: the app lives in FROM again.")
@click.option("--force", is_flag=True, help="Executors that live are declared dead; with --undo: though TO is whole.")
def copy(given: Given, source: str, target: str | None, undo: bool, force: bool) -> None:
    """Move an app with its unfinished work to another database: SQLite to Postgres, back, or to the same kind.

    Stop its executors first. From the first moment on nobody can write to the app in FROM, and nobody works in TO
    before it is whole and compared. Interrupted, the same command goes on where it stopped.
    """
    if undo:
        run(_undo(given, source, force=force))
        return
    if target is None:
        raise click.UsageError("copy to where? give FROM and TO")
    run(_copy(given, source, target, force=force))


def _place(url: str, what: str) -> Where:
    settings = read_settings("cli", {"database": url})
    return Where(settings.database, what, settings.schema)


async def _source(given: Given, url: str) -> Store:
    """The store of the app in FROM, open."""
    place = _place(url, "FROM")
    must_exist(place)
    store = open_store(place.url, given.app or "", place.schema)
    await store.open()
    try:
        await check_schema(store, place)
        name = choose_app(given.app or "", await store.apps(), store.url, may_be_new=False)
    except BaseException:
        await store.close()
        raise
    if name != store.app:
        await store.close()
        store = open_store(place.url, name, place.schema)
        await store.open()
    return store


async def _copy(given: Given, source_url: str, target_url: str, *, force: bool) -> None:
    source = await _source(given, source_url)
    place = _place(target_url, "TO")
    target = open_store(place.url, source.app, place.schema)
    try:
        await target.open()
        await target.migrate()
        seen: dict[str, int] = {}

        def progress(name: str, rows: int) -> None:
            seen[name] = seen.get(name, 0) + rows
            note(f"{name}: {seen[name]} rows")

        done = await carry.copy(source, target, secrets.token_hex(8), force=force, progress=progress)
    finally:
        await target.close()
        await source.close()
    rows = sum(done.rows.values())
    lines = [
        f"app {done.app} lives in {done.target} now: {rows} rows, compared with {done.source}",
        *(f"  {name}: {count}" for name, count in done.rows.items() if count),
        f"{done.running} that were running are queued; start executors there, and nothing in {done.source} any more",
    ]
    emit_one(given.output, "copy", msgspec.to_builtins(done), lines, id="target")


async def _undo(given: Given, source_url: str, *, force: bool) -> None:
    source = await _source(given, source_url)
    try:
        was = await carry.undo(source, force=force)
        app, url = source.app, source.url
    finally:
        await source.close()
    fields = {"app": app, "database": url, "target": was}
    emit_one(given.output, "copy", fields, [f"app {app} lives in {url} again; do not start it in {was}"], id="app")
