"""Apps of perdure.sync that are open when the process ends are closed, each of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import atexit, sys
from perdure import sync

def app(name):
    made = sync.App(name, database=f"sqlite:///{sys.argv[1]}/{name}.db")
    @made.resource
    def resource():
        yield name
        print("closed", name, flush=True)
        if name == "broken":
            raise RuntimeError("cannot be closed")
    return made

apps = [app(name) for name in ("first", "broken", "last", "closed")]
atexit.register(print, "of the user's, before")
for each in apps:
    each.open()
apps[-1].close()
"""

MANY = """
import atexit, sys, gc, weakref
from perdure import sync

kept = sync.App("kept", database=f"sqlite:///{sys.argv[1]}/kept.db")
hooks = weakref.WeakSet()
register = atexit.register

def registered(hook, *given):
    hooks.add(hook)
    return register(hook, *given)

atexit.register = registered
for _ in range(3):
    with kept:
        pass
gc.collect()
print(len(hooks))
"""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, str(folder)], check=False, capture_output=True, text=True, timeout=60
    )


def test_each_that_is_open_is_closed_the_last_first(tmp_path: Path) -> None:
    """Also if one was closed before, and if one cannot be."""
    done = run(PROGRAM, tmp_path)
    assert done.stdout.splitlines() == [
        "closed closed", "closed last", "closed broken", "closed first", "of the user's, before",
    ]  # fmt: skip
    assert "RuntimeError: cannot be closed" in done.stderr


def test_what_is_opened_and_closed_leaves_no_hook(tmp_path: Path) -> None:
    done = run(MANY, tmp_path)
    assert done.stdout.split() == ["0"], done.stderr
