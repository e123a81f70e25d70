"""Would this history replay on this code? The body is driven over it, and nothing else happens.

Promises:
- no effect, write, start, send or wait: the same core and the same bodies, over a host that does nothing;
- a body is driven until history is used up and it is quiet, then put away: ``finally`` blocks of user code run, as at
  an eviction, and whatever they call is refused;
- the verdict shows the recorded call beside the call that the code makes, with its line;
- a body that blocks or never comes to rest costs a thread and a bounded time, not the executor: ``unknown``.

It sees what the engine compares (kind, name, arguments, order), so arithmetic that changed between two calls passes.
"""

from __future__ import annotations

import asyncio
import contextvars
import linecache
import queue
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from types import CodeType, FrameType
from typing import Any

import msgspec

from perdure.client.questions import StartOrder
from perdure.core.run import Op, Run
from perdure.definitions import Registry
from perdure.errors import Evicted, NotDurable, Unserializable
from perdure.model.real import time
from perdure.model.records import Outcome, Record, WorkflowRow
from perdure.model.states import Reason
from perdure.model.writes import GiveUp
from perdure.runtime.async_body import NEVER_WAKES, AsyncExecution
from perdure.runtime.context import THREAD
from perdure.runtime.execution import Execution
from perdure.runtime.pasts import Past
from perdure.runtime.process_facts import facts_of
from perdure.runtime.sync_body import SyncExecution
from perdure.runtime.unawaited import Unawaited
from perdure.runtime.unread import in_words, why_unread
from perdure.runtime.waits import ContinueAsNew

CHECK_SECONDS = 10.0  # of one replay; a history of 2,000 records takes a tenth of one
_USERS = ("perdure.cli", "perdure.testing")  # modules of ours that hold bodies, as a user's do


class Finding(StrEnum):
    """What a replay came to."""

    SAFE = "safe"
    MISMATCH = "nondeterminism"  # the code makes another call than history has
    UNDECODABLE = "undecodable"  # the input, or a recorded value, does not fit the code
    NO_CODE = "no_code"
    NO_STATE = "no_state"  # of a process: its scheme has no more the state in which it stands
    ENDED = "ended_early"  # the body is over while history goes on
    RAISED = "raised"  # the body raises what history knows nothing of
    UNKNOWN = "unknown"  # it blocked, or did not come to rest in time


class Verdict(msgspec.Struct, frozen=True):
    """What a replay came to, for people: both sides in words, and where the code makes its call."""

    finding: Finding
    detail: str = ""
    recorded: str = ""
    called: str = ""
    where: str = ""  # file:line
    line: str = ""  # what stands there
    path: str = ""  # of the call that differs

    @property
    def safe(self) -> bool:
        return self.finding is Finding.SAFE


SAFE = Verdict(Finding.SAFE)
Place = tuple[str, int]


def replay(
    registry: Registry,
    row: WorkflowRow,
    input: bytes,
    history: Sequence[Record],
    *,
    version: str = "",
    executor_id: str = "",
    seconds: float = CHECK_SECONDS,
) -> Verdict:
    """Drive the body over its history, in this thread, which must run no event loop.

    >>> # replay(app_registry, row, b'[["42"],{}]', history).finding
    """
    return _Trial(registry, row, input, history, version, executor_id, seconds).run()


# -- a host that does nothing


class _Loop:
    """As much of an event loop as an execution asks of its host's."""

    def __init__(self) -> None:
        self.ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self.ready.append((callback, args))

    def time(self) -> float:
        return 0.0


class _Line:
    """The line of a run that reaches no database; also its clock, which stands still."""

    def __init__(self, app: str) -> None:
        self.loop = _Loop()
        self.clock = self
        self.app = app

    def now(self) -> int:
        return 0  # only for records that nobody keeps

    def new_token(self) -> bytes:
        return bytes(16)


class _Host:
    """An executor that runs nothing."""

    def __init__(self, registry: Registry, executor_id: str) -> None:
        self.line = _Line("")
        self.registry = registry
        self.executor_id = executor_id
        self.context = contextvars.Context()

    def start_child(self, parent: Execution, order: StartOrder, id: str, path: str) -> None:
        """A child that the body starts past the end of its history."""

    def cancel_elsewhere(self, parent: Execution, told: GiveUp) -> None:
        """A child that the body cancels there."""


class _Run(Run):
    """A run that remembers where the code makes its calls."""

    __slots__ = ("last", "places", "refused_at")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.places: dict[str, Place] = {}
        self.refused_at: Place | None = None
        self.last: Record | None = None  # the latest outcome that was handed over

    def noticed(self, path: str, place: Place | None) -> None:
        if place is not None:
            self.places[path] = place

    def ask(self, op: Op) -> None:
        self.noticed(op.path, _place())
        super().ask(op)

    def next_delivery(self, *, only_asked: bool = False) -> tuple[Op | None, Record] | None:
        delivery = super().next_delivery(only_asked=only_asked)
        if delivery is not None:
            self.last = delivery[1]
        return delivery

    def _refuse(self, path: str, recorded: str, called: str) -> None:
        self.refused_at = _place() or self.places.get(path)
        super()._refuse(path, recorded, called)


class _Checked(Execution):
    """What both faces have in common here: nothing is begun, nothing written, and the end is a verdict."""

    verdict: Verdict | None = None
    run: _Run

    def conclude(self, verdict: Verdict) -> None:
        if self.verdict is None:
            self.verdict = verdict
        self.gone = self.run.gone = True

    def dirty(self) -> None:
        """Nothing is written."""

    def begin(self, op: Op) -> None:
        """Nothing is begun."""

    def arm_deadline(self) -> None:
        """Time stands still."""

    def call_made(self, call: Coroutine[Any, Any, Any], what: str, path: str = "") -> None:
        frame = _user_frame() or sys._getframe()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  there is no other way
        if path:
            self.run.noticed(path, (frame.f_code.co_filename, frame.f_lineno))
        if self.unawaited is None:
            self.unawaited = Unawaited()
        self.unawaited.note(call, what, frame, path)

    def hold(self, reason: Reason, detail: str) -> None:
        self.conclude(self._why(detail))

    def _why(self, detail: str) -> Verdict:
        mismatch = self.run.mismatch
        if mismatch is None:
            return _verdict(Finding.UNDECODABLE, detail)
        if self.final is not None:
            return self._over(mismatch.recorded)
        at = self.run.refused_at
        if at is None:  # a quiet body: where it waits instead
            asked = next(iter(self.run.asked), None)
            at = self.run.places.get(asked) if asked is not None else None
        found = _verdict(Finding.MISMATCH, str(mismatch), at, mismatch.recorded, mismatch.called)
        return msgspec.structs.replace(found, path=mismatch.path)

    def _over(self, recorded: str) -> Verdict:
        """The body is over, and history goes on."""
        _, error = self.final or (None, None)
        if error is None or isinstance(error, ContinueAsNew):
            called = "the end of the body" if error is None else "continue_as_new"
            return _verdict(Finding.ENDED, f"history has {recorded}; the code has {called}", None, recorded, called)
        said = f"an exception: {_said(error)}"
        detail = f"history has {recorded}; the code has {said}"
        return _verdict(Finding.RAISED, detail, _raised_at(error), recorded, said)

    def try_finish(self) -> None:
        """History is used up, and the body is over: as it would be, unless it fails for a reason of its own."""
        _, error = self.final or (None, None)
        if self.unawaited is not None and (error is None or isinstance(error, ContinueAsNew)):
            error = self.unawaited.error() or error
        failed = self.run.last is not None and self.run.last.outcome is Outcome.ERROR
        if error is None or isinstance(error, ContinueAsNew) or failed or self.cancel_delivered:
            self.conclude(SAFE)
        else:
            said = f"an exception: {_said(error)}"
            self.conclude(
                _verdict(Finding.RAISED, f"past its history, the code has {said}", _raised_at(error), called=said)
            )


class _CheckedAsync(_Checked, AsyncExecution):
    """An async body."""

    def _go_on(self) -> None:
        if self.run.asked or self.loop.pending():
            self.conclude(SAFE)
        else:
            self.final = (None, NotDurable(NEVER_WAKES))
            self.try_finish()

    def touched(self, error: NotDurable) -> None:
        """By somebody outside of the check, who is told; nothing of this body is kept."""


class _CheckedSync(_Checked, SyncExecution):
    """A blocking body, in the thread of whoever checks."""

    def begin_body(self) -> None:
        args, kwargs = self.definition.args.decode(self.input)
        value: Any = None
        error: BaseException | None = None
        before, THREAD.execution = THREAD.execution, self
        try:
            value = self.host.context.run(self.definition.fn, *args, **kwargs)
        except BaseException as raised:
            error = raised
        finally:
            THREAD.execution = before
        self._body_ended(value, error)

    def _live(self, op: Op) -> Record:
        self.conclude(SAFE)
        raise Evicted

    def on_host(self, call: Callable[[], Any]) -> Any:
        return call()

    def put_away(self) -> None:
        """It has left its body already."""


class _Trial:
    """One replay: made where it is asked for, run in a thread that it may keep."""

    def __init__(
        self,
        registry: Registry,
        row: WorkflowRow,
        input: bytes,
        history: Sequence[Record],
        version: str,
        executor_id: str,
        seconds: float,
    ) -> None:
        self._registry = registry
        self._row = row
        self._input = input
        self._history = history
        self._version = version
        self._executor_id = executor_id
        self._seconds = seconds
        self._execution: _CheckedAsync | _CheckedSync | None = None

    def run(self) -> Verdict:
        row, registry = self._row, self._registry
        definition = registry.workflows.get(row.name)
        if definition is None:
            known = ", ".join(sorted(registry.workflows)) or "none"
            return _verdict(Finding.NO_CODE, f"the code has no workflow {row.name!r} (it has: {known})")
        if unread := why_unread(self._input, self._history, registry.codec):
            return _verdict(Finding.UNDECODABLE, unread)
        try:
            if definition.process is not None:
                lost = facts_of(definition, self._input, self._history).missing
                if lost:
                    return _verdict(Finding.NO_STATE, lost)
            if not (self._history or row.intents or row.started is not None):
                definition.args.decode(self._input)  # never begun: there is nothing to contradict
                return SAFE
            return self.drive()
        except Exception as error:
            if isinstance(error, Unserializable):
                return _verdict(Finding.UNDECODABLE, in_words("its input", error, registry.codec))
            return _verdict(Finding.RAISED, f"it could not be begun: {_said(error)}", _raised_at(error))

    def drive(self) -> Verdict:
        """The body over its history; every call that it makes here is made under this frame."""
        row, until = self._row, time.monotonic() + self._seconds
        definition = self._registry.workflows[row.name]
        run = _Run.of(row, self._version, self._history, again=True)
        host = _Host(self._registry, self._executor_id)
        face = _CheckedAsync if definition.is_async else _CheckedSync
        execution = self._execution = face(host, definition, run, row, self._input)
        ready = host.line.loop.ready
        try:
            execution.begin_body()
            while execution.verdict is None:
                if time.monotonic() > until or not ready:
                    execution.conclude(_late(self._seconds, None))
                    break
                callback, args = ready.popleft()
                callback(*args)
        except (KeyboardInterrupt, SystemExit) as error:  # of the body's: only they leave its loop
            execution.conclude(_verdict(Finding.RAISED, f"the code has {_said(error)}", _raised_at(error)))
        finally:
            execution.gone = run.gone = True
            execution.put_away()
        assert execution.verdict is not None, "it is over"
        return execution.verdict

    def abandon(self) -> None:
        """Nobody waits for the answer any more: whatever the body calls from here on is refused."""
        if self._execution is not None:
            self._execution.gone = self._execution.run.gone = True


_DRIVERS: frozenset[CodeType] = frozenset({_Trial.drive.__code__})


# -- from a loop


class Replayer:
    """Checks histories from an event loop that goes on meanwhile: one after the other, in a thread of its own."""

    def __init__(
        self, registry: Registry, *, version: str = "", executor_id: str = "", seconds: float = CHECK_SECONDS
    ) -> None:
        self._registry = registry
        self._version = version
        self._executor_id = executor_id
        self._seconds = seconds
        self._work: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._thread: threading.Thread | None = None

    async def check(self, past: Past) -> Verdict:
        """One replay; ``unknown`` if it takes too long."""
        return (await self.check_all([past]))[0]

    async def check_all(self, pasts: Sequence[Past]) -> list[Verdict]:
        """Replays one after the other, each with its own time; the thread of one that takes too long is left to itself.

        A batch is one hand-over between threads: the loop has other work, and may take its time to look.
        """
        found: list[Verdict] = []
        while len(found) < len(pasts):
            found += await self._run(pasts[len(found) :])
        return found

    async def _run(self, pasts: Sequence[Past]) -> list[Verdict]:
        """The verdicts up to the first that is late, if one is."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        trials = [_Trial(self._registry, *past, self._version, self._executor_id, self._seconds) for past in pasts]
        found: list[Verdict] = []

        def work() -> None:
            for trial in trials:
                if done.cancelled():
                    return
                found.append(trial.run())
            if not loop.is_closed():
                loop.call_soon_threadsafe(_tell, done)

        self._submit(work)
        try:
            while True:
                before = len(found)
                ready, _ = await asyncio.wait([done], timeout=self._seconds + 1.0)
                if ready:
                    return found
                if len(found) == before:
                    return [*found[:before], _late(self._seconds, self._stands_at())]
        finally:
            if not done.done():
                done.cancel()
                for trial in trials:
                    trial.abandon()
                self.close()

    def close(self) -> None:
        """Let the thread end when it has nothing more to do."""
        if self._work is not None:
            self._work.put(None)
        self._work = self._thread = None

    def _submit(self, work: Callable[[], None]) -> None:
        if self._work is None:
            self._work = queue.SimpleQueue()
            self._thread = threading.Thread(target=_serve, args=(self._work,), name="perdure-replay", daemon=True)
            self._thread.start()
        self._work.put(work)

    def _stands_at(self) -> Place | None:
        thread = self._thread
        frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  there is no other way
        frame = frames.get(thread.ident or 0) if thread is not None else None
        return None if frame is None else _place(frame)


def _tell(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _serve(work: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := work.get()) is not None:
        job()


# -- words and places


def _verdict(finding: Finding, detail: str, at: Place | None = None, recorded: str = "", called: str = "") -> Verdict:
    if at is None:
        return Verdict(finding, detail, recorded, called)
    where, line = f"{at[0]}:{at[1]}", linecache.getline(*at).strip()
    return Verdict(finding, f"{detail} ({where})", recorded, called, where, line)


def _late(seconds: float, at: Place | None) -> Verdict:
    return _verdict(
        Finding.UNKNOWN, f"the body did not come to rest within {seconds:g} s: it blocks, or goes round for ever", at
    )


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _raised_at(error: BaseException) -> Place | None:
    """The last line of user code that the exception passed."""
    places = [
        (frame.f_code.co_filename, number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if not _ours(frame)
    ]
    return places[-1] if places else None


def _ours(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    top = name.partition(".")[0]
    return top in ("asyncio", "threading") or (top == "perdure" and not name.startswith(_USERS))


def _user_frame(frame: FrameType | None = None) -> FrameType | None:
    """The innermost frame that is neither ours nor asyncio's; None for a call in a task of its own."""
    if frame is None:
        frame = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  there is no other way
    while frame is not None and _ours(frame):
        if frame.f_code in _DRIVERS:
            return None
        frame = frame.f_back
    return frame


def _place(frame: FrameType | None = None) -> Place | None:
    found = _user_frame(frame)
    return None if found is None else (found.f_code.co_filename, found.f_lineno)
