"""An executor of the chaos run: serves both apps until it is killed, or drains on SIGTERM.

    python -m chaos.executor URL FOLDER NAME LEASE

Beside the ledgers it writes ``FOLDER/NAME.log``, JSON lines: every warning and error of the library, and one for each
write of a run that the fence refused (``refused``). SIGUSR1 and SIGUSR2 make it say where its threads and its tasks
stand, in ``FOLDER/NAME.err``.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import queue
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import perdure.sync as blocking
from chaos import bank, programs
from perdure import App
from perdure.model.writes import Receipt, Unit
from perdure.store.base import Store


class Lines:
    """A file of JSON lines, each written by one system call: whole or not at all, whoever dies."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, **line: Any) -> None:
        os.write(self._file, f"{json.dumps({**line, 'pid': os.getpid(), 'at': time.time()})}\n".encode())


class Told(logging.Handler):
    """What the library says, as lines."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if record.exc_info:
            said += "\n" + logging.Formatter().formatException(record.exc_info)
        self.lines.write(level=record.levelname, said=said)


class Counted:
    """A store that notes the writes of runs that were refused: nothing else knows how many stale ones there were."""

    def __init__(self, store: Store, lines: Lines) -> None:
        self._store = store
        self._lines = lines

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        receipt = await self._store.commit(batch, now=now)
        for unit, verdict in zip(batch, receipt.verdicts, strict=True):
            if not verdict.applied and unit.start is None and unit.claim is not None:
                self._lines.write(level="FENCE", said="refused", id=unit.key.id, run=unit.key.run)
        return receipt


def prepare(app: App | blocking.App, url: str, name: str, lease: float, lines: Lines) -> None:
    home = app._home
    bodies = "greenlets" if int(name[-1]) % 2 else "threads"  # of blocking ones, which go on in either
    home.arguments |= {"database": url, "executor_id": name, "lease": lease, "bodies": bodies}
    make = home.make_store
    home.make_store = lambda *given: Counted(make(*given), lines)  # type: ignore[assignment,return-value]


def show_tasks() -> None:
    for task in asyncio.all_tasks():
        task.print_stack()


def main(url: str, folder: str, name: str, lease: str) -> None:
    lines = Lines(Path(folder) / f"{name}.log")
    logging.getLogger("perdure").addHandler(Told(lines))
    programs.open_ledgers(Path(folder))
    bank.open_at(url)
    for app in (programs.app, programs.sync_app):
        prepare(app, url, name, float(lease), lines)
    stop: queue.SimpleQueue[int] = queue.SimpleQueue()  # a second signal within an event's ``set`` would hang
    signal.signal(signal.SIGTERM, lambda number, _: stop.put(number))
    lines.write(level="LIFE", said="born")
    faulthandler.register(signal.SIGUSR1)
    with programs.sync_app:

        async def serve() -> None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, show_tasks)
            async with programs.app:
                lines.write(level="LIFE", said="serves")
                await asyncio.to_thread(stop.get)

        asyncio.run(serve())
    lines.write(level="LIFE", said="drained")


if __name__ == "__main__":
    main(*sys.argv[1:])
