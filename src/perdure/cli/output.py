"""What commands print: tables for people, versioned JSON for programs; never a password, never a stray escape.

Promises:
- ``json`` is one document ``{"version": 1, "workflows": […]}``, ``jsonl`` one ``{"version": 1, "workflow": …}`` a line,
  ``ids`` one id a line; fields are only ever added within a version;
- no colour unless the stream is a terminal (``NO_COLOR`` is obeyed), no glyph that the stream's encoding lacks;
- text from the database is shown without control characters, and passwords in URLs are blotted out everywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import click
import msgspec

from perdure.model.info import info_of, to_datetime
from perdure.model.records import WorkflowRow
from perdure.model.states import Status
from perdure.serde import show_stored

VERSION = 1
FORMATS = ("table", "json", "jsonl", "ids")
WIDTH_PLAIN = 120  # of text that goes to a file or a pipe
_WHOLE = 10_000_000  # longer than any payload

# Up to the last @ of the word: a password may hold what belongs percent-encoded.
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)\S+(?=@)", re.IGNORECASE)
_KEY_PASSWORD = re.compile(r"(\bpassword=)[^\s&'\"]+", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def redacted(text: str) -> str:
    """Text with the passwords of database URLs blotted out."""
    return _KEY_PASSWORD.sub(r"\1********", _URL_PASSWORD.sub(r"\1********", text))


def clean(text: str) -> str:
    """Text of one line without control characters: what rows hold must not steer a terminal."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def shortened(text: str, limit: int) -> str:
    """Text of at most ``limit`` characters."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + glyphs().more[: max(limit, 0)]


class Glyphs(NamedTuple):
    """Marks that the terminal can show."""

    done: str
    failed: str
    flight: str
    again: str
    rule: str
    bar: str
    wait: str
    more: str
    arrow: str


_FULL = Glyphs("✓", "✗", "▸", "↻", "─", "█", "░", "…", "→")
_ASCII = Glyphs("+", "x", ">", "~", "-", "#", ".", "~", "->")


def glyphs() -> Glyphs:
    """The marks that standard output can show."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "".join(_FULL).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _FULL


def width() -> int:
    """How wide a line may be."""
    return max(60, shutil.get_terminal_size().columns) if sys.stdout.isatty() else WIDTH_PLAIN


class Unwritable(OSError):
    """The output cannot be written: its disk is full."""


def say(text: str = "", *, err: bool = False) -> None:
    """Print a line. Colour is taken out where nobody would see it. Raises ``Unwritable``; a closed pipe is click's."""
    try:
        click.echo(text, err=err, color=False if os.environ.get("NO_COLOR") else None)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritable(*error.args) from error


def drop_output() -> None:
    """What could not be written is not tried again when the process ends."""
    with contextlib.suppress(OSError, ValueError):  # no file at all
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """A remark for people, beside the answer: on standard error. Nothing fails for it."""
    with contextlib.suppress(OSError):  # a full disk, a terminal that is gone
        say(redacted(f"perdure: {text}"), err=True)


# -- time


def instant(at: int | None) -> str:
    """A time for people, in UTC to the second."""
    return "" if at is None else f"{to_datetime(at):%Y-%m-%d %H:%M:%S}Z"


def at_second(when: datetime) -> str:
    """The same of a datetime."""
    return f"{when:%Y-%m-%d %H:%M:%S}Z"


def moment(at: int) -> str:
    """A time for people, in UTC to the millisecond."""
    return f"{to_datetime(at):%Y-%m-%d %H:%M:%S}.{at // 1000 % 1000:03d}Z"


def took(us: int) -> str:
    """A duration for people: two figures are enough."""
    ms = us / 1000
    if ms < 1000:
        return f"{max(ms, 0):.0f} ms"
    seconds = ms / 1000
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if hours < 2:
        return f"{minutes:.0f} m {seconds % 60:.0f} s"
    return f"{hours:.0f} h {minutes % 60:.0f} m" if days < 2 else f"{days:.0f} d {hours % 24:.0f} h"


# -- values


def plain(data: bytes | None) -> Any:
    """Stored JSON as plain JSON: tags as they stand, secrets hidden; text that says so where it cannot be read."""
    if data is None:
        return None
    text = show_stored(data, _WHOLE)
    try:
        return json.loads(text)
    except ValueError:
        return text


def workflow_fields(row: WorkflowRow) -> dict[str, Any]:
    """A workflow as programs see it."""
    fields: dict[str, Any] = msgspec.to_builtins(info_of(row))
    fields["records"] = fields.pop("steps")
    return fields


# -- emitting


def document(**fields: Any) -> str:
    """One versioned JSON document."""
    data = msgspec.json.encode({"version": VERSION, **fields})
    return msgspec.json.format(data, indent=2).decode()


def emit_many(
    output: str, kind: str, rows: Sequence[dict[str, Any]], lines: Iterable[str], *, id: str = "id",
    one: str | None = None, **extra: Any,
) -> None:  # fmt: skip
    """Print a list: ``lines`` for people, else the rows; ``kind`` is their plural.

    ``one``: what a row is called on a line of its own, where that is not ``kind`` without its last letter. ``extra``
    are further fields of the JSON document.
    """
    match output:
        case "json":
            say(document(**{kind: list(rows)}, **extra))
        case "jsonl":
            for row in rows:
                say(msgspec.json.encode({"version": VERSION, one or kind.removesuffix("s"): row}).decode())
        case "ids":
            for row in rows:
                # What was not made has none: it must not become an argument of the next command.
                if row[id] not in (None, ""):
                    say(clean(str(row[id])))
        case _:
            for line in lines:
                say(line)


def emit_one(output: str, kind: str, fields: dict[str, Any], lines: Iterable[str], *, id: str = "id") -> None:
    """Print one thing: ``lines`` for people, else its fields."""
    match output:
        case "json":
            say(document(**{kind: fields}))
        case "jsonl":
            say(msgspec.json.encode({"version": VERSION, kind: fields}).decode())
        case "ids":
            if fields[id] is not None:
                say(clean(str(fields[id])))
        case _:
            for line in lines:
                say(line)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], empty: str, *, paint: int | None = None) -> list[str]:
    """Lines of aligned columns, the last one cut to the width. ``paint``: the column that holds a status."""
    if not rows:
        return [empty]
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(head[at]), *(len(row[at]) for row in cells)) for at in range(len(head))]
    room = max(20, width() - sum(widths[:-1]) - 2 * (len(head) - 1))
    lines = [click.style("  ".join(text.upper().ljust(widths[at]) for at, text in enumerate(head)).rstrip(), bold=True)]
    for row in cells:
        row[-1] = shortened(row[-1], room)
        padded = [text.ljust(widths[at]) if at + 1 < len(row) else text for at, text in enumerate(row)]
        if paint is not None:
            padded[paint] = painted(row[paint], padded[paint])
        lines.append("  ".join(padded).rstrip())
    return lines


_COLOURS: dict[str, str] = {
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.TERMINATED: "red",
    Status.TIMED_OUT: "red",
    Status.HELD: "magenta",
    Status.RUNNING: "blue",
    Status.WAITING: "cyan",
    Status.CANCELLED: "yellow",
}


def painted(status: str, text: str | None = None) -> str:
    """A status in its colour."""
    colour = _COLOURS.get(status)
    shown = status if text is None else text
    return click.style(shown, fg=colour) if colour else shown
