"""Writing in a transaction of somebody else's: what a store asks of a session, whatever the session's driver.

A store knows the words, the session's adapter (``perdure.sessions``) knows the driver, and which face the caller has
decides who waits. So what is written within a caller's own transaction is a generator: it yields one request at a
time, is sent the answer, and returns what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Statement(NamedTuple):
    """Run this SQL (parameters are ``$1``, ``$2`` …); answered with its rows, as tuples."""

    sql: str
    parameters: tuple[Any, ...] = ()


class Job(NamedTuple):
    """Call this with the driver's own connection, in the thread that owns it; answered with what it gives."""

    run: Callable[[Any], Any]


Request = Statement | Job
Within = Generator[Request, Any, T]
