"""One connection to Postgres: made when it is first needed, and again after it broke.

Promises: statements are prepared once per connection under plans that no later growth of a table spoils; a broken or
cancelled call never leaves the connection in an unknown state, for it is dropped and the next call makes another; a
connection that is open on this side only does not hold a call for longer than a few seconds. Behind a transaction
pooler (``pooler.py``) nothing is left to a session: each call is a transaction of its own, with its settings, unnamed.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar
from urllib.parse import parse_qsl, urlsplit

from perdure.config import masked
from perdure.errors import ConfigError, DatabaseTrouble, DatabaseUnusable, NotOpen
from perdure.store.postgres.pooler import BEGIN, begin_with, is_between, settings_of, way_of
from perdure.store.postgres.trouble import loses_connection, sqlstate, translate, unreached
from perdure.store.postgres.types import connection_class

T = TypeVar("T")
log = logging.getLogger("perdure")

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 40.0  # longer than the server's own bound, which is the one that should strike
DOUBT_SECONDS = 4.0  # without an answer, until the server is asked whether it still knows the connection
SETTINGS = {
    "application_name": "perdure",
    # A plan made for an empty table is ruinous for a full one, and a generic plan by key is right for both.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
    "statement_timeout": "30000",
    "lock_timeout": "10000",
    "idle_in_transaction_session_timeout": "10000",  # a stopped process must not keep its locks
    # What an administrator may have set otherwise for a role, a database or the server. A transaction locks, then reads
    # what is so by now: on an older snapshot it would miss what was committed while it waited.
    "default_transaction_isolation": "read committed",
    "idle_session_timeout": "0",  # a connection that listens is idle
    "standard_conforming_strings": "on",
    "row_security": "off",  # to be refused what policies would hide: a row that is not seen is taken for gone
}
# One connection writes for all runs of a process: who waits there lets all wait, and a user's transaction may keep an
# id or a key for as long as it likes.
WRITING = {**SETTINGS, "lock_timeout": "500"}
_WRONG_URL = {
    "28000": "Correct user and password, or let the user in (pg_hba.conf).",
    "28P01": "The password is wrong, or the user. In a URL / # ? @ % of a password must be percent-encoded.",
    "42704": "Leave out of the URL what neither the driver nor the server knows, which must be Postgres 14 or newer.",
    "3D000": "Correct its name, or make it: createdb NAME.",
}


HOW_TO_WRITE = (
    "Give postgresql://user@host:port/database, a password after the user and a colon. In a password "
    "/ # ? @ % must be percent-encoded: %2F %23 %3F %40 %25."
)


class Statement(Protocol):
    """A prepared statement of asyncpg."""

    async def fetch(self, *args: Any, timeout: float | None = None) -> list[Any]: ...
    async def fetchrow(self, *args: Any, timeout: float | None = None) -> Any: ...
    async def executemany(self, args: Sequence[Any], *, timeout: float | None = None) -> None: ...


class Connection(Protocol):
    """What is used of asyncpg's connection, which has no types of its own."""

    async def prepare(self, query: str, *, name: str | None = None) -> Statement: ...
    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str: ...
    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]: ...
    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Any: ...
    async def fetchval(self, query: str, *args: Any, timeout: float | None = None) -> Any: ...
    async def executemany(self, command: str, args: Sequence[Any], *, timeout: float | None = None) -> None: ...
    async def close(self, *, timeout: float | None = None) -> None: ...
    def terminate(self) -> None: ...
    def is_closed(self) -> bool: ...
    async def add_listener(self, channel: str, callback: Callable[..., object]) -> None: ...
    def add_termination_listener(self, callback: Callable[..., object]) -> None: ...
    def get_server_pid(self) -> int: ...
    def get_server_version(self) -> Any: ...
    def get_settings(self) -> Any: ...


def driver() -> Any:
    """asyncpg, or a clear word about how to get it."""
    try:
        return importlib.import_module("asyncpg")
    except ImportError as e:
        raise ConfigError(
            "a Postgres database needs the asyncpg driver. Install it with: pip install 'perdure[postgres]'"
        ) from e


def place(url: str) -> str:
    """Host, port and database of a URL, for messages."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2] or "localhost"
        named = host if "," in host or parts.port else f"{host}:5432"
        return masked(url) if "@" in parts.query else f"{named}{parts.path or '/'}"
    except ValueError:
        return masked(url)


def refuse_garbled(url: str) -> None:
    """Refuse a URL that means something else than its writer thought. Raises ``ConfigError`` without any part of it.

    A character of the password that ends it early would leave the rest as a port, a path or an option, which the
    driver, or the server, would tell in full.
    """
    try:
        parts = urlsplit(url)
        hosts = parts.netloc.rpartition("@")[2].split(",")
        ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts]
        garbled = bool(parts.fragment) or "@" in parts.path or parts.netloc.count("@") > 1
        garbled = garbled or any(port and not port.isdecimal() for port in ports)
        if parts.query:
            parse_qsl(parts.query, strict_parsing=True)
    except ValueError:
        garbled = True
    if garbled:
        raise ConfigError(f"the database URL {masked(url)} cannot be read. {HOW_TO_WRITE}") from None


class Link:
    """A connection and the lock that keeps its calls one after another."""

    __slots__ = (
        "_asking", "_begin", "_conn", "_doubts", "_lock", "_made", "_open", "_settings", "_statements", "pooled", "url",
        "way", "where",
    )  # fmt: skip

    def __init__(self, url: str, settings: Mapping[str, str] = SETTINGS) -> None:
        self._settings = settings
        self._begin = begin_with(settings)  # behind a transaction pooler; more of it where the server knows more
        self.way = way_of(url)
        self.url = self.way.url
        self.where = place(self.url)
        self.pooled = self.way.pooler == "transaction"  # as far as the latest connection has shown
        self._conn: Connection | None = None
        self._statements: dict[str, Statement] = {}
        self._lock = asyncio.Lock()
        self._doubts: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._open = False
        self._made: list[Callable[[Connection], Awaitable[None]]] = []

    def open(self) -> None:
        self._open = True

    async def close(self) -> None:
        self._open = False
        conn, self._conn = self._conn, None
        self._statements = {}
        if conn is not None and not conn.is_closed():
            try:
                await conn.close(timeout=2)
            except BaseException as e:
                conn.terminate()
                if not isinstance(e, Exception):
                    raise

    @property
    def live(self) -> bool:
        """Whether it is connected."""
        return self._conn is not None and not self._conn.is_closed()

    def when_made(self, prepare: Callable[[Connection], Awaitable[None]]) -> None:
        """Do something on each new connection, such as listening."""
        self._made.append(prepare)

    # -- calls: each takes the lock, reconnects if need be, and raises what a store may raise

    async def fetch(self, sql: str, *args: Any, writing: bool = False) -> list[Any]:
        async with self._lock:
            try:
                with self._doubted():
                    statement = await self.prepare(sql)
                    if statement is None:
                        async with self._transaction() as tx:
                            return await tx.fetch(sql, *args)
                    return await statement.fetch(*args, timeout=ANSWER_SECONDS)
            except BaseException as e:
                self.fail(e, writing=writing)

    async def fetchrow(self, sql: str, *args: Any, writing: bool = False) -> Any:
        async with self._lock:
            try:
                with self._doubted():
                    statement = await self.prepare(sql)
                    if statement is None:
                        async with self._transaction() as tx:
                            return await tx.fetchrow(sql, *args)
                    return await statement.fetchrow(*args, timeout=ANSWER_SECONDS)
            except BaseException as e:
                self.fail(e, writing=writing)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """A transaction. Trouble at or before its end may hide a commit: every break in it is a lost answer."""
        async with self._lock:
            try:
                with self._doubted():
                    async with self._transaction() as tx:
                        yield tx
            except BaseException as e:
                self.fail(e, writing=True)

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[Transaction]:
        """The same; the lock is held."""
        tx = Transaction(self, await self.connection())
        await tx.execute(self._begin if self.pooled else BEGIN)
        try:
            yield tx
            await tx.execute("commit")
        except Exception as e:
            if not isinstance(e, OSError | asyncio.TimeoutError) and not tx.broken:
                with suppress(Exception):
                    await tx.execute("rollback")
            raise

    async def raw(
        self, work: Callable[[Connection], Awaitable[T]], *, writing: bool = False, transacts: bool = False
    ) -> T:
        """Something that is no prepared statement. ``transacts``: it begins and ends transactions itself."""
        async with self._lock:
            try:
                with self._doubted():
                    conn = await self.connection()
                    if transacts or not self.pooled:
                        return await work(conn)
                    async with self._transaction():
                        return await work(conn)
            except BaseException as e:
                self.fail(e, writing=writing)

    # -- a server that is gone and did not say so (its end was lost on the way) leaves calls without an answer

    @contextmanager
    def _doubted(self) -> Generator[None]:
        """While a call is under way: every few seconds, make sure that the server knows of it."""
        self._doubts = asyncio.get_running_loop().call_later(DOUBT_SECONDS, self._doubt)
        try:
            yield
        finally:
            self._doubts.cancel()

    def _doubt(self) -> None:
        loop = asyncio.get_running_loop()
        self._doubts = loop.call_later(DOUBT_SECONDS, self._doubt)
        if self._conn is not None and not self.pooled and (self._asking is None or self._asking.done()):
            self._asking = loop.create_task(self._ask_after(self._conn))

    async def _ask_after(self, conn: Connection) -> None:
        """Drop the connection if the server has no such session; a call under way then fails at once."""
        with suppress(Exception):  # unreachable just now: nothing is known, and asked again later
            other: Connection = await driver().connect(self.url, timeout=DOUBT_SECONDS, statement_cache_size=0)
            try:
                if await is_between(other):
                    return  # its sessions are not the server's
                known = await other.fetchval(
                    "select exists (select from pg_stat_activity where pid = $1)",
                    conn.get_server_pid(),
                    timeout=DOUBT_SECONDS,
                )
            finally:
                other.terminate()
            if not known and conn is self._conn and not conn.is_closed():
                log.warning(
                    "Postgres at %s no longer knows a connection that is open here; it is made anew", self.where
                )
                conn.terminate()

    # -- the connection itself; the lock is held

    async def prepare(self, sql: str) -> Statement | None:
        """The statement; None behind a pooler, where none is kept."""
        statement = self._statements.get(sql)
        if statement is None or self._conn is None or self._conn.is_closed():
            conn = await self.connection()
            if self.pooled:
                return None
            # A name of its own: an unnamed statement would be parsed and planned at each call.
            statement = self._statements[sql] = await conn.prepare(sql, name=f"perdure_{len(self._statements)}")
        return statement

    async def connection(self) -> Connection:
        """The live connection, made if there is none."""
        if self._conn is not None and not self._conn.is_closed():
            return self._conn
        if not self._open:
            raise NotOpen(f"the store of {self.where} is not open; await its open() first")
        self._conn, self._statements = None, {}
        tries = 2  # a server, or a pooler, may end a connection that it has just made
        while True:
            tries -= 1
            try:
                conn = self._conn = await self._ready_one()
                return conn
            except Exception as e:
                if not tries or isinstance(e, DatabaseTrouble) or not loses_connection(e):
                    self.fail(e, writing=False)

    async def _ready_one(self) -> Connection:
        """One that has been made, and made ready."""
        try:
            conn = await self._connect()
        except Exception as e:
            raise DatabaseTrouble(unreached(e, self.where)) from e
        try:
            await self._make_ready(conn)
        except BaseException:  # it would be one that does not listen, or has no name
            conn.terminate()
            raise
        return conn

    async def _make_ready(self, conn: Connection) -> None:
        if self.way.pooler is None:
            self.pooled = await is_between(conn)
        if (more := settings_of(conn.get_server_version().major)) and not self.pooled:
            await conn.execute("; ".join(f"set {name} = '{value}'" for name, value in more.items()))
        self._begin = begin_with({**self._settings, **more})
        for prepare in self._made:
            if self.pooled:
                await conn.execute("begin")
            await prepare(conn)
            if self.pooled:
                await conn.execute("commit")

    async def _connect(self) -> Connection:
        asyncpg = driver()
        connect = partial(
            asyncpg.connect, self.url, timeout=CONNECT_SECONDS, statement_cache_size=0,
            connection_class=connection_class(asyncpg.Connection),
        )  # fmt: skip
        try:
            conn: Connection = await connect(server_settings=self._settings)
        except Exception as e:
            if sqlstate(e) in _WRONG_URL:
                raise
            if "unsupported startup parameter" not in str(e):
                raise
            conn = await connect()  # a pooler that takes no settings: transactions have them
            if self.way.pooler == "session":
                await conn.execute("; ".join(f"set {name} = '{value}'" for name, value in self._settings.items()))
        return conn

    async def check(self) -> None:
        """Connect now; a URL that can never work is the user's to mend."""
        async with self._lock:
            try:
                await self.connection()
            except DatabaseTrouble as e:
                cause = e.__cause__
                if cause is not None and (todo := _WRONG_URL.get(sqlstate(cause))):
                    said = f"the database URL {masked(self.url)} does not work: {cause}. {todo}"
                    raise DatabaseUnusable(said) from cause
                if isinstance(cause, ValueError):
                    # What is not the driver's own may cite any part of the URL.
                    words = str(cause) if type(cause) is not ValueError else "the driver cannot read it"
                    said = f"the database URL {masked(self.url)} does not work: {words}. {HOW_TO_WRITE}"
                    raise ConfigError(said) from None
                raise

    def fail(self, error: BaseException, *, writing: bool) -> NoReturn:
        """Drop the connection if it must not be used again, and raise what a store may raise."""
        conn = self._conn
        closed = conn is None or conn.is_closed()
        told = translate(error, self.where, writing=writing, closed=closed, role=role_of(conn))
        if conn is not None and loses_connection(error) and _is_of_driver(error, closed):
            self._conn, self._statements = None, {}
            conn.terminate()
        if told is error:
            raise error
        raise told from error


def _is_of_driver(error: BaseException, closed: bool) -> bool:
    """Whether an error says something of the connection; a value that cannot be encoded was never sent."""
    return closed or bool(sqlstate(error)) or not isinstance(error, ValueError | TypeError)


def role_of(conn: Connection | None) -> str:
    """Who is connected, for messages; "" if that is not known."""
    try:
        return "" if conn is None else str(conn.get_settings().session_authorization)
    except Exception:  # a server behind a pooler may not have told
        return ""


class Transaction:
    """Statements within ``Link.transaction``."""

    __slots__ = ("_conn", "_link")

    def __init__(self, link: Link, conn: Connection) -> None:
        self._link = link
        self._conn = conn

    @property
    def broken(self) -> bool:
        return self._conn.is_closed()

    async def execute(self, sql: str) -> None:
        await self._conn.execute(sql, timeout=ANSWER_SECONDS)

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        statement = await self._link.prepare(sql)
        if statement is None:
            return await self._conn.fetch(sql, *args, timeout=ANSWER_SECONDS)
        return await statement.fetch(*args, timeout=ANSWER_SECONDS)

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        statement = await self._link.prepare(sql)
        if statement is None:
            return await self._conn.fetchrow(sql, *args, timeout=ANSWER_SECONDS)
        return await statement.fetchrow(*args, timeout=ANSWER_SECONDS)

    async def ask(self, sql: str, *args: Any, seconds: int) -> list[Any]:
        """A statement that is made for this once, planned with its values, and may take so long."""
        await self.execute(f"set local statement_timeout = '{seconds}s'")
        return await self._conn.fetch(sql, *args, timeout=seconds + ANSWER_SECONDS)

    async def fetch_many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """The same statement for many rows, in one round trip."""
        statement = await self._link.prepare(sql)
        if statement is None:
            await in_task(self._conn.executemany(sql, rows, timeout=ANSWER_SECONDS))
        else:
            await in_task(statement.executemany(rows, timeout=ANSWER_SECONDS))


async def in_task(call: Coroutine[Any, Any, None]) -> None:
    """Await what needs a task, as the driver does to send more than its buffers hold. A commit is driven in none."""
    if asyncio.current_task() is not None:
        await call
        return
    task = asyncio.ensure_future(call)
    try:
        await task
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])  # before anything else is asked of this connection
        raise
