"""How far a batch is: a bar where a terminal is, JSON lines where a program asked for them, else only its end."""

from __future__ import annotations

import sys

import click
import msgspec

from perdure.cli.output import VERSION, clean, glyphs, say, shortened, width
from perdure.model.batches import BatchInfo

BAR = 30  # cells


class Shower:
    """Shows nothing; the other two show what comes."""

    lines = False

    def goes_on(self, info: BatchInfo) -> None:
        """A chunk was carried out."""

    def ended(self) -> None:
        """Nothing more will come."""


class Lines(Shower):
    """One JSON a line, for each change."""

    lines = True

    def __init__(self) -> None:
        self._seen: BatchInfo | None = None

    def goes_on(self, info: BatchInfo) -> None:
        if info != self._seen:
            self._seen = info
            say(msgspec.json.encode({"version": VERSION, "batch": info}).decode())


class Bar(Shower):
    """A bar that is drawn anew where it stands."""

    def __init__(self) -> None:
        self._drawn = ""

    def goes_on(self, info: BatchInfo) -> None:
        line = bar(info, width())
        if line != self._drawn:
            click.echo(f"\r\x1b[K{line}", nl=False)
            self._drawn = line

    def ended(self) -> None:
        if self._drawn:
            click.echo()


def bar(info: BatchInfo, room: int) -> str:
    """One line of progress."""
    mark = glyphs()
    settled = info.total - info.waiting
    cells = BAR if not info.total else settled * BAR // info.total
    share = 100 if not info.total else settled * 100 // info.total
    bad = f", {info.failed} failed" if info.failed else ""
    text = f"{info.verb} {mark.bar * cells}{mark.wait * (BAR - cells)} {share:3d} %  {settled}/{info.total}{bad}"
    return shortened(clean(text), room)


def shower(output: str, *, follows: bool = False) -> Shower:
    """Who shows it. ``follows``: a command that does nothing else writes lines wherever no terminal is."""
    terminal = output == "table" and sys.stdout.isatty()
    if terminal:
        return Bar()
    return Lines() if follows or output == "jsonl" else Shower()
