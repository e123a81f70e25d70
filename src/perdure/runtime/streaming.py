"""Appends of a run to its streams: from its body, from its steps (of any thread), and from ``track``.

Promises: what a body appends goes in the unit that records it; what a step appends goes before its outcome, or with it;
an attempt that is over appends nothing more, nor does a run that is put away; no more than so much waits to be written.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from perdure.core.run import Op
from perdure.errors import Evicted, Misuse
from perdure.model.records import Kind
from perdure.model.streams import PROGRESS
from perdure.model.writes import Append, Unit, Verdict
from perdure.runtime.context import StepContext
from perdure.runtime.deciding import Deciding

WAITING_MAX = 256  # appends of a run that wait to be written; then a step waits for room
BYTES_MAX = 1_000_000
END = b"end"  # the fingerprint of a record that closes


class Outbox:
    """What one run appends, until a unit takes it. Any thread may put; the host takes."""

    def __init__(self) -> None:
        self.waiting: deque[Append] = deque()
        self.flying: tuple[Append, ...] = ()
        self.rung = False  # the host is about to hear of it
        self.closed: dict[str, None] = {}  # streams that the body has closed
        self._size = 0  # bytes that wait or are in flight
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, int, str], int] = {}  # of what was written, by step, attempt and stream
        self._room: list[Future[None]] = []  # of those who wait until there is some

    def put(self, append: Append) -> None:
        """Let it wait for the next unit."""
        with self._lock:
            self._size += len(append.data or b"")
            self.waiting.append(append)

    def put_next(self, step: StepContext, name: str, data: bytes) -> None:
        """The same of the next value of an attempt: numbered in the order in which they wait."""
        with self._lock:
            key = (step.path, step.attempt, name)
            n = self._counts.get(key, 0)
            self._counts[key] = n + 1
            self._size += len(data)
            self.waiting.append(Append(name, step.path, n, data))

    @property
    def full(self) -> bool:
        """Whether too much waits to be written."""
        return len(self.waiting) + len(self.flying) >= WAITING_MAX or self._size >= BYTES_MAX

    def take(self) -> tuple[Append, ...]:
        """All that waits: it flies until it has landed."""
        with self._lock:
            self.flying = tuple(self.waiting)
            self.waiting.clear()
        return self.flying

    def landed(self) -> None:
        """What flew is durable, or refused."""
        with self._lock:
            self._size -= sum(len(append.data or b"") for append in self.flying)
            self.flying = ()
        self.let_go()

    def wait(self) -> Future[None]:
        """What to wait for until there is room. Of any thread; the host lets go."""
        room: Future[None] = Future()
        with self._lock:
            self._room.append(room)
        return room

    def let_go(self) -> None:
        """Let those go on who wait for room."""
        with self._lock:
            room, self._room = self._room, []
        for future in room:
            if future.set_running_or_notify_cancel():
                future.set_result(None)


class Streaming(Deciding):
    """An execution whose body and steps may append to streams."""

    outbox: Outbox | None = None  # made when first needed

    @property
    def unwritten(self) -> bool:
        """Whether anything waits to be taken (asked often: not by way of the base)."""
        return self.run.unwritten or bool(self.newborns) or (self.outbox is not None and bool(self.outbox.waiting))

    def take(self) -> Unit:
        unit = super().take()
        if self.outbox is not None and self.outbox.waiting:
            unit.appends = self.outbox.take()
        return unit

    def written(self, unit: Unit, verdict: Verdict) -> None:
        super().written(unit, verdict)
        if self.outbox is not None and unit.appends:
            self.outbox.landed()
            self.line.watcher.wrote(self.id)

    def drop(self) -> None:
        super().drop()
        if self.outbox is not None:
            self.outbox.let_go()  # to find that it is over

    def posted(self) -> Outbox:
        """The outbox, made now if there is none. Of two that are made at once, one counts."""
        if self.outbox is None:
            with _MAKING:
                if self.outbox is None:
                    self.outbox = Outbox()
        return self.outbox

    def post(self, appends: Sequence[Append]) -> None:
        """Values that go with the next unit of this run, whatever it is."""
        for append in appends:
            self.posted().put(append)

    # -- from the body

    def note_stream(self, path: str, name: str, data: bytes | None) -> None:
        """Append a value, or close the stream; travels with the next barrier."""
        box, closes = self.posted(), data is None
        again = name in box.closed
        if again and not closes:
            raise _is_closed(name, self.id)
        fingerprint, shown = (END, "end") if closes else (b"", "")
        _, new = self.run.note(path, Kind.STREAM, name, fingerprint, None, self.line.clock.now(), shown)
        if closes:
            box.closed[name] = None
        if new:
            if not again:
                box.put(Append(name, path, 0, data))
            self.dirty()

    def note_progress(self, path: str, data: bytes) -> None:
        """Append to the progress of this run, where it lives on; recorded nowhere."""
        if not self.gone and not self.run.repeats:
            self.posted().put(Append(PROGRESS, path, 0, data))
            self.dirty()

    # -- from a step

    def append_in_step(self, step: StepContext, name: str, data: bytes) -> Future[None] | None:
        """Append a value; what to wait for until there is room for more."""
        box = self.posted()
        self.check_attempt(step)
        if name in box.closed:
            raise _is_closed(name, self.id)
        box.put_next(step, name, data)
        self._ring(box)
        if not box.full:
            return None
        room = box.wait()
        self.host.bell.call(self._look_for_room)  # it may have come between the two
        return room

    def progress_in_step(self, step: StepContext, path: str, data: bytes) -> None:
        """Append to the progress of this run, while the attempt lasts."""
        op: Op = step.op
        if not self.gone and op.is_open and op.attempt == step.attempt:
            box = self.posted()
            box.put(Append(PROGRESS, path, 0, data))
            self._ring(box)

    def check_attempt(self, step: StepContext) -> None:
        """Raise in an attempt that is over: nobody waits for it, and nothing of it counts any more."""
        op: Op = step.op
        if self.gone:
            raise Evicted
        if not op.is_open or op.attempt != step.attempt:
            raise Misuse(
                f"attempt {step.attempt} of the step at {step.path} of workflow {self.id!r} is over and writes no "
                "more to a stream: it ran out of its time, or left a task or thread behind. Await what a step begins"
            )

    def _ring(self, box: Outbox) -> None:
        if not box.rung:
            box.rung = True
            self.host.bell.call(self._heard)

    def _heard(self) -> None:
        if self.outbox is not None:
            self.outbox.rung = False  # first: what is put from here on rings again
        if not self.gone:
            self.dirty()

    def _look_for_room(self) -> None:
        if self.outbox is not None and (self.gone or not self.outbox.full):
            self.outbox.let_go()


_MAKING = threading.Lock()


def _is_closed(name: str, id: str) -> Misuse:
    return Misuse(f"stream {name!r} of workflow {id!r} was closed by its body; write before close_stream({name!r})")
