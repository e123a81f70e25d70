"""Progress: how much of something is done, told now and then to a stream of the workflow that does it.

It is no part of the history: it takes no path, and a replay that counts otherwise meets nothing. Nothing is told while
a body replays, nor where there is no workflow. What it costs is bounded by how much there is to tell, not by the items.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from perdure.model.real import time
from perdure.runtime.context import STEP, StepContext, body

SECONDS_MIN = 1.0  # between two that are told
PART = 100  # of the total: with so much more done it is worth telling; without a total a twentieth more than before


class Told(msgspec.Struct, frozen=True):
    """One value of the stream ``perdure:progress``."""

    label: str
    done: int
    total: int | None
    path: str = ""  # of the step that tells; "" for the body


class Progress:
    """One loop under way."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._told = -1
        self._next = 0  # how much must be done before it is worth looking at the clock
        self._at = 0.0
        self._execution: Any = None
        self._step: StepContext | None = None

    def begin(self) -> None:
        """Before the first item."""
        self._execution = body()
        if self._execution is None and (step := STEP.get()) is not None:
            self._execution, self._step = step.execution, step
        self._tell()

    def advance(self) -> None:
        """An item is done."""
        self._done += 1
        if self._done >= self._next and time.monotonic() >= self._at:
            self._tell()

    def end(self) -> None:
        """After the last."""
        if self._told != self._done or self._total is None:
            self._total = self._done
            self._tell()

    def _tell(self) -> None:
        self._told = self._done
        more = self._total // PART if self._total else self._done // 20
        self._next = self._done + max(1, more)
        self._at = time.monotonic() + SECONDS_MIN
        execution, step = self._execution, self._step
        if execution is None:
            return
        told = Told(self._label, self._done, self._total, "" if step is None else step.path)
        word, data = f"~{secrets.token_hex(6)}", msgspec.json.encode(told)
        if step is None:
            execution.note_progress(word, data)
        else:
            execution.progress_in_step(step, word, data)


_told = msgspec.json.Decoder(Told)


def read_told(data: bytes) -> Told | None:
    """A value of the stream, as it was told; None for what is not one."""
    try:
        return _told.decode(data)
    except msgspec.DecodeError:
        return None
