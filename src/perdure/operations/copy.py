"""Carrying an app from one database to another, of the same dialect or the other, with its work in flight.

Order, and who is authoritative: the source until it is marked as moved, the target once its own mark is gone.

1. *fence the source*: from that commit on nobody writes a row of the app there, whoever holds a connection or a lease;
2. *mark the target* as incomplete: no executor registers, no app opens there;
3. *copy* every table in key order, in bounded commits that note how far it got; workflow rows last;
4. *compare* counts and checksums of every table on both sides;
5. *mark the source as moved*; 6. *take the target's mark away*: work goes on there.

Each step may be repeated after a death anywhere in it: the same command again goes on. Claims do not travel: what was
running arrives queued, as a death of its executor would leave it. Values are copied as they are stored.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from perdure.errors import ConfigError
from perdure.model.ids import RunKey
from perdure.model.states import CAUSE, CODE, Cause, Status
from perdure.store.base import Store
from perdure.store.tables import TABLES, Table
from perdure.store.upkeep import Key, Rows

OUT, IN = "copy out", "copy in"  # the marks of the source and of the target
MOVING, MOVED = "moving", "moved"
PAGE = 1_000
PAGE_HEAVY = 100  # rows that may hold a value of 2 MB each
OF_ONE = frozenset({"watched"})  # columns that only one dialect keeps
FENCED = ("workflow", "message", "wake", "incarnation")  # no work without a row in one of these
COPIED = tuple(table for table in TABLES if table.copied)


class Out(msgspec.Struct, frozen=True, kw_only=True):
    """The mark of a source."""

    copy: str  # the copy's identity
    target: str
    state: str


class In(msgspec.Struct, frozen=True, kw_only=True):
    """The mark of a target, and how far it got."""

    copy: str
    source: str
    table: str = ""
    after: list[tuple[str, str]] | None = None


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy came to."""

    app: str
    source: str
    target: str
    rows: dict[str, int]
    """By table; the same on both sides, and so are their contents."""
    running: int
    """Workflows that were running in the source: queued in the target."""


async def refuse_moved(store: Store) -> None:
    """Raise ``ConfigError`` if the app does not live here: it was moved away, or has not arrived yet."""
    marks = await store.upkeep.marks()
    if OUT in marks:
        out = msgspec.json.decode(marks[OUT], type=Out)
        raise ConfigError(
            f"app {store.app!r} was moved from {store.url} to {out.target}"
            + (" (the copy is not finished: run perdure db copy again)" if out.state == MOVING else "")
            + f". Set the database to that one. To take the move back and work here: "
            f"perdure db copy --undo {shlex.quote(store.url)} --app {store.app} --force"
        )
    if IN in marks:
        into = msgspec.json.decode(marks[IN], type=In)
        raise ConfigError(
            f"app {store.app!r} is being copied to {store.url} from {into.source}, and the copy is not finished. Run "
            "perdure db copy again with the same databases: it goes on where it stopped"
        )


async def copy(
    source: Store, target: Store, identity: str, *, force: bool = False,
    progress: Callable[[str, int], None] = lambda _table, _rows: None,
) -> Copied:  # fmt: skip
    """Move the app of ``source`` to ``target``; both are open and of one schema version. See the head of this file.

    ``identity``: of this copy, should it be the first try. ``force``: executors that live are declared dead. Raises
    ``ConfigError`` for what cannot be done, before anything is changed.
    """
    if source.url == target.url:
        raise ConfigError(f"{source.url} was given twice; give the database to copy to")
    out, into = await _out(source), await _in(target)
    if out is not None and out.target != target.url:
        raise ConfigError(
            f"app {source.app!r} was moved, or is being moved, from {source.url} to {out.target}, not to "
            f"{target.url}. Go on with that, or take it back: perdure db copy --undo "
            f"{shlex.quote(source.url)} --app {source.app}"
        )
    if out is None or (out.state == MOVING and (into is None or into.copy != out.copy)):
        await _must_be_new(target, into)
    columns = await _columns(source, target)
    if out is None:
        out = await _fence(source, target, identity, force=force)
    if out.state == MOVING:
        into = await _begin(source, target, out)
        for table in COPIED:
            into = await _copy_table(source, target, table, columns[table.name], into, progress)
        await target.upkeep.settle()
        await _compare(source, target, columns)
        out = msgspec.structs.replace(out, state=MOVED)
        await source.upkeep.fence(FENCED, {OUT: _note(out)}, _said(out.target))
    rows = {t.name: await _count(source, t, columns[t.name]) for t in COPIED}
    running = len([r async for page in _pages(source, COPIED[-1], ["status"]) for r in page if r[0] == _RUNNING])
    await target.upkeep.unfence({IN: None})
    target.hint()
    return Copied(app=source.app, source=source.url, target=target.url, rows=rows, running=running)


async def undo(source: Store, *, force: bool) -> str:
    """Take a move back: the app lives in ``source`` again; what the other database was, in words.

    Raises ``ConfigError`` if it was not moved, or if the copy is finished and ``force`` is not given: then both would
    do the same work.
    """
    out = await _out(source)
    if out is None:
        raise ConfigError(f"app {source.app!r} was not moved from {source.url}; there is nothing to take back")
    if out.state == MOVED and not force:
        raise ConfigError(
            f"app {source.app!r} lives in {out.target} by now; if it works there too, everything is done twice. Stop "
            "what works there, and say --force"
        )
    await source.upkeep.unfence({OUT: None})
    return out.target


# -- marks and fences


async def _out(store: Store) -> Out | None:
    note = (await store.upkeep.marks()).get(OUT)
    return None if note is None else msgspec.json.decode(note, type=Out)


async def _in(store: Store) -> In | None:
    note = (await store.upkeep.marks()).get(IN)
    return None if note is None else msgspec.json.decode(note, type=In)


def _note(mark: Out | In) -> str:
    return msgspec.json.encode(mark).decode()


def _said(target: str) -> str:
    return f"this app was moved to {target}"


async def _must_be_new(target: Store, into: In | None) -> None:
    """Refuse a target in which the app lives already."""
    if await target.upkeep.serving():
        raise ConfigError(f"executors of app {target.app!r} serve {target.url}; copy to a database without that app")
    if OUT in await target.upkeep.marks():
        raise ConfigError(
            f"app {target.app!r} was moved away from {target.url}; take that back first, or choose another"
        )
    if into is not None:
        return  # of a copy that was given up: it begins anew
    for table in COPIED:
        if await target.upkeep.page(table, [table.key[0] if table.key else "app"], None, 1):
            raise ConfigError(
                f"app {target.app!r} lives in {target.url} already (there are rows of it in {table.name}); two "
                "histories cannot be merged. Copy to another database, or delete that app's rows first"
            )


async def _fence(source: Store, target: Store, identity: str, *, force: bool) -> Out:
    """Nobody writes to the source any more. Raises ``ConfigError`` while executors live there."""
    out = Out(copy=identity, target=target.url, state=MOVING)
    expired = [who.id for who in await source.upkeep.serving()]
    if expired:
        await source.bury(expired, expired_only=not force)
    living = await source.upkeep.fence(FENCED, {OUT: _note(out)}, _said(target.url))
    if living:
        named = ", ".join(f"{who.executor} (pid {who.pid} on {who.host})" for who in living)
        raise ConfigError(
            f"executors of app {source.app!r} serve {source.url}: {named}. Stop them first (SIGTERM: they hand back "
            "what they run). --force declares them dead: from then on they can write nothing"
        )
    return out


async def _begin(source: Store, target: Store, out: Out) -> In:
    """The target's mark; rows of a copy that was given up are deleted first."""
    into = await _in(target)
    if into is not None and into.copy == out.copy:
        return into
    if into is not None:
        for table in TABLES:
            if table.name != "upkeep":
                while await target.upkeep.clear(table, PAGE):
                    pass
    into = In(copy=out.copy, source=source.url)
    await target.upkeep.fence(
        ("incarnation",), {IN: _note(into)}, f"this app was moved here from {source.url}, not yet whole"
    )
    return into


# -- rows


async def _columns(source: Store, target: Store) -> dict[str, list[str]]:
    """The columns of each table. Raises ``ConfigError`` if the two schemas differ."""
    found: dict[str, list[str]] = {}
    for table in COPIED:
        here, there = [set(await store.upkeep.columns(table)) for store in (source, target)]
        if odd := (here ^ there) - OF_ONE:
            raise ConfigError(f"table {table.name} has other columns in one of the databases: {', '.join(sorted(odd))}")
        found[table.name] = sorted(here & there)
    return found


async def _copy_table(
    source: Store, target: Store, table: Table, columns: list[str], into: In, progress: Callable[[str, int], None]
) -> In:
    """Copy what is missing of one table; a table before the noted one is whole already."""
    order = [t.name for t in COPIED]
    if into.table and order.index(into.table) > order.index(table.name):
        return into
    after = _key_of(into) if into.table == table.name else None
    async for page in _pages(source, table, columns, after):
        into = msgspec.structs.replace(into, table=table.name, after=_noted(_key(table, columns, page[-1])))
        await target.upkeep.put(table, columns, page, IN, _note(into))
        progress(table.name, len(page))
    return into


async def _pages(store: Store, table: Table, columns: Sequence[str], after: Key | None = None) -> AsyncIterator[Rows]:
    """All rows after a key, in key order; workflow rows as they arrive: those that run are queued."""
    asked = [*columns, *(k for k in table.key if k not in columns)]
    whole = table.name == "workflow" and len(columns) > 1
    while page := await store.upkeep.page(table, asked, after, PAGE_HEAVY if table.heavy else PAGE):
        after = _key(table, asked, page[-1])
        rows = [row[: len(columns)] for row in page]
        yield await _released(store, columns, rows) if whole else rows
        if not table.key:
            return


_RUNNING = CODE[Status.RUNNING]


async def _released(store: Store, columns: Sequence[str], rows: Rows) -> Rows:
    """Rows with what was running queued, as the death of its executor would leave it."""
    at = {name: n for n, name in enumerate(columns)}
    running = [r for r in rows if r[at["status"]] == _RUNNING]
    if not running:
        return rows
    keys = [RunKey(r[at["id"]], r[at["run"]]) for r in running]
    ends = await store.upkeep.last_seqs(keys)
    released: Rows = []
    for row in rows:
        new = list(row)
        if row[at["status"]] == _RUNNING:
            changed = {
                "status": CODE[Status.QUEUED], "owner": None, "claim": None, "cause": CAUSE[Cause.CRASH], "detail": "",
                "attempts": row[at["attempts"]] + 1, "until": row[at["updated"]],
                "last_seq": ends[RunKey(row[at["id"]], row[at["run"]])],
            }  # fmt: skip
            for name, value in changed.items():
                new[at[name]] = value
        released.append(tuple(new))
    return released


def _key(table: Table, columns: Sequence[str], row: tuple[Any, ...]) -> Key:
    return tuple(row[columns.index(name)] for name in table.key)


def _noted(key: Key) -> list[tuple[str, str]]:
    """A key as JSON holds it."""
    return [("b", v.hex()) if isinstance(v, bytes) else ("i" if isinstance(v, int) else "s", str(v)) for v in key]


def _key_of(into: In) -> Key | None:
    kinds: dict[str, Callable[[str], Any]] = {"b": bytes.fromhex, "i": int, "s": str}
    return None if into.after is None else tuple(kinds[kind](text) for kind, text in into.after)


# -- comparing


async def _compare(source: Store, target: Store, columns: dict[str, list[str]]) -> None:
    """Raise ``ConfigError`` if a table differs: somebody has written to the target meanwhile."""
    for table in COPIED:
        here = await _digest(source, table, columns[table.name])
        there = await _digest(target, table, columns[table.name])
        if here != there:
            raise ConfigError(
                f"table {table.name} differs after the copy: {here[0]} rows with checksum {here[1]} in {source.url}, "
                f"{there[0]} with {there[1]} in {target.url}. Somebody has written to the target. Take the move back "
                f"(perdure db copy --undo {shlex.quote(source.url)} --app {source.app}) and copy again: it begins anew"
            )


async def _digest(store: Store, table: Table, columns: list[str]) -> tuple[int, str]:
    """How many rows there are, and a checksum of them in key order; the same in both dialects."""
    count, digest = 0, hashlib.blake2b(digest_size=16)
    async for page in _pages(store, table, columns):
        count += len(page)
        for row in page:
            for value in row:
                digest.update(_canonical(value))
    return count, digest.hexdigest()


def _canonical(value: Any) -> bytes:
    """A value without what tells the dialects apart: JSON is text in one, bytes in the other."""
    if value is None:
        return b"-"
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    return f"#{float(value) if isinstance(value, float) else int(value)};".encode()


async def _count(store: Store, table: Table, columns: list[str]) -> int:
    some = list(table.key[:1]) or columns[:1]
    return sum([len(page) async for page in _pages(store, table, some)])
