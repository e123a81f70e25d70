"""A process may fork at any time while threads of ours are within SQLite: the child can use SQLite itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FORKS = """
import asyncio, os, signal, sys
import apsw
from perdure.store.sqlite import SQLiteStore


async def main(path: str) -> None:
    first = SQLiteStore(path, "forks")
    await first.open()
    await first.migrate()
    opening = [asyncio.create_task(open_again(path)) for _ in range(4)]
    for _ in range(60):
        await asyncio.sleep(0)
        if (child := os.fork()) == 0:
            signal.alarm(20)  # one that waits for a lock of a thread that it has not would wait for ever
            apsw.Connection(path).execute("select * from meta").fetchall()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, "it ended by itself"
        await first.rows(["a"])
    for one in opening:
        one.cancel()
    await asyncio.gather(*opening, return_exceptions=True)
    await first.close()
    print("all did")


async def open_again(path: str) -> None:
    while True:
        store = SQLiteStore(path, "forks")
        await store.open()
        await store.rows(["a"])
        await store.close()


asyncio.run(main(sys.argv[1]))
"""


def test_children_of_a_process_whose_threads_open_and_close_files(tmp_path: Path) -> None:
    program = [sys.executable, "-c", FORKS, str(tmp_path / "perdure.db")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout == "all did\n", done.stderr
