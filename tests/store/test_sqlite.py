"""What only SQLite can do wrong: the file, its locks, other processes, crashes and forks."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from perdure.errors import ConfigError, DatabaseTrouble, LostAnswer, Misuse, NotOpen, Overloaded, SchemaMismatch
from perdure.model.ids import Holding
from perdure.store.asks import ClaimRequest
from perdure.store.sqlite import SQLiteStore, connection, file, health
from perdure.store.sqlite.connection import translate
from perdure.store.sqlite.driver import steady
from perdure.store.sqlite.migrate import migrations
from perdure.store.sqlite.owned import FORGET, FORGET_RUN
from tests.store.build import ME, T, close, dump, history, one, outside, queued, record, running, send, start, tok, unit
from tests.system import LOCKS_ARE_TOLD

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(sqlite_store: SQLiteStore) -> SQLiteStore:
    return sqlite_store


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    return


def child(program: str, *args: str) -> subprocess.Popen[str]:
    """Another process that runs ``program`` and talks by lines."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


# -- the file


async def test_files_are_private(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "deep" / "er" / "test.db", "app")
    await store.open()
    await store.migrate()
    await queued(store, "w")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in store.path.parent.iterdir()}
    assert modes == {"test.db": 0o600, "test.db-wal": 0o600, "test.db-shm": 0o600, "test.db-turn": 0o600}
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    await store.close()


async def test_the_file_is_marked_as_ours(store: SQLiteStore) -> None:
    conn = apsw.Connection(str(store.path))
    assert conn.pragma("application_id") == file.APPLICATION_ID
    assert conn.pragma("user_version") == (await store.schema_version())[0]
    assert conn.pragma("journal_mode") == "wal"
    conn.close()


@pytest.mark.parametrize("kind", ["table", "application", "text", "directory"])
async def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "other.db"
    if kind == "text":
        path.write_text("not a database, but long enough to be looked at as one" * 100)
    elif kind == "directory":
        path.mkdir()
    else:
        conn = apsw.Connection(str(path))
        conn.execute("create table t (a)" if kind == "table" else "pragma application_id = 7; create table t (a)")
        conn.close()
    before = path.read_bytes() if path.is_file() else b""
    store = SQLiteStore(path, "app")
    with pytest.raises(ConfigError, match=r"other\.db"):
        await store.open()
    assert (path.read_bytes() if path.is_file() else b"") == before
    await store.close()


async def test_a_newer_schema_is_refused(store: SQLiteStore) -> None:
    conn = apsw.Connection(str(store.path))
    conn.pragma("user_version", 999)
    conn.close()
    other = SQLiteStore(store.path, "app")
    with pytest.raises(SchemaMismatch, match="999"):
        await other.open()


async def test_a_database_without_schema_says_so(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "test.db", "app")
    await store.open()
    assert (await store.schema_version())[0] == 0
    with pytest.raises(SchemaMismatch, match="migrate"):
        await queued(store, "w")
    with pytest.raises(SchemaMismatch, match="migrate"):
        await store.rows(["w"])
    await store.close()


async def test_a_table_or_column_that_is_away_for_a_while_is_trouble(store: SQLiteStore) -> None:
    """Waited out: no unit is to blame."""
    for away, back in (
        ("alter table history rename to elsewhere", "alter table elsewhere rename to history"),
        ("alter table history rename column data to elsewhere", "alter table history rename column elsewhere to data"),
    ):
        claim = await running(store, away)
        conn = apsw.Connection(str(store.path))
        conn.execute(away)
        u = unit(away, claim, records=[record(1)])
        with pytest.raises(SchemaMismatch) as caught:
            await one(store, u)
        assert isinstance(caught.value, DatabaseTrouble)
        conn.execute(back)
        conn.close()
        assert (await one(store, u)).applied


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (apsw.ReadOnlyError, DatabaseTrouble),
        (apsw.CantOpenError, DatabaseTrouble),
        (apsw.PermissionsError, DatabaseTrouble),
        (apsw.AuthError, DatabaseTrouble),
        (apsw.IOError, DatabaseTrouble),
        (apsw.CorruptError, DatabaseTrouble),
        (apsw.SchemaChangeError, DatabaseTrouble),
        (apsw.FullError, Overloaded),
        (apsw.BusyError, Overloaded),
        (apsw.TooBigError, apsw.TooBigError),
        (apsw.MismatchError, apsw.MismatchError),
    ],
)
def test_only_what_a_unit_may_be_to_blame_for_goes_up_as_it_is(
    tmp_path: Path, error: type[Exception], kind: type[Exception]
) -> None:
    assert type(translate(error("said"), tmp_path / "test.db")) is kind


async def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(ConfigError):
        await SQLiteStore(tmp_path / "plain" / "x.db", "app").open()


async def test_the_hot_row_has_four_indexes_one_of_children_and_one_of_what_is_in_trouble(store: SQLiteStore) -> None:
    conn = apsw.Connection(str(store.path))
    assert len(conn.execute("pragma index_list(workflow)").fetchall()) == 6
    conn.close()


async def test_a_statement_is_planned_once_whatever_its_rows(store: SQLiteStore) -> None:
    planned: list[tuple[object, ...]] = []  # SQLite asks the authorizer while it plans, and only then

    def authorized(*what: object) -> int:
        planned.append(what)
        return apsw.SQLITE_OK

    async def adopt_and_close(*ids: str) -> None:
        claim = await running(store, *ids)
        for id in ids:
            await one(store, unit(id, claim, records=[record(1)]))
        want = ClaimRequest(owner=tok("new"), token=tok("token"), version="v1", limit=10)
        for c in await store.adopt([ME], want, now=T):
            await one(store, unit(c.row.id, want.token, change=close()))

    raw: Any = await store._write(lambda conn: conn)
    raw.authorizer = authorized
    await adopt_and_close("a")
    assert planned
    planned.clear()
    await adopt_and_close("b", "c", "d")
    raw.authorizer = None
    assert planned == []


FEW = ("VIRTUAL TABLE", "CONSTANT", "(subquery-")  # and what a subquery found, by a search of its own


async def test_no_statement_of_the_hot_path_scans_a_table(store: SQLiteStore) -> None:
    from perdure.store.sql import queries

    conn = cast(apsw.Connection, steady(apsw.Connection(str(store.path))))
    made = {f"made {n}": sql for n, sql in enumerate((*FORGET, *FORGET_RUN))}
    for name, sql in (dict(queries("perdure.store.sqlite")) | made).items():
        if name in (
            "incarnation_list",
            "incarnation_apps",
            "incarnation_forget",
            "incarnation_given",
            "version_served",
            "version_executors",
            "queue_list",
        ):
            continue  # a handful of rows
        if name in ("size_kinds", "size_past"):  # what only a person asks for, and counts
            continue
        plan = [r[3] for r in conn.execute("explain query plan " + sql, (None,) * sql_parameters(sql))]
        found = {p.split()[-1] for p in plan if p.startswith(("CO-ROUTINE", "MATERIALIZE"))}  # by a search of its own
        scans = [p for p in plan if p.startswith("SCAN") and not any(what in p for what in FEW)]
        scans = [p for p in scans if p.removeprefix("SCAN ") not in found]
        assert not scans, (name, plan)
        whole = [p for p in plan if p.startswith("SEARCH") and "workflow" in p and p.endswith("(app=?)")]
        allowed = name in ("workflow_list", "slot_fill", "queue_progress")  # what operators ask for
        if name == "held_elsewhere":  # only what is in trouble
            whole = [p for p in whole if "workflow_problem" not in p]
        assert not whole or allowed, (name, "reads all of an app", plan)
    conn.close()


@pytest.mark.parametrize("name", ["wake_held", "workflow_woken", "workflow_claimable", "workflow_due", "workflow_take"])
async def test_a_statement_is_planned_once(store: SQLiteStore, name: str) -> None:
    """SQLite asks its authorizer whenever it plans one."""
    from perdure.store.sql import queries
    from perdure.store.sqlite.driver import connect

    conn: Any = connect(store.path)
    asked: list[object] = []
    conn.authorizer = lambda *what: asked.append(what) or apsw.SQLITE_OK
    sql = queries("perdure.store.sqlite")[name]
    for n in range(2):
        asked.clear()
        conn.execute(sql, (n,) * sql_parameters(sql)).fetchall()
    assert not asked, asked
    conn.close()


def sql_parameters(sql: str) -> int:
    import re

    return max([0, *map(int, re.findall(r"\?(\d+)", sql))])


# -- opening and closing


async def test_use_before_open_and_after_close(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "test.db", "app")
    with pytest.raises(NotOpen):
        await store.rows([])
    await store.open()
    await store.open()
    await store.close()
    await store.close()
    with pytest.raises(NotOpen):
        await store.rows([])
    await store.open()
    await store.migrate()
    await store.close()


async def test_what_was_sent_before_a_close_is_written(store: SQLiteStore) -> None:
    work = [asyncio.ensure_future(queued(store, f"w{n}")) for n in range(20)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*work)
    await store.open()
    assert len(await store.rows([f"w{n}" for n in range(20)])) == 20


async def test_a_cancelled_caller_does_not_hurt_the_others(store: SQLiteStore) -> None:
    a = asyncio.ensure_future(queued(store, "a"))
    b = asyncio.ensure_future(queued(store, "b"))
    await asyncio.sleep(0)
    a.cancel()
    await b
    assert set(await store.rows(["a", "b"])) == {"a", "b"}


async def test_two_that_migrate_at_once(tmp_path: Path) -> None:
    stores = [SQLiteStore(tmp_path / "test.db", "app") for _ in range(4)]
    await asyncio.gather(*[s.open() for s in stores])
    applied = await asyncio.gather(*[s.migrate() for s in stores])
    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations())]
    for s in stores:
        await s.close()


async def test_a_bug_in_a_job_leaves_nothing_behind(store: SQLiteStore) -> None:
    claim = await running(store, "w")
    before = await dump(store)
    bad = unit("w", claim, records=[record(1), record(1)])
    with pytest.raises(apsw.ConstraintError):
        await store.commit([unit("w", claim, sends=[send("w")]), bad], now=T)
    assert await dump(store) == before
    assert (await one(store, unit("w", claim, records=[record(1)]))).applied


# -- trouble


LOCKER = """
import apsw, sys
conn = apsw.Connection(sys.argv[1])
conn.execute("begin immediate")
print("locked", flush=True)
sys.stdin.readline()
"""

TURNKEEPER = """
import fcntl, os, sys
fd = os.open(sys.argv[1] + "-turn", os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("program", [LOCKER, TURNKEEPER], ids=["database", "turnstile"])
@pytest.mark.usefixtures("impatient")
async def test_a_lock_of_another_process_is_trouble_that_passes(store: SQLiteStore, program: str) -> None:
    await queued(store, "before")
    other = child(program, str(store.path))
    assert said(other) == "locked"
    try:
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(DatabaseTrouble) as e:
                await queued(store, "w")
            assert isinstance(e.value, Overloaded)
            assert time.monotonic() - began < 2
        assert set(await store.rows(["before", "w"])) == {"before"}, "readers are never in the way"
        if program is LOCKER:
            facts = {what: value for what, value, _ in (await store.health()).facts}
            assert facts["write lock"] == (f"held by process {other.pid}" if LOCKS_ARE_TOLD else "unknown")
    finally:
        end(other)
    await queued(store, "w")
    assert set(await store.rows(["before", "w"])) == {"before", "w"}


def test_patience_is_within_what_a_caller_is_promised() -> None:
    assert connection.PATIENCE < 5


async def test_a_replaced_file_is_not_written_to_without_a_word(store: SQLiteStore) -> None:
    await queued(store, "w")
    store.path.rename(store.path.with_name("moved.db"))
    with pytest.raises(DatabaseTrouble):
        await queued(store, "x")
    store.path.with_name("moved.db").rename(store.path)
    await queued(store, "x")
    assert set(await store.rows(["w", "x"])) == {"w", "x"}


async def test_a_full_disk_is_overload(store: SQLiteStore) -> None:
    writer = store._writer
    assert writer is not None
    assert writer.conn is not None
    pages = writer.conn.pragma("page_count")
    writer.conn.pragma("max_page_count", pages)
    with pytest.raises(Overloaded, match="room"):
        await one(store, outside(children=[start(f"w{n}", input=b'"' + b"x" * 5000 + b'"') for n in range(100)]))
    writer.conn.pragma("max_page_count", 1_000_000)
    assert await store.rows(["w1"]) == {}
    await queued(store, "w1")


@pytest.mark.parametrize(("error", "todo"), [(apsw.IOError, "can be written"), (apsw.FullError, "Free some space")])
async def test_a_commit_that_fails_midway_is_a_lost_answer_and_can_be_repeated(
    store: SQLiteStore, error: type[apsw.Error], todo: str
) -> None:
    class Broken:
        """The connection, but that a commit fails as it does when the disk does."""

        def __init__(self, real: object) -> None:
            self.real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def execute(self, sql: str, *bindings: object) -> object:
            if sql == "commit":
                self.real.execute("rollback")  # type: ignore[attr-defined]
                raise error("disk trouble")
            return self.real.execute(sql, *bindings)  # type: ignore[attr-defined]

    claim = await running(store, "w")
    writer = store._writer
    assert writer is not None
    real = writer.conn
    writer.conn = Broken(real)  # type: ignore[assignment]
    u = unit("w", claim, records=[record(1)])
    with pytest.raises(LostAnswer, match=todo):
        await one(store, u)
    assert (await one(store, u)).applied
    assert len(await history(store, "w")) == 1


# -- other processes

WRITER = """
import asyncio, sys
from tests.store.build import *
from perdure.store.sqlite import SQLiteStore
async def main(path, name, n):
    store = SQLiteStore(path, "app")
    await store.open()
    claim = await running(store, name)
    print("ready", flush=True)
    sys.stdin.readline()
    for seq in range(1, n + 1):
        assert (await one(store, unit(name, claim, records=[record(seq)]))).applied
        if n > 1000:
            print(seq, flush=True)
    await store.close()
    print("done", flush=True)
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_processes_that_write_at_once_all_get_their_turn(store: SQLiteStore) -> None:
    others = [child(WRITER, str(store.path), f"w{n}", "150") for n in range(2)]
    try:
        for other in others:
            assert said(other) == "ready"
        for other in others:
            assert other.stdin is not None
            other.stdin.write("\n")
            other.stdin.flush()
        mine: list[float] = []
        for n in range(50):
            began = time.monotonic()
            await queued(store, f"mine{n}")
            mine.append(time.monotonic() - began)
        for other in others:
            assert said(other) == "done"
        assert max(mine) < 2, "nobody starves"
    finally:
        for other in others:
            end(other)
    for n in range(2):
        assert [r.seq for r in await history(store, f"w{n}")] == list(range(1, 151))


@pytest.mark.crash
async def test_a_writer_that_is_killed_loses_nothing_that_it_was_told(store: SQLiteStore) -> None:
    for n in range(3):
        other = child(WRITER, str(store.path), f"w{n}", "100000")
        assert said(other) == "ready"
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
        told = 0
        while told < 20 * (n + 1):
            told = int(said(other))
        other.kill()
        assert other.stdout is not None
        rest = [int(line) for line in other.stdout.read().splitlines() if line.strip().isdigit()]
        end(other)
        told = max([told, *rest[:-1]])  # the last line may be cut
        found = await history(store, f"w{n}")
        assert [r.seq for r in found] == list(range(1, len(found) + 1))
        assert len(found) >= told
        await queued(store, f"after{n}")
    conn = apsw.Connection(str(store.path))
    assert conn.pragma("integrity_check") == "ok"
    conn.close()


async def test_after_a_fork_the_store_is_the_parents(store: SQLiteStore) -> None:
    await queued(store, "w")
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.events._set_running_loop(None)
            fresh = asyncio.new_event_loop()
            try:
                fresh.run_until_complete(store.rows(["w"]))
            except Misuse:
                os._exit(0)
        finally:
            os._exit(1)
    _, code = os.waitpid(pid, 0)  # noqa: ASYNC222 - the child ends at once
    assert os.waitstatus_to_exitcode(code) == 0
    await queued(store, "x")
    assert set(await store.rows(["w", "x"])) == {"w", "x"}


# -- health


def test_the_holder_of_the_write_lock_is_read_from_the_kernels_table(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    shm = tmp_path / "test.db-shm"
    shm.write_bytes(b"")
    s = shm.stat()
    at = f"{os.major(s.st_dev):02x}:{os.minor(s.st_dev):02x}:{s.st_ino}"
    reader = f"1: POSIX  ADVISORY  READ 11 {at} 123 123\n"
    waiting = f"2: -> POSIX  ADVISORY  WRITE 13 {at} 120 120\n"
    writer = f"2: POSIX  ADVISORY  WRITE 12 {at} 120 120\n"
    assert health.lock_holder(path, reader + waiting) == "free"
    assert health.lock_holder(path, reader + writer) == "held by process 12"


async def test_health_reports_a_disk_that_is_nearly_full(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(store.path)

    async def room(bytes: int) -> tuple[str, bool]:
        fields = list(real)
        fields[1:5] = [4096, 2 << 18, 0, bytes // 4096]  # of which this user may have so much
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
        return {what: (value, good) for what, value, good in (await store.health()).facts}["room"]

    assert await room(255 << 20) == ("255 MiB free of 2048 MiB (wanted: 256 MiB)", False)
    assert await room(0) == ("0 MiB free of 2048 MiB (wanted: 256 MiB)", False)
    assert await room(256 << 20) == ("256 MiB free of 2048 MiB (wanted: 256 MiB)", True)


@pytest.mark.parametrize("free", [0, 1 << 30])
def test_an_error_of_a_disk_that_is_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    fields = list(os.statvfs(tmp_path))
    fields[1:5] = [4096, 2 << 18, 0, free // 4096]
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    told = connection.translate(apsw.IOError("disk I/O error"), tmp_path / "x.db")
    assert isinstance(told, DatabaseTrouble)
    assert ("0 MiB free of 2048 MiB" in str(told)) is (free == 0)
    assert ("Free some space" in str(told)) is (free == 0)


async def test_health_reports_a_schema_that_is_behind(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "test.db", "app")
    await store.open()
    facts = (await store.health()).facts
    assert facts[0][0] == "schema version"
    assert facts[0][2] is False
    await store.close()


async def test_a_million_is_not_needed_to_see_that_a_batch_is_cheap(store: SQLiteStore) -> None:
    """A bound that only a change of shape can break (a statement per row and pass), not a slow machine."""
    ids = [f"w{n}" for n in range(1000)]
    claim = await running(store, *ids)
    count = 0

    def trace(_: object) -> None:
        nonlocal count
        count += 1

    writer = store._writer
    assert writer is not None
    units = [unit(id, claim, records=[record(1)]) for id in ids]
    conn: apsw.Connection = writer.conn  # type: ignore[assignment]
    conn.trace_v2(apsw.SQLITE_TRACE_STMT, trace)
    await store.commit(units, now=T)
    assert count <= len(ids) + 10
    count = 0
    await one(store, unit("w0", claim, records=[record(2)]))
    assert count <= 6, "begin, fence, last record, insert, commit"
    conn.trace_v2(0, None)
    assert (await store.poll(ME, [Holding(id, 1, claim) for id in ids], "v1", now=T)).lost == []
    assert (await one(store, unit("w0", claim, change=close()))).applied
    assert tok() != tok()
