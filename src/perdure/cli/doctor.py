"""``perdure doctor``: is everything as it must be? Each fault says what to do; any fault is exit code 1."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import click
import msgspec

from perdure.cli.executors import holdings
from perdure.cli.exits import Code, Exit, code_of
from perdure.cli.output import clean, emit_many, glyphs, redacted, took
from perdure.cli.queues import full_queues
from perdure.cli.rollcall import Rollcall, call_roll, describe, nobody
from perdure.cli.stranded import stranded_of, strands
from perdure.cli.target import (
    Given,
    Place,
    common,
    find_database,
    known_to_sqlite,
    must_exist,
    opened,
    run,
    shown_place,
)
from perdure.errors import ConfigError, DatabaseTrouble, PerdureError, RightsMissing
from perdure.model.records import WorkflowRow
from perdure.model.states import OPEN, Status
from perdure.operations.copy import refuse_moved
from perdure.query.conditions import where
from perdure.query.read import read_query
from perdure.store.asks import Counted
from perdure.store.base import Store
from perdure.store.open import sqlite_path

COUNT_MAX = 10_000
HELD_MAX = 20  # held workflows that are named
NAMES_MAX = 5  # of processes
TRIED_MAX = 20  # stranded workflows of a version among which an example is looked for
IN_ERROR = "attributes.status = 'Error' AND status = waiting GROUP BY type"
QUEUED_US_MAX = 60_000_000  # a workflow that is due and unclaimed for longer, while executors live, is a fault


class Fact(msgspec.Struct, frozen=True):
    """One finding. ``advice`` says what to do about a fault."""

    what: str
    value: str
    good: bool = True
    advice: str = ""


# What to do, for the facts that a store tells of itself.
_ADVICE = {
    "SQLite": "before 3.51.3 two writers could corrupt the file: upgrade the apsw package",
    "journal mode": "the file is not in WAL mode: let no other program change it; reopening by Perdure sets it again",
    "synchronous": "commits do not reach the disk: let no other program change this setting",
    "fullfsync": "commits may end in the drive's cache: let no other program change this setting",
    "schema version": "perdure db migrate (or upgrade Perdure here, if the database is ahead)",
    "Postgres": "upgrade the server to 14 or newer",
    "fsync": "a crash of the server loses what was acknowledged: set fsync = on",
    "synchronous_commit": "a crash of the server loses what was acknowledged: set synchronous_commit = on",
    "full_page_writes": "a crash of the server may corrupt its pages: set full_page_writes = on",
    "encoding": "make a database with encoding UTF8 and move there: perdure cannot store all text in this one",
    "rights": "as the owner of the tables: grant usage on schema SCHEMA to ROLE; grant select, insert, update, delete "
    "on all tables in schema SCHEMA to ROLE. Where row level security is on: disable it, or alter role ROLE bypassrls",
    "takes writes": "a standby: give the URL of the primary. Read-only transactions: find out who set that (a host may "
    "when its disk is nearly full), then set default_transaction_read_only = off for the server, database or user",
    "room": "free some space, or give the file a larger disk: without room nothing is recorded, and all work waits",
    "log size": "the log is emptied once nobody reads an older state from it: end the process that keeps a transaction "
    "open (a shell, a report, a backup that hangs)",
    "clock against this host": "set this host's clock (NTP): what people read will be wrong; timers go by the database",
    "autovacuum": "dead rows pile up, and all work gets slower: set autovacuum = on and track_counts = on; for a "
    "table: alter table SCHEMA.TABLE reset (autovacuum_enabled). Then once: vacuum analyze",
    "oldest transaction": "what has died since it began cannot be removed, and all work gets slower: end it (a "
    "shell, a report, a backup that hangs) with select pg_terminate_backend(PROCESS), or rollback prepared 'NAME'",
    "notifications": "a pooler swallows them: work is found by polling, up to a second later. If that will do, say "
    "so in the URL (?pooler=transaction); else name the server itself there (&direct=HOST:PORT)",
}
_PLANS = (
    "a pooler drops the settings of a connection: for this database user, alter role … set it (see the value wanted)"
)


@click.command()
@common
def doctor(given: Given) -> None:
    """Examine the database, its durability, the executors and the unfinished work.

    Exits with 1 if anything is at fault (4 if the database cannot be reached), and says what to do about it.
    """
    facts, code = run(_examine(given))
    rows = [_fields(fact) for fact in facts]
    faults = sum(not fact.good for fact in facts)
    emit_many(given.output, "facts", rows, _lines(facts, faults), id="what", healthy=not faults)
    if code is not Code.OK:
        raise click.exceptions.Exit(int(code))


async def _examine(given: Given) -> tuple[list[Fact], Code]:
    place = find_database(given)
    facts = [Fact("database", shown_place(place))]
    try:
        if must_exist(place, migrated=False):  # to open the file would write to it
            value = f"0 (known: {known_to_sqlite()}), the file is empty"
            return [*facts, Fact("schema version", value, False, _ADVICE["schema version"])], Code.NO
        if (removed := _removed_log(place)) is not None:
            return [*facts, removed], Code.NO
        async with opened(given, needs_app=False, migrated=False) as store:
            facts += _of_store(await store.health(), store)
            have, known = await store.schema_version()
            if have == known:
                for app in await _apps(given, store):
                    facts += await _of_app(given, place, app)
    except RightsMissing as error:
        if all(fact.good for fact in facts):
            facts.append(Fact("rights", _text(error), False, _ADVICE["rights"]))
        return facts, Code.NO
    except (PerdureError, Exit) as error:
        facts += _unreached(place, error)
        return facts, error_code(error)
    return facts, Code.OK if all(fact.good for fact in facts) else Code.NO


def _removed_log(place: Place) -> Fact | None:
    """A fault with which the file is not to be opened: what is in the removed log would be mixed with another."""
    path = sqlite_path(place.url)
    if path is None:
        return None
    from perdure.store.sqlite.health import log_removed  # noqa: PLC0415 - needs its driver

    words = log_removed(Path(path))
    advice = "its executors save what is in it within a second or so: look at their logs, then run this again; if they "
    advice += "do not, stop them in order (SIGTERM, never kill -9), which saves it too"
    return Fact("log", words, False, advice) if words else None


def _unreached(place: Place, error: PerdureError | Exit) -> list[Fact]:
    """Why nothing more can be said. What is wrong for good says so itself; a file has no server that could be down."""
    path = sqlite_path(place.url)
    away = path is None and isinstance(error, DatabaseTrouble)
    advice = "see the message; is the server up, the address right?" if away else "see the message"
    facts = [Fact("connection", _text(error), False, advice)]
    if path is not None and Path(path).exists():
        from perdure.store.sqlite.health import room  # noqa: PLC0415 - needs its driver

        words, ample = room(Path(path))
        facts += [] if ample else [Fact("room", words, False, _ADVICE["room"])]
    return facts


def error_code(error: PerdureError | Exit) -> Code:
    return Code(error.exit_code) if isinstance(error, Exit) else code_of(error)


def _text(error: Exception) -> str:
    return redacted(error.message if isinstance(error, Exit) else str(error))


async def _apps(given: Given, store: Store) -> list[str]:
    """The apps to examine: the one that was named, or all."""
    known = await store.apps()
    if store.app and store.app not in known:
        raise Exit(
            Code.NOT_FOUND, f"there is no app {store.app!r} in {store.url}; it holds: {', '.join(known) or 'none'}"
        )
    return [store.app] if store.app else known


def _of_store(health: Any, store: Store) -> list[Fact]:
    facts: list[Fact] = []
    for what, value, good in health.facts:
        advice = "" if good else _ADVICE.get(what, _PLANS)
        facts.append(Fact(what, redacted(value), good, advice))
    return facts


# -- an app


async def _of_app(given: Given, place: Place, app: str) -> list[Fact]:
    async with opened(Given(place.url, app, given.output)) as store:
        try:
            await refuse_moved(store)
        except ConfigError as error:  # what stands here is of before the move, and waits for nobody
            return [Fact(f"{app}: lives", "elsewhere", False, str(error))]
        roll = await call_roll(store)
        holds = await holdings(store)
        rows, more = await _unfinished(store)
        in_error = await store.count(read_query(IN_ERROR, app, use="count"))
        lost = strands(roll, rows) if roll.live else []  # with nobody there all work only waits
        stranded = await _of_stranded(store, roll, lost)
        in_line = bool(roll.live) and any(row.lane is not None for row in rows)
        full = await full_queues(store, len(roll.live)) if in_line else {}
    facts = _of_executors(app, roll, holds, rows)
    counts = Counter(row.status for row in rows)
    for status in Status:
        if counts[status] and status is not Status.HELD:
            facts.append(Fact(f"{app}: {status}", f"{counts[status]}{'+' if more else ''}"))
    if not rows:
        facts.append(Fact(f"{app}: unfinished", "none"))
    facts += stranded + _of_queue(app, roll, rows, lost, full) + _of_processes(app, in_error)
    return facts + _of_held(app, [row for row in rows if row.status is Status.HELD])


async def _unfinished(store: Store) -> tuple[list[WorkflowRow], bool]:
    rows: list[WorkflowRow] = []
    cursor: str | None = None
    while len(rows) < COUNT_MAX:
        found = await store.list(where(statuses=OPEN), cursor=cursor, limit=1000)
        rows += found.rows
        cursor = found.cursor
        if cursor is None:
            return rows, False
    return rows, True


def _of_executors(app: str, roll: Rollcall, holds: Counter[bytes], rows: list[WorkflowRow]) -> list[Fact]:
    facts: list[Fact] = []
    for who in roll.known:
        life, count = roll.life(who), holds[who.id]
        value = f"{describe(who)}: {life}, lease {roll.lease(who)}, holds {count}"
        if roll.lives(who):
            facts.append(Fact(f"{app}: executor", value))
        elif count:
            advice = "a live executor takes its work over" if roll.live else nobody(app)
            facts.append(Fact(f"{app}: executor", value, False, advice))
    waiting = [row for row in rows if row.status is not Status.HELD]
    if not roll.live:
        advice = "start one: perdure run MODULE:APP" if waiting else ""
        facts.append(Fact(f"{app}: executors", f"none alive, {len(waiting)} workflows wait", not waiting, advice))
    return facts


async def _of_stranded(store: Store, roll: Rollcall, lost: list[WorkflowRow]) -> list[Fact]:
    """Work of versions that nobody runs: a fault for each, with an example."""
    lost = sorted(lost, key=lambda row: (row.version, row.created, row.id))
    facts: list[Fact] = []
    for version, each in itertools.groupby(lost, lambda row: row.version):
        of = list(each)
        found = await stranded_of(store, roll, of[:TRIED_MAX])
        one = next((found[row.id] for row in of[:TRIED_MAX] if found[row.id].tried), found[of[0].id])
        why = f"{one.reason}: {one.detail}" if one.tried else one.reason
        value = f"{len(of)} of version {version}, which no live executor runs; {one.row.id} ({one.row.name}): {why}"
        advice = f"perdure workflow list --stranded; what to do: perdure workflow show {one.row.id}"
        facts.append(Fact(f"{store.app}: stranded", value, False, advice))
    return facts


def _of_queue(
    app: str, roll: Rollcall, rows: list[WorkflowRow], lost: list[WorkflowRow], full: dict[str, str]
) -> list[Fact]:
    """Work that is due, and that nobody takes although somebody is there. What its queue keeps back is in order."""
    if not roll.live:
        return []
    in_line = Counter(row.queue for row in rows if row.lane is not None and row.queue in full)
    facts = [
        Fact(f"{app}: queue {name}", f"{in_line[name]} in line; {why}; see: perdure queue list")
        for name, why in sorted(full.items())
        if in_line[name]
    ]
    told = {row.id for row in lost}  # for itself: more executors of this code would not help
    late = [
        row
        for row in rows
        if row.owner is None and row.until is not None and row.id not in told and roll.now - row.until > QUEUED_US_MAX
        if row.lane is None or row.queue not in full
    ]
    if not late:
        return facts
    oldest = max(roll.now - row.until for row in late if row.until is not None)
    return [
        *facts,
        Fact(
            f"{app}: overdue", f"{len(late)} workflows are due and not taken, the oldest for {took(oldest)}", False,
            "the executors are too few or stuck: look at their logs, start more",
        ),
    ]  # fmt: skip


def _of_processes(app: str, in_error: list[Counted]) -> list[Fact]:
    """Processes in Error: they take orders as ever, but nobody may know that something has failed."""
    if not in_error:
        return []
    names = ", ".join(f"{group.total} of {group.values[0]}" for group in in_error[:NAMES_MAX])
    more = ", …" if len(in_error) > NAMES_MAX else ""
    total = sum(group.total for group in in_error)
    value = f"{total} process{'' if total == 1 else 'es'} in Error: {names}{more}"
    return [Fact(f"{app}: in Error", value, False, "perdure process list --status Error")]


def _of_held(app: str, rows: list[WorkflowRow]) -> list[Fact]:
    facts = [
        Fact(
            f"{app}: held",
            f"{row.id} ({row.name}): {row.reason}: {row.detail}",
            False,
            f"perdure workflow show {row.id}",
        )
        for row in rows[:HELD_MAX]
    ]
    if len(rows) > HELD_MAX:
        more = f"{len(rows) - HELD_MAX} more"
        facts.append(Fact(f"{app}: held", more, False, "perdure workflow list --status held"))
    return facts


# -- printing


def _fields(fact: Fact) -> dict[str, Any]:
    return {"what": fact.what, "value": fact.value, "good": fact.good, "advice": fact.advice}


def _lines(facts: list[Fact], faults: int) -> list[str]:
    mark = glyphs()
    wide = max(len(fact.what) for fact in facts)
    lines: list[str] = []
    for fact in facts:
        sign = click.style(mark.done, fg="green") if fact.good else click.style(mark.failed, fg="red")
        lines.append(f"{sign} {clean(fact.what).ljust(wide)}  {clean(fact.value)}")
        if fact.advice:
            lines.append(f"  {'':{wide}}  {mark.arrow} {fact.advice}")
    lines.append("")
    lines.append(f"{faults} fault{'' if faults == 1 else 's'}" if faults else "all is well")
    return lines
