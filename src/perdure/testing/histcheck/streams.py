"""What the parts of a test note of themselves: the ledger, the clients' history, the faults.

Each is a file that many processes append to: one line a write, synced before the next thing happens, so that a process
that is killed has told the truth up to there. Every line carries ``t`` (seconds by a clock that all processes of the
machine share and that never goes back) and ``at`` (microseconds of the wall clock, comparable with the audit's).

ledger   ``{"phase": "begin"|"end", "w": id, "run": 1, "path": "2.1", "attempt": 1, "name": …, "key": …, "e": …,
          "claim": hex, "owner": hex, "pid": 123, "args": …, "once": false, "result": …}``; begin and end share ``e``
history  ``{"c": client, "i": number of the call, "type": "invoke"|"ok"|"fail"|"unknown", "op": "start", "w": id,
          "args": …, "value": …, "error": type name}``
faults   ``{"fault": "kill", "whom": pid, label or id, "effective": true, …}``; ``{"fault": "heal"}``: all are over
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from perdure.api.app import App
from perdure.errors import DatabaseTrouble, OutsideWorkflow, ResultTimeout
from perdure.model.ids import idempotency_key
from perdure.runtime.context import STEP
from perdure.runtime.executor import Executor

UNKNOWN = (DatabaseTrouble, ResultTimeout, ConnectionError, TimeoutError)  # errors that leave open what happened


class Stream:
    """A file of lines. ``keep`` keeps them in memory as well, or instead (``path`` None)."""

    def __init__(self, path: str | os.PathLike[str] | None = None, *, keep: bool = False) -> None:
        self.lines: list[dict[str, Any]] = []
        self._keep = keep or path is None
        self._fd = None if path is None else os.open(Path(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def now(self) -> tuple[float, int]:
        """(``t``, ``at``) of a line written now."""
        return time.monotonic(), time.time_ns() // 1000

    def write(self, line: dict[str, Any]) -> None:
        """Append a line; it is on the disk when this returns."""
        t, at = self.now()
        line = {"t": t, "at": at, **line}
        if self._keep:
            self.lines.append(line)
        if self._fd is not None:
            os.write(self._fd, msgspec.json.encode(line) + b"\n")
            os.fsync(self._fd)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Effect:
    """What a step does outside, under way. ``result`` is noted with its end."""

    def __init__(self) -> None:
        self.result: Any = None


class Ledger(Stream):
    """Outside effects of the steps of one app. One for each process, all on one file; knows which step asks.

    >>> # @shop.step
    >>> # async def charge(cents: int) -> str:
    >>> #     with ledger.effect("charge", args=[cents]) as effect:
    >>> #         effect.result = await gateway.charge(cents)
    >>> #     return effect.result
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, app: App | None = None, keep: bool = False
    ) -> None:
        super().__init__(path, keep=keep)
        self._app = app
        self._count = itertools.count(1)

    @contextmanager
    def effect(self, name: str, *, args: Any = None, once: bool = False) -> Generator[Effect, None, None]:
        """Note the begin, and the end unless the process dies or the step fails. ``once``: ``at_most_once``."""
        step = STEP.get()
        if step is None:
            raise OutsideWorkflow(f"ledger.effect({name!r}) was called outside a step; it notes what a step does")
        claim, owner = self.holder(step.key.id)
        line = {
            "e": f"{os.getpid()}-{next(self._count)}", "w": step.key.id, "run": step.key.run, "path": step.path,
            "attempt": step.attempt, "name": name, "key": idempotency_key(step.lineage, step.path), "claim": claim,
            "owner": owner, "pid": os.getpid(), "args": args, "once": once,
        }  # fmt: skip
        self.write({"phase": "begin", **line})
        effect = Effect()
        yield effect
        self.write({"phase": "end", **line, "result": effect.result})

    def holder(self, id: str) -> tuple[str, str]:
        """(claim, incarnation) under which a workflow runs in this process, in hexadecimal; "" where not known."""
        executor = self.executor()
        execution = None if executor is None else executor.executions.get(id)
        if executor is None or execution is None or execution.claim is None:
            return "", ""
        return execution.claim.hex(), executor.me.id.hex()

    def executor(self) -> Executor | None:
        """The executor that runs the step which asks."""
        home = None if self._app is None else self._app._home  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  the app's own line
        return home.engine().executor if home is not None and home.is_open else None


class ClientHistory(Stream):
    """What one client (``name``, unique among all) asked and was answered; calls may overlap.

    >>> # with history.call("start", "order-42", args=[1]) as call:
    >>> #     handle = await checkout.options(id="order-42").start(1)
    >>> #     call.value = handle.id
    """

    def __init__(self, name: str, path: str | os.PathLike[str] | None = None, *, keep: bool = False) -> None:
        super().__init__(path, keep=keep)
        self.name = name
        self._count = itertools.count(1)

    @contextmanager
    def call(self, op: str, w: str, args: Any = None, **more: Any) -> Generator[Call, None, None]:
        """Note a call and its answer. An error is noted and raised: ``unknown`` if it may have happened."""
        call = Call()
        line = {"c": self.name, "i": next(self._count), "op": op, "w": w, "args": args, **more}
        self.write({"type": "invoke", **line})
        try:
            yield call
        except BaseException as error:
            known = isinstance(error, Exception) and not isinstance(error, UNKNOWN)
            said = {"error": type(error).__name__, "value": str(error)[:500]}
            self.write({"type": "fail" if known else "unknown", **line, **said})
            raise
        self.write({"type": "ok", **line, "value": call.value})


class Call:
    """A client's call under way. ``value`` is noted with the answer."""

    def __init__(self) -> None:
        self.value: Any = None


class FaultLog(Stream):
    """What was done to the system under test."""

    def note(self, fault: str, whom: str = "", *, effective: bool = True, **more: Any) -> None:
        """One fault, done now (``kill``, ``stop``, ``continue``, ``restart`` …); ``effective``: it hit work."""
        self.write({"fault": fault, "whom": whom, "effective": effective, **more})

    def heal(self) -> None:
        """All faults are over, and executors are alive: from here on everything must come to an end."""
        self.note("heal")
