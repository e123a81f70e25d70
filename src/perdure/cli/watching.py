"""``perdure workflow watch`` and ``stream``: what a workflow records and says, as it does so, up to its end.

Both read rows only, wait like any other reader (a hint, else a poll from 20 ms to half a second), and change nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from typing import Any

import click
import msgspec

from perdure.api.keys import check_name
from perdure.cli.amounts import FROM_ZERO
from perdure.cli.exits import Code
from perdure.cli.output import clean, glyphs, note, plain, say, shortened, took, width
from perdure.cli.story import failure_fields, failure_of, record_fields
from perdure.cli.target import Given, common, opened, run
from perdure.cli.timeline import failure_lines, record_line
from perdure.cli.waiting import POLL_SECONDS_MAX, POLL_SECONDS_MIN, ROLL_SECONDS, why_stuck
from perdure.client.questions import outcome_of
from perdure.errors import DatabaseTrouble
from perdure.model.ids import RunKey
from perdure.model.records import Kind, Outcome, Record, WorkflowRow
from perdure.model.states import Status
from perdure.model.streams import PROGRESS, StreamAsk, StreamPage
from perdure.operations.look import not_found
from perdure.runtime.progress import Told, read_told
from perdure.store.base import Store

RECORDS = 500  # read at once
VALUES = 200
BAR = 30  # cells


class Looks:
    """Looks at the database again: when it hints, else now and then."""

    def __init__(self, store: Store, id: str, *, tells: bool) -> None:
        self._store = store
        self._id = id
        self._hinted = asyncio.Event()
        self._pause = POLL_SECONDS_MIN
        self._quiet = 0.0  # seconds
        self._tells = tells  # why nothing happens, once
        store.on_hint(lambda _queues: self._hinted.set())

    async def next(self, *, news: bool) -> None:
        """Wait until it is worth another look; soon if the last one had ``news``."""
        self._pause = POLL_SECONDS_MIN if news else min(self._pause * 1.5, POLL_SECONDS_MAX)
        self._quiet = 0.0 if news else self._quiet + self._pause
        if self._tells and self._quiet > ROLL_SECONDS:
            self._quiet = 0.0
            if why := await why_stuck(self._store, self._id):
                self._tells = False
                note(why)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hinted.wait(), self._pause)
        self._hinted.clear()


# -- stream


@click.command()
@common
@click.argument("id")
@click.argument("name")
@click.option("--offset", type=FROM_ZERO, default=0, show_default=True, help="The first value to print.")
def stream(given: Given, id: str, name: str, offset: int) -> None:
    """Print the values of a stream, one JSON a line, as they are written; ends when it is closed or the workflow ends.

    With --output json or jsonl each line is {"version": 1, "value": …, "offset": …}.
    """
    run(_stream(given, id, check_name(name, "stream"), offset))


async def _stream(given: Given, id: str, name: str, offset: int) -> None:
    async with opened(given) as store:
        async for place, value in _values(store, id, name, offset):
            if given.output in ("json", "jsonl"):
                _emit({"offset": place, "value": plain(value)})
            elif given.output == "ids":
                say(str(place))
            else:
                say(msgspec.json.encode(plain(value)).decode())


async def _values(store: Store, id: str, name: str, offset: int) -> AsyncGenerator[tuple[int, bytes], None]:
    """Offsets and values, as they come. Raises ``WorkflowNotFound``."""
    looks, ask = Looks(store, id, tells=True), StreamAsk(id, name, offset, limit=VALUES)
    while True:
        page = await _page(store, ask)
        for nth, value in enumerate(page.values):
            yield page.place + nth, value
        if page.ended:
            return
        ask = StreamAsk(id, name, page.place + len(page.values), page.chain, VALUES)
        if len(page.values) < VALUES:
            await looks.next(news=bool(page.values))


async def _page(store: Store, ask: StreamAsk) -> StreamPage:
    while True:
        try:
            [page] = await store.streams([ask])
        except DatabaseTrouble:
            await asyncio.sleep(POLL_SECONDS_MAX)
            continue
        if page is None:
            raise not_found(ask.id, store.app)
        return page


def _emit(fields: dict[str, Any]) -> None:
    say(msgspec.json.encode({"version": 1, **fields}).decode())


# -- watch


@click.command()
@common
@click.argument("id")
def watch(given: Given, id: str) -> None:
    """Follow a workflow: a line for each record as it is made, and progress, on a terminal as bars.

    Elsewhere, or with --output json or jsonl: one JSON a line, with "record", "progress", "status" or, in the end,
    "outcome". Exits as `workflow result` does: with 0 if it completed, with 1 if it ended otherwise.
    """
    run(_watch(given, id))


async def _watch(given: Given, id: str) -> None:
    terminal = given.output == "table" and sys.stdout.isatty()
    async with opened(given) as store:
        shown = Terminal() if terminal else Lines()
        row = await _follow(store, id, shown)
        ended = (await store.ended([id])).get(id)
    outcome, data = outcome_of(ended) if ended is not None else (Outcome.NONE, None)
    shown.ended(row, outcome, data)
    if outcome is Outcome.ERROR or row.status is not Status.COMPLETED:
        raise click.exceptions.Exit(int(Code.NO))


async def _follow(store: Store, id: str, shown: Lines | Terminal) -> WorkflowRow:
    """Show all that happens until the end; the row then."""
    looks, key, seq = Looks(store, id, tells=isinstance(shown, Lines)), RunKey(id, 0), 0
    progress = StreamAsk(id, PROGRESS, 0, limit=VALUES)
    while True:
        try:
            row = (await store.rows([id])).get(id)
            if row is None:
                raise not_found(id, store.app)
            if row.key != key:
                key, seq = row.key, 0
                shown.begins(row)
            [page] = await store.streams([progress])
            records = await store.records_after(key, seq, RECORDS)
        except DatabaseTrouble:
            await asyncio.sleep(POLL_SECONDS_MAX)
            continue
        told = [read_told(value) for value in page.values] if page is not None else []
        if records:
            seq = records[-1].seq
            for record in records:
                if record.kind is not Kind.INTENT:
                    shown.recorded(row, record)
        if page is not None:
            progress = StreamAsk(id, PROGRESS, page.place + len(page.values), page.chain, VALUES)
        shown.progressed([one for one in told if one is not None])
        shown.stands(row)
        more = len(records) == RECORDS or len(told) == VALUES
        if not row.status.open and not more and not records and not told:
            return row
        if not more and row.status.open:
            await looks.next(news=bool(records or told))


class Lines:
    """For programs: one JSON a line."""

    def __init__(self) -> None:
        self._status: Status | None = None

    def begins(self, row: WorkflowRow) -> None:
        """Another run."""
        self._status = None

    def recorded(self, row: WorkflowRow, record: Record) -> None:
        """A record was made."""
        _emit({"record": record_fields(record)})

    def progressed(self, told: list[Told]) -> None:
        """More is done."""
        for one in told:
            _emit({"progress": msgspec.to_builtins(one)})

    def stands(self, row: WorkflowRow) -> None:
        """Where it stands."""
        if row.status is not self._status:
            self._status = row.status
            _emit({"status": str(row.status), "run": row.run})

    def ended(self, row: WorkflowRow, outcome: Outcome, data: bytes | None) -> None:
        """How it ended."""
        fields: dict[str, Any] = {"id": row.id, "run": row.run, "status": str(row.status)}
        if outcome is Outcome.ERROR:
            fields["error"] = failure_fields(failure_of(data))
        else:
            fields["result"] = plain(data)
        _emit({"outcome": fields})


class Terminal:
    """For people: records scroll by, and below them a bar for each label, drawn anew where they stand."""

    def __init__(self) -> None:
        self._bars: dict[tuple[str, str], Told] = {}
        self._drawn: list[str] = []
        self._status = ""

    def begins(self, row: WorkflowRow) -> None:
        """Another run."""
        self._bars.clear()
        self._scroll(click.style(f"{row.name}  {row.id}  run {row.run}", bold=True))

    def recorded(self, row: WorkflowRow, record: Record) -> None:
        """A record was made."""
        self._scroll(record_line(row, record))

    def progressed(self, told: list[Told]) -> None:
        """More is done."""
        for one in told:
            self._bars[one.path, one.label] = one

    def stands(self, row: WorkflowRow) -> None:
        """Where it stands, and the bars."""
        self._status = f"{row.status}" + (f": {row.detail}" if row.detail else "")
        self._draw([*(bar(one, width()) for one in self._bars.values()), shortened(clean(self._status), width())])

    def ended(self, row: WorkflowRow, outcome: Outcome, data: bytes | None) -> None:
        """How it ended."""
        self._draw([bar(one, width()) for one in self._bars.values()])
        say(f"{row.status} after {took((row.closed or row.created) - row.created)}")
        if outcome is Outcome.ERROR:
            for line in failure_lines(failure_of(data)):
                say(line)
        elif data is not None:
            say(shortened(msgspec.json.encode(plain(data)).decode(), 2000))

    def _scroll(self, line: str) -> None:
        below = self._drawn
        self._draw([])
        say(line)
        self._draw(below)

    def _draw(self, lines: list[str]) -> None:
        if lines == self._drawn:
            return
        if self._drawn:
            click.echo(f"\x1b[{len(self._drawn)}A\x1b[J", nl=False)
        for line in lines:
            say(line)
        self._drawn = lines


def bar(told: Told, room: int) -> str:
    """One line of progress."""
    mark = glyphs()
    label = shortened(clean(told.label), max(10, room - BAR - 30)).ljust(12)
    if told.total:
        cells = min(BAR, told.done * BAR // told.total)
        share = f"{min(told.done, told.total) * 100 // told.total:3d} %"
        return f"{label} {mark.bar * cells}{mark.wait * (BAR - cells)} {share}  {told.done}/{told.total}"
    return f"{label} {told.done}" if told.total is None else f"{label} {mark.bar * BAR} 100 %  0/0"
