"""Two threads beside the host loop: one writes, one reads; each owns one connection.

Promises:

- A job is one whole function, run inside one transaction: one hop to the thread and one back, whatever it does. Answers
  that are ready together wake the loop once.
- The host loop never waits for the file, with one exception: a write that is alone is made on the spot while writes are
  quick (``pace.py``), if no lock, no checkpoint and no earlier job is to be waited for.
- A write job is committed, and synced to the disk, before it is answered; or it raised and nothing of it is there; or
  ``LostAnswer`` says that this is unknown.
- Waiting for locks is bounded by ``PATIENCE`` from the call; trouble with the file closes the connection, and the next
  job opens a new one.
- After a fork nothing here can be used by the child, and its copies are never closed (that would touch the files).
  SQLite itself can be: nobody forks while a thread of ours is within it, whose locks no child could open again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import apsw

from perdure.errors import ConfigError, DatabaseTrouble, LostAnswer, Misuse, NotOpen, Overloaded, SchemaMismatch
from perdure.model.real import time
from perdure.store.sqlite import driver, file
from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.headroom import Headroom
from perdure.store.sqlite.health import lock_holder, room
from perdure.store.sqlite.log import Identity, Log, identity
from perdure.store.sqlite.pace import Pace
from perdure.store.sqlite.turn import Turn
from perdure.store.sqlite.unheard import unheard_of

log = logging.getLogger("perdure")

PATIENCE: Final = 4.5  # seconds that a call waits for locks
MOVED: Final = "this app was moved"  # what the fence says of an app that lives in another database by now
HINT_EVERY: Final = 0.025  # seconds between two looks at whether another process wrote

T = TypeVar("T")
Job = Callable[[Connection], Any]


class Answers:
    """Carries results from the threads to the loop; those that pile up while it is busy arrive in one call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._done: deque[tuple[Lane, asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._ringing = False

    def put(self, lane: Lane, future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
        self._done.append((lane, future, value, error))
        if not self._ringing:  # set before the call, cleared before the deque is emptied: no answer is left behind
            self._ringing = True
            self.ring(self._deliver)

    def ring(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(callback)

    def _deliver(self) -> None:
        self._ringing = False
        while self._done:
            lane, future, value, error = self._done.popleft()
            lane.unanswered -= 1
            if future.done():  # cancelled by its caller
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)


class Lane:
    """A thread that owns a connection and runs the jobs it is sent, in order."""

    name = "lane"
    _saves_log = False

    def __init__(self, path: Path, answers: Answers) -> None:
        self.path = path
        self.conn: Connection | None = None
        self._answers = answers
        self._jobs: queue.SimpleQueue[tuple[asyncio.Future[Any], Job | None, float]] = queue.SimpleQueue()
        self._file: Identity | None = None  # that was opened last
        self._log = Log(path)
        self._closed = False
        self._forked = False
        self._opened = False
        self.within = threading.Lock()  # held by whoever is within SQLite, by this connection
        self.unanswered = 0  # jobs; counted on the loop
        self._thread = threading.Thread(target=self._main, name=f"perdure-{self.name}", daemon=True)
        _lanes.add(self)
        self._thread.start()

    def submit(self, job: Job | None) -> asyncio.Future[Any]:
        """Run ``job`` in its turn; None ends the thread after what was sent before."""
        if self._forked:
            raise Misuse("this store was opened before a fork; open a new one in the child process")
        if self._closed:
            raise NotOpen("the store is closed; open it first")
        self._closed = job is None
        future = self._answers.loop.create_future()
        self.unanswered += 1
        self._jobs.put((future, job, time.monotonic() + PATIENCE))
        return future

    @property
    def closed(self) -> bool:
        """Whether the thread was told to end, or is the parent's."""
        return self._closed or self._forked

    # -- in the thread

    def perform(self, conn: Connection, job: Job, deadline: float) -> Any:
        """Run one job in a transaction."""
        raise NotImplementedError

    def idle(self) -> None:
        """Called between jobs, at least each ``HINT_EVERY`` once there is someone to tell."""

    @property
    def patience(self) -> float | None:
        """How long to wait for the next job before ``idle``."""
        return None

    def connect(self, deadline: float) -> Connection:
        """A connection set up for durability."""
        conn = driver.connect(self.path)
        try:
            conn.set_busy_timeout(_millis(deadline))
            file.check_ours(conn, self.path)
            self._file = identity(self.path)
            conn.pragma("synchronous", "full")
            conn.pragma("fullfsync", True)  # on macOS a sync ends in the drive's cache without it; elsewhere it is void
            conn.pragma("foreign_keys", False)
            conn.pragma("cache_size", -32_000)
            conn.pragma("temp_store", "memory")
        except BaseException:
            conn.close()
            raise
        return conn

    def disconnect(self) -> None:
        conn, self.conn = self.conn, None
        if conn is not None:
            self._log.let_go()
            with contextlib.suppress(apsw.Error):
                if self._log.index_lost:  # by an old index its end would empty the log of what others have written
                    driver.leave_log(conn)
                    if self._saves_log:
                        log.error("%s", self._log.trouble_with_index())
                conn.close()

    def end(self) -> None:
        """After the last job."""
        self.disconnect()

    def forget(self) -> None:
        """In a forked child: neither use nor close what is the parent's."""
        self._forked = True
        _inherited.append(self.conn)

    def _main(self) -> None:
        while True:
            try:
                future, job, deadline = self._jobs.get(timeout=self.patience)
            except queue.Empty:
                with self.within:
                    self.idle()
                continue
            if job is None:
                with self.within:
                    self.end()
                self._answers.put(self, future, None, None)
                return
            try:
                with self.within:
                    value, error = self._run(self.perform, job, deadline), None
            except BaseException as e:
                value, error = None, e
            self._answers.put(self, future, value, error)
            del future, job, value, error  # nothing is kept alive while this waits for the next job

    def _run(self, perform: Callable[[Connection, Job, float], Any], job: Job, deadline: float) -> Any:
        try:
            if self.conn is not None and self._moved():
                self.disconnect()
            if self.conn is None:
                self._refuse_old_index()
                if self._file is not None and identity(self.path) not in (None, self._file):
                    self._log.refuse_behind()
                self.conn = self.connect(deadline)
                self._log.opened()
                self._opened = True
            return perform(self.conn, job, deadline)
        except (apsw.Error, OSError) as e:
            if breaks(e):
                self.disconnect()
            raise translate(e, self.path) from e
        except LostAnswer:
            self.disconnect()
            raise
        except ConfigError as e:
            if not self._opened:
                raise
            raise DatabaseTrouble(str(e)) from e  # the file was replaced under us: wait until it is back

    def _let_go_of_index(self) -> None:
        """If it has its name no more: others use another by now. Raises ``DatabaseTrouble``."""
        if self._log.index_lost:
            self.disconnect()
            raise self._log.trouble_with_index()

    def _refuse_old_index(self) -> None:
        """A new connection would share the index of those of this process that are open: none must have an old one."""
        for lane in list(_lanes):
            if lane is not self and not lane._leaves_index(self.path):  # noqa: SLF001
                raise lane._log.trouble_with_index()  # noqa: SLF001

    def _leaves_index(self, path: Path) -> bool:
        """For another lane of the process: disconnect from an old index; whether that, or nothing, was to be done."""
        if self.path != path or self._forked or self.conn is None or not self._log.index_lost:
            return True
        if (self._saves_log and self._log.lost) or not self.within.acquire(blocking=False):
            return False  # it does that itself, when it has saved what is in the log, or is done with its job
        try:
            self.disconnect()
        finally:
            self.within.release()
        return True

    def _moved(self) -> bool:
        """Whether the file was removed or replaced: what is written to the old one would be lost without a word."""
        return identity(self.path) != self._file


class Reader(Lane):
    """Runs reads, each job seeing one snapshot: all that was committed before it began."""

    name = "reader"

    def _moved(self) -> bool:
        """Also whether its log was, and is another by now; while there is none, whoever writes next saves it."""
        if super()._moved():
            return True
        if self._log.lost and self._log.missing:
            raise DatabaseTrouble(self._log.trouble())
        self._let_go_of_index()
        return self._log.lost

    def perform(self, conn: Connection, job: Job, deadline: float) -> Any:
        conn.execute("begin")
        try:
            return job(conn)
        finally:
            if conn.in_transaction:
                conn.execute("rollback")


class Writer(Lane):
    """Runs writes, each job in one ``BEGIN IMMEDIATE`` … ``COMMIT`` under the turnstile; and looks out for others'."""

    name = "writer"
    _saves_log = True

    def __init__(self, path: Path, answers: Answers, *, unheard: bool = False) -> None:
        self._turn: Turn | None = None
        self._headroom: Headroom | None = None  # with the connection
        self._pace = Pace()
        self._is_unheard = unheard  # what is written here is news to nobody
        self._unheard = unheard_of(path)
        self._unheard_seen = 0
        self._hint: Callable[[], None] | None = None
        self._seen: int | None = None
        self._looked = 0.0
        super().__init__(path, answers)

    def at_once(self, job: Callable[[Connection], T]) -> T | None:
        """Run a job on the loop, if that is sooner done than handed over; None if not: then nothing was done."""
        began, room = time.monotonic(), self._headroom
        if self.unanswered or self.closed or room is None or not (room.ample and self._pace.allows(began)):
            return None
        if not self.within.acquire(blocking=False):  # the thread looks out for others' commits
            return None
        try:
            return cast("T | None", self._run(self._perform_at_once, job, began))
        except Overloaded:  # a program that takes no turns writes, or there is no room: the thread can wait
            return None
        finally:
            self.within.release()
            now = time.monotonic()
            self._pace.took(now - began, now)

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back on the loop after another connection (never this one) has committed to the file."""
        self._hint = callback

        def begin(_: Connection) -> None:  # wakes the thread, so that it waits with patience from now on
            self._seen = None

        self.submit(begin).add_done_callback(lambda f: f.cancelled() or f.exception())

    @property
    def patience(self) -> float | None:
        return None if self._hint is None else HINT_EVERY

    def connect(self, deadline: float) -> Connection:
        """Also makes the file a WAL database, under the turn: two processes may start at once."""
        if self._turn is None:
            self._turn = Turn(file.turn_path(self.path))
        conn = super().connect(deadline)
        try:
            self._turn.take(max(0.0, deadline - time.monotonic()))
            try:
                mode = conn.pragma("journal_mode", "wal")
            finally:
                self._turn.release()
            if mode != "wal":
                raise DatabaseTrouble(f"{self.path} cannot use a write-ahead log here (journal mode {mode})")
            conn.pragma("journal_size_limit", 64 << 20)
            self._headroom = Headroom(conn, self.path)
        except BaseException:
            conn.close()
            raise
        self._seen = None
        return conn

    def perform(self, conn: Connection, job: Job, deadline: float) -> Any:
        assert self._turn is not None, "connect made it"
        self._turn.take(max(0.0, deadline - time.monotonic()))
        return self._transact(conn, job, deadline)

    def _perform_at_once(self, conn: Connection, job: Job, deadline: float) -> Any:
        """The same if the turn is free; else nothing, and the answer is None."""
        assert self._turn is not None, "connect made it"
        return self._transact(conn, job, deadline) if self._turn.try_take() else None

    def _transact(self, conn: Connection, job: Job, deadline: float) -> Any:
        """With the turn, which is given back."""
        turn, headroom = self._turn, self._headroom
        assert turn is not None, "connect made it"
        assert headroom is not None, "connect made it"
        try:
            conn.set_busy_timeout(_millis(deadline))
            self._keep_log(conn)
            conn.execute("begin immediate")
            try:
                headroom.provide()
                value = job(conn)
            except BaseException:
                _rollback(conn)
                raise
            if self._is_unheard:
                self._unheard.begin()
            try:
                self._commit(conn)
            finally:
                if self._is_unheard:
                    self._unheard.end()
        finally:
            turn.release()
        if self._hint is not None:
            self.idle()
        return value

    def _keep_log(self, conn: Connection) -> None:
        """With the turn: let no commit go to a log that nobody else will find. Raises ``DatabaseTrouble``."""
        if self._log.lost:
            words = self._log.save(conn)
            self.disconnect()
            raise DatabaseTrouble(words)
        self._let_go_of_index()

    def _commit(self, conn: Connection) -> None:
        try:
            conn.execute("commit")
        except apsw.Error as e:
            known = isinstance(e, apsw.BusyError | apsw.FullError) and conn.in_transaction
            _rollback(conn)
            if known:  # still in the transaction: it was rolled back just now
                raise
            # The write or sync of the log failed: a crash now could still find the transaction whole in it.
            todo = "Free some space" if isinstance(e, apsw.FullError) else "See that the disk can be written"
            raise LostAnswer(
                f"{self.path}: the commit failed midway ({e}); whether it holds is unknown, and is found out before "
                f"anything is written again. {todo}; work goes on by itself then."
            ) from e
        if self._log.index_lost:  # who made another meanwhile may not have seen this commit, and writes over it
            self.disconnect()
            raise LostAnswer(str(self._log.trouble_with_index()))

    def idle(self) -> None:
        """Tell of others' commits. On the connection that writes, ``data_version`` never counts its own.

        What is unheard is not told of; nor is what another wrote in the same moment, which the next poll finds.
        """
        now = time.monotonic()
        if self._hint is None or self.conn is None or now - self._looked < HINT_EVERY * 0.9:
            return
        self._looked = now
        if self._log.lost:
            self._save_log()
            return
        if self._log.index_lost:
            self.disconnect()
            return
        done = self._unheard.done
        try:
            seen = self.conn.execute("pragma data_version").get
        except apsw.Error:
            return  # the next job meets the same trouble and answers for it
        if self._seen not in (None, seen) and not self._unheard.since(self._unheard_seen):
            self._answers.ring(self._hint)
        self._seen, self._unheard_seen = seen, done

    def _save_log(self) -> None:
        """Between jobs: the sooner, the less likely is it that somebody else begins another."""
        if self.conn is None or self._turn is None or not self._turn.try_take():
            return
        try:
            with contextlib.suppress(DatabaseTrouble, apsw.Error):  # said, or the next job meets the same
                self._keep_log(self.conn)
        finally:
            self._turn.release()

    def disconnect(self) -> None:
        super().disconnect()
        if self._headroom is not None:
            self._headroom.close()
            self._headroom = None

    def end(self) -> None:
        super().end()
        if self._turn is not None:
            self._turn.close()

    def forget(self) -> None:
        super().forget()
        if self._turn is not None:
            self._turn.forget()


def breaks(e: BaseException) -> bool:
    """Whether the connection should not be used again after this."""
    return isinstance(
        e,
        OSError
        | apsw.IOError
        | apsw.CantOpenError
        | apsw.CorruptError
        | apsw.NotADBError
        | apsw.ProtocolError
        | apsw.ReadOnlyError
        | apsw.ConnectionClosedError
        | apsw.NoMemError,
    )


def translate(e: Exception, path: Path) -> Exception:
    """What the house calls an error of SQLite's. What is left as it is, is a bug."""
    if isinstance(e, apsw.BusyError | apsw.LockedError):
        who = lock_holder(path)
        return Overloaded(f"{path} is locked by another process{f' ({who})' if 'process' in who else ''}: {e}")
    if isinstance(e, apsw.FullError):
        return Overloaded(f"no room to write {path}: {e}. Free some space; work goes on by itself then.")
    if isinstance(e, apsw.IOError) and not (found := room(path))[1]:  # so ends a log that cannot grow
        return DatabaseTrouble(f"{path}: {e}; {found[0]}. Free some space; work goes on by itself then.")
    if isinstance(e, apsw.ConstraintError) and MOVED in str(e):
        return DatabaseTrouble(f"{path}: {e}")
    if isinstance(e, apsw.CorruptError):
        return DatabaseTrouble(f"{path}: {e}. To mend it: {file.to_mend(path)}")
    if breaks(e) or isinstance(
        e, apsw.InterruptError | apsw.PermissionsError | apsw.AuthError | apsw.SchemaChangeError
    ):
        return DatabaseTrouble(f"{path}: {e}")
    if isinstance(e, apsw.SQLError) and any(said in str(e) for said in _SCHEMA):
        return SchemaMismatch(f"{path} lacks this version's schema ({e}). Run `perdure db migrate`.")
    return e


# Statements are fixed: what they name and is not there, the schema has lost.
_SCHEMA = ("no such table", "no such column", "no such index", "has no column named", "ON CONFLICT clause does not")


def _rollback(conn: Connection) -> None:
    with contextlib.suppress(apsw.Error):
        if conn.in_transaction:
            conn.execute("rollback")


def _millis(deadline: float) -> int:
    """What is left until ``deadline``, for SQLite; a late job still gets one try."""
    return max(1, int((deadline - time.monotonic()) * 1000))


_lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
_inherited: list[object] = []
_forking = threading.local()  # of the thread that forks: the lanes that it keeps out of SQLite


def _before_fork() -> None:
    _forking.kept_out = [lane for lane in list(_lanes) if lane.within.acquire(timeout=PATIENCE)]


def _after_fork() -> None:
    for lane in _forking.kept_out:
        lane.within.release()


def _after_fork_in_child() -> None:
    _after_fork()
    for lane in list(_lanes):
        lane.forget()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
