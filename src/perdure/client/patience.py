"""Patience: how long a call from outside waits for a database that does not answer, and what it says in the end.

It counts from the database's last answer, so what takes its time while the database answers (a workflow, a step that a
pause waits for) is not cut off by it. ``bounded.py`` has who waits by it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from perdure.errors import DatabaseUnavailable

NOTHING = "Nothing was changed by this call, and nothing will be: repeat it when the database is back"
UNKNOWN = "Whether this call took effect, or will yet, is unknown: "


class Patience:
    """Of one call."""

    __slots__ = ("advice", "may_be", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.may_be = False  # whether something that was sent may have taken effect
        self.advice = ""

    def ends(self, why: object = None) -> DatabaseUnavailable:
        """The error for a call whose patience is at its end; ``why``: what the database said last."""
        said = f": {str(why).rstrip('.')}" if why is not None else ""
        known = f"{UNKNOWN}{self.advice or 'look before you repeat it'}" if self.may_be else NOTHING
        return DatabaseUnavailable(
            f"the database has not answered for {self.seconds:g} s (patience){said}. {known}", unknown=self.may_be
        )


@contextmanager
def part(advice: str, *, begun: bool = False) -> Generator[None]:
    """A part of a call that asks several times: what to do if its effect is unknown; it is once it has ``begun``."""
    try:
        yield
    except DatabaseUnavailable as error:
        if not (begun or error.unknown):
            raise
        said = str(error).partition(NOTHING)[0].partition(UNKNOWN)[0]
        raise DatabaseUnavailable(f"{said}{UNKNOWN}{advice}", unknown=True) from error
