"""A forked child is no executor: it has its parent's memory, not its threads, its identity or its connections.

Promise: in the child every app that was open is closed, so that using it says so; it may be opened again there, as a
new incarnation. Nothing is renewed, claimed or written with the parent's identity.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What must know that it is in a forked child now."""

    def forked(self) -> None: ...


_open: weakref.WeakSet[Forked] = weakref.WeakSet()


def mind(what: Forked) -> None:
    """Tell ``what`` when it finds itself in a forked child."""
    _open.add(what)


def _in_child() -> None:
    for what in list(_open):
        what.forked()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
