"""What is known of a session, and how the rest of the house speaks to one.

Promises: rows come back as plain tuples whatever the user has set for his own; nothing of the user's settings is left
changed; a session belongs to whoever calls, and is used in his thread or on his loop only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar

from perdure.store.within import Job, Statement, Within

T = TypeVar("T")
Dialect = Literal["postgres", "sqlite"]
Rows = list[tuple[Any, ...]]

_NUMBER = re.compile(r"\$(\d+)")


class Session(Protocol):
    """A session that blocks."""

    kind: str  # for messages
    dialect: Dialect
    given: Any  # what the body gets

    def execute(self, sql: str, parameters: Sequence[Any]) -> Rows: ...
    def job(self, run: Callable[[Any], Any]) -> Any:
        """Call with the driver's own connection."""
        ...

    def begin(self) -> None:
        """Begin a transaction if none is open; on SQLite one that may write from the first."""
        ...

    def restart(self) -> None:
        """End the transaction that a question has begun, unless the source had begun it: the body's is a new one."""
        ...

    def mark(self) -> None:
        """Before the body: remember which transaction it is."""
        ...

    def kept(self) -> bool:
        """After the body: whether that transaction is still the one that is open, as far as can be seen here for free.

        A connection that broke is left to whoever uses it next.
        """
        ...

    def flush(self) -> None:
        """Send what the toolkit holds back."""
        ...

    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def in_transaction(self) -> bool:
        """Whether what is executed now waits for a commit of the caller's."""
        ...


class AsyncSession(Protocol):
    """The same of one that is awaited."""

    kind: str
    dialect: Dialect
    given: Any

    async def execute(self, sql: str, parameters: Sequence[Any]) -> Rows: ...
    async def job(self, run: Callable[[Any], Any]) -> Any: ...
    async def begin(self) -> None: ...
    async def restart(self) -> None: ...
    async def mark(self) -> None: ...
    async def kept(self) -> bool: ...
    async def flush(self) -> None: ...
    async def commit(self) -> None: ...
    async def rollback(self) -> None: ...
    async def in_transaction(self) -> bool: ...


def run(session: Session, flow: Within[T]) -> T:
    """Run what is to be written within a session's transaction."""
    answer: Any = None
    while True:
        try:
            request = flow.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value
        answer = session.job(request.run) if isinstance(request, Job) else session.execute(*request)


async def arun(session: AsyncSession, flow: Within[T]) -> T:
    """The same, awaited."""
    answer: Any = None
    while True:
        try:
            request = flow.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value
        answer = await (session.job(request.run) if isinstance(request, Job) else session.execute(*request))


def rendered(sql: str, parameters: Sequence[Any], style: str) -> tuple[str, Any]:
    """``$1`` in the style of a driver (DB-API names), and the parameters as it takes them."""
    match style:
        case "numeric_dollar":
            return sql, tuple(parameters)
        case "pyformat":
            text = _NUMBER.sub(r"%(p\1)s", sql.replace("%", "%%"))
            return text, {f"p{n}": value for n, value in enumerate(parameters, 1)}
        case "format" | "qmark":
            mark = "?" if style == "qmark" else "%s"
            text = sql if style == "qmark" else sql.replace("%", "%%")
            order = [int(n) - 1 for n in _NUMBER.findall(text)]
            return _NUMBER.sub(mark, text), tuple(parameters[n] for n in order)
        case _:
            raise ValueError(f"a driver with parameters in the style {style!r} is not known here")


# On SQLite a savepoint tells one transaction from another, and costs nothing: no other has it.
MARK = "savepoint perdure_body"
UNMARK = "release perdure_body"
_NO_MARK = "no such savepoint"


def still_marked(execute: Callable[[str], object]) -> bool:
    """Whether the transaction that was marked is open; the mark is taken off."""
    try:
        execute(UNMARK)
    except Exception as error:
        if _NO_MARK in str(error):
            return False
        raise
    return True


def ask(sql: str, *parameters: Any) -> Within[Rows]:
    """One statement, as a flow."""
    rows: Rows = yield Statement(sql, parameters)
    return rows
