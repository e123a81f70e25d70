"""A process to be stopped or killed while it has a SQLite file's write lock: python -m tests.faults.holder FILE HOW

HOW: ``turn``, as an executor that stands still in the middle of a write has it; ``lock``, as another program has it.
Prints ``held`` once it has it, and keeps it until it is ended.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import apsw

from perdure.store.sqlite.file import turn_path
from perdure.store.sqlite.turn import Turn


def main(file: str, how: str) -> None:
    turn = Turn(turn_path(Path(file)))
    conn: Any = apsw.Connection(file)
    conn.set_busy_timeout(10_000)
    if how == "turn":
        turn.take(10)
    conn.execute("begin immediate")
    print("held", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
