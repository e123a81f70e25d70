"""``perdure demo``: a real order is run by a real process, which is really killed in the middle of a step.

Nothing here is staged: this process only watches the database and the ledger of effects that the steps write, sends
SIGKILL, starts another process, and checks what came of it. It waits for what the other process says, never for time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import click

from perdure.cli.exits import Code, Exit
from perdure.cli.output import clean, glyphs, say, took
from perdure.cli.story import Story, read_story
from perdure.cli.timeline import draw
from perdure.config import file_url
from perdure.model.records import Kind
from perdure.serde import show_stored
from perdure.store.open import open_store

ORDER = "order-1"
STEPS = (
    "check_stock", "reserve", "charge", "write_invoice", "book_courier", "pack", "hand_over", "thank_customer",
)  # fmt: skip
VICTIM = "book_courier"  # the step in whose middle the process is killed
PATIENCE = 30.0  # seconds that a process may be silent
FOLDER = ".perdure-demo"


@click.command()
@click.option("--keep", is_flag=True, help=f"Keep the database, in ./{FOLDER}, to look at it afterwards.")
def demo(keep: bool) -> None:
    """See a workflow survive kill -9: an order in eight steps, killed in the middle, finished by another process.

    Takes about five seconds, needs nothing, leaves nothing behind. Exits with 0 only if all that it claims was so.
    """
    with _folder(keep) as folder:
        good = asyncio.run(Demo(folder).play())
        if keep:
            say(f"\nKept in ./{FOLDER}; try: perdure workflow show {ORDER} --database {FOLDER}/demo.db")
    if not good:
        raise click.exceptions.Exit(int(Code.NO))


@contextlib.contextmanager
def _folder(keep: bool) -> Generator[Path, None, None]:
    if keep:
        folder = Path.cwd() / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="perdure-demo-") as name:
        yield Path(name)


class Shop:
    """A process that runs the shop (``demo_order``): its words, a line each; the process is gone when this is left."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.process = process
        self.errors = errors

    @property
    def pid(self) -> int:
        return self.process.pid

    async def hear(self) -> list[str]:
        """The next line. Raises ``Exit`` showing what the process complained of if it ends or falls silent."""
        assert self.process.stdout is not None
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        except TimeoutError:
            line = b""
        if not line:
            said = self.errors.read_text(encoding="utf-8", errors="replace")[-4000:]
            raise Exit(Code.NO, f"the shop's process {self.pid} fell silent; it said:\n{said}")
        return line.decode().rstrip("\n").split("\t")

    async def kill(self) -> int:
        """Send SIGKILL, which no program can catch; its exit status, once it is dead."""
        os.kill(self.pid, signal.SIGKILL)
        return await self.process.wait()

    async def leave(self) -> None:
        """Let it end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), PATIENCE)


class Demo:
    """One performance, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "effects.jsonl"
        self.database = file_url(folder / "demo.db")
        self.store = open_store(self.database, "demo")
        self.shown = 0
        self.checks: list[tuple[bool, str]] = []

    async def play(self) -> bool:
        """Run it. Whether all that it claims was so."""
        await self.store.open()
        try:
            await self.store.migrate()
            say(click.style("An order of eight steps, each with an effect outside. Its database is a file.", bold=True))
            say("One process runs it and is killed by SIGKILL in the middle of step 5;")
            say("another process, which knows only the database, finishes it.")
            interrupted = await self._first()
            story = await self._second(interrupted)
            self._effects(interrupted, story)
            return self._verdict()
        finally:
            await self.store.close()

    # -- the acts

    async def _first(self) -> Story:
        """Run the order in a process until it is in the middle of the step, and kill it there."""
        async with self._shop("--slow", VICTIM) as shop:
            while (words := await shop.hear()) != ["began", VICTIM]:
                if words[0] == "open":
                    say(f"\nprocess {shop.pid} runs {ORDER}:")
                await self._show_recorded()
            await self._show_recorded()
            say(f"  {glyphs().flight} {_number(VICTIM)} {VICTIM} is under way: the courier was called, no answer yet")
            status = await shop.kill()
            dead = _is_dead(shop.pid)
        say(click.style(f"\n{glyphs().failed} kill -9 {shop.pid}", fg="red", bold=True) + _told_dead(dead, status))
        story = await read_story(self.store, ORDER)
        recorded = _recorded(story)
        say(f"  in the database: {ORDER} is {story.row.status}, {len(recorded)} of {len(STEPS)} steps are recorded")
        self._check(dead and status == -signal.SIGKILL, "the process was killed by SIGKILL, and is dead")
        self._check(recorded == list(STEPS[: STEPS.index(VICTIM)]), "the steps before it were recorded, it was not")
        return story

    async def _second(self, interrupted: Story) -> Story:
        """Start another process; it takes over what the dead one left."""
        began = time.monotonic()
        async with self._shop() as shop:
            say(f"\nprocess {shop.pid} is started:")
            first = ""
            while (words := await shop.hear())[0] != "result":
                if words[0] == "began" and not first:
                    first = words[1]
                    after = took(int((time.monotonic() - began) * 1e6))
                    say(
                        f"  {glyphs().again} took over {ORDER} at {_number(first)} {first}, {after} after its own start"
                    )
                await self._show_recorded(again=VICTIM)
            await self._show_recorded(again=VICTIM)
            story = await read_story(self.store, ORDER)
            self._check(first == VICTIM, f"the other process resumed at {VICTIM}, the step in flight")
            self._check(_recorded(story) == list(STEPS), "each of the eight steps is recorded exactly once")
            self._check(story.row.status == "completed", f"{ORDER} is completed")
            say(click.style(f"\n$ perdure workflow show {ORDER}", bold=True))
            for line in draw(story):
                say(line)
            await shop.leave()
        return story

    def _effects(self, interrupted: Story, story: Story) -> None:
        """What the outside world saw: the ledger is written by the steps, not by the library."""
        say(click.style("\nWhat the outside world saw (the ledger that the steps wrote):", bold=True))
        lines = [json.loads(line) for line in self.ledger.read_text(encoding="utf-8").splitlines()]
        for step in STEPS:
            keys = [line["key"] for line in lines if line["step"] == step]
            times = f"{len(keys)} time{'' if len(keys) == 1 else 's'}"
            if step != VICTIM:
                say(f"  {step.ljust(15)} ran exactly {times}" if len(keys) == 1 else f"  {step.ljust(15)} ran {times}")
                self._check(len(keys) == 1, f"{step} ran exactly 1 time")
                continue
            say(f"  {step.ljust(15)} ran {times}: it was in flight when the process died, and")
            same = len(set(keys)) == 1
            say(f"  {'':15} nobody knows if the courier heard. Its idempotency key was")
            say(f"  {'':15} {'the same' if same else 'NOT the same'} both times, so the courier sees one booking:")
            say(f"  {'':15} {clean(keys[0])}")
            self._check(len(keys) == 2 and same, f"{step} ran 2 times, under one idempotency key")

    def _check(self, good: bool, claim: str) -> None:
        self.checks.append((good, claim))

    def _verdict(self) -> bool:
        failed = [claim for good, claim in self.checks if not good]
        if failed:
            say(click.style("\nNot as it should be:", fg="red", bold=True))
            for claim in failed:
                say(f"  {glyphs().failed} it was claimed, and is not so: {claim}")
            return False
        say(
            click.style(
                f"\n{glyphs().done} all {len(self.checks)} checks held: nothing lost, nothing recorded done twice.",
                fg="green",
            )
        )
        return True

    # -- the means

    @contextlib.asynccontextmanager
    async def _shop(self, *arguments: str) -> AsyncGenerator[Shop, None]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
        errors = self.folder / f"shop-{len(list(self.folder.iterdir()))}.log"
        with errors.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "perdure.cli.demo_order", ORDER, str(self.ledger), *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=file, cwd=self.folder,
                env=environment | {"PERDURE_DATABASE_URL": self.database, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        try:
            yield Shop(process, errors)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _show_recorded(self, again: str = "") -> None:
        """Print what has become durable since the last look; read from the database, as any other process could."""
        rows = await self.store.rows([ORDER])
        if ORDER not in rows:
            return
        key = rows[ORDER].key
        records = [r for r in (await self.store.histories([key]))[key] if r.kind is Kind.STEP]
        for record in records[self.shown :]:
            call = f"{record.name}({record.shown})"
            value = show_stored(record.data or b"null", 30)
            text = f"{_number(record.name)} {call}" + ("" if value == "null" else f" {glyphs().arrow} {value}")
            suffix = ", run again" if record.name == again else ""
            say(f"  {click.style(glyphs().done, fg='green')} {clean(text).ljust(54)} recorded{suffix}")
        self.shown = len(records)


def _number(step: str) -> str:
    return f"{STEPS.index(step) + 1}/{len(STEPS)}"


def _recorded(story: Story) -> list[str]:
    return [record.name for record in story.records if record.kind is Kind.STEP]


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _told_dead(dead: bool, status: int) -> str:
    if not dead:
        return ": it is still there"
    return f": the process is dead (signal {-status}); nothing was cleaned up"
