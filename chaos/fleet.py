"""The processes of a chaos run: executors and clients, started, killed, stopped, and started again when they have died.

A process that dies without having been told to is a finding, except one that could not open the database.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DRAIN_SECONDS = 60.0  # of two apps, one after the other
NOT_NOW = tuple(f"perdure.errors.{name}" for name in ("DatabaseTrouble", "LostAnswer", "Overloaded"))


@dataclass
class Member:
    """One executor or client, through all its lives."""

    name: str
    command: list[str]
    folder: Path
    executor: bool
    process: subprocess.Popen[bytes] | None = None
    again_at: float = 0.0  # monotonic: not started before
    told_to_die: bool = False
    stopped: bool = False
    done: bool = False
    lives: int = 0
    findings: list[str] = field(default_factory=list)
    left: dict[int, str] = field(default_factory=dict)  # pids that ended by themselves as they should, and why

    @property
    def pid(self) -> int:
        """0 if it is not alive."""
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    @property
    def at_work(self) -> bool:
        """Alive, as far as its faults go."""
        return bool(self.pid) and not self.stopped and not self.told_to_die

    def start(self) -> None:
        with (self.folder / f"{self.name}.err").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=err, stderr=err
            )  # fmt: skip
        self.told_to_die = self.stopped = False
        self.lives += 1

    def signal(self, number: int) -> int:
        """The pid that was hit, 0 if there was none."""
        pid = self.pid
        if pid:
            os.kill(pid, number)
            if number in (signal.SIGKILL, signal.SIGTERM):
                self.told_to_die = True
            self.stopped = number == signal.SIGSTOP
        return pid

    def see_to(self) -> None:
        """Start it again if it has died and may live."""
        if self.process is None:
            if not self.done and time.monotonic() >= self.again_at:
                self.start()
            return
        code, pid = self.process.poll(), self.process.pid
        if code is None:
            return
        self.process = None
        self.again_at = max(self.again_at, time.monotonic() + (0.0 if self.told_to_die else 0.3))
        self.done = code == 0 and not self.executor
        if self.done or (code == 0 and self.told_to_die):
            self.left[pid] = "its work was done, or it had drained"
        elif code > 0 and self.could_not_open():
            self.left[pid] = "its launch met a database that did not answer"
        elif code >= 0 or not self.told_to_die:
            self.findings.append(f"{self.name} ended by itself with {code}: {self.last_words()}")

    def last_words(self) -> str:
        path = self.folder / f"{self.name}.err"
        return path.read_text(errors="replace")[-1500:].strip() if path.exists() else ""

    def could_not_open(self) -> bool:
        """Whether it ended because the database did not answer at launch: who starts it is told, and tries again."""
        return any(
            line.startswith(NOT_NOW) for line in self.last_words().splitlines()[-6:]
        )  # its text may have several

    def end(self, seconds: float) -> None:
        """Drain, and kill what does not."""
        if self.process is None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for number in (signal.SIGUSR2, signal.SIGUSR1) if self.executor else ():
                self.process.send_signal(number)
                time.sleep(0.5)
            self.findings.append(f"{self.name} did not drain within {seconds:g} s: {self.last_words()}")
            self.process.kill()
            self.process.wait()


class Fleet:
    """All members."""

    def __init__(self, executors: list[Member], clients: list[Member]) -> None:
        self.executors = executors
        self.clients = clients

    @property
    def members(self) -> list[Member]:
        return [*self.executors, *self.clients]

    def see_to(self) -> None:
        for member in self.members:
            member.see_to()

    @property
    def findings(self) -> list[str]:
        return [finding for member in self.members for finding in member.findings]

    def end(self) -> None:
        for member in self.executors:  # all at once, so that they drain side by side
            with contextlib.suppress(ProcessLookupError):
                member.signal(signal.SIGCONT)
                member.signal(signal.SIGTERM)
        for member in self.members:
            member.end(DRAIN_SECONDS)
