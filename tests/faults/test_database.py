"""The database itself fails: killed, its sessions ended, its disk full, its file locked by a process that stands still.

Nothing fails for it, nothing is lost, and all goes on by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import pytest

from perdure import App, recv
from perdure.errors import DatabaseTrouble
from perdure.store.sqlite import connection
from tests.crash.test_kill import Victim, check
from tests.postgres import Cluster
from tests.runtime.support import Ledger, status, until
from tests.system import LOCKS_ARE_TOLD

pytestmark = [pytest.mark.crash, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
TMPFS_MB = 64


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


# -- Postgres


@pytest.mark.postgres
async def test_the_postmaster_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """With all its backends, as a power cut would; it recovers, and whoever worked on it goes on."""
    name = cluster.create_database()
    async with Victim(cluster.url(name), tmp_path / "ledger") as victim:
        assert await victim.until("effect", 3)
        cluster.kill()
        assert await victim.until("trouble"), f"never noticed: {victim.seen[-5:]}"
        cluster.start()
        result = await victim.until("result")
        assert result, f"ended without a result: {victim.seen[-5:]}"
        assert await victim.process.wait() == 0
    check(result, tmp_path / "ledger", 0)


@pytest.mark.postgres
async def test_all_backends_are_terminated_again_and_again(cluster: Cluster, tmp_path: Path) -> None:
    name = cluster.create_database()
    terminate = f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
    async with Victim(cluster.url(name), tmp_path / "ledger") as victim:
        for _ in range(5):
            assert await victim.until("effect", 2)
            await asyncio.to_thread(cluster.sql, terminate)
        result = await victim.until("result")
        assert result, f"ended without a result: {victim.seen[-5:]}"
        assert await victim.process.wait() == 0
    check(result, tmp_path / "ledger", 0)


def declare(app: App, ledger: Ledger) -> Any:
    @app.step
    async def act(what: str) -> int:
        ledger.note(what[:8])
        return len(what)

    @app.workflow
    async def work(id: str) -> int:
        await act(f"{id} 1".ljust(8))
        await recv("go")
        return await act(f"{id} 2".ljust(8)) + len(await recv("go"))

    return work


async def goes_on_when_there_is_room(
    app: App, ledger: Ledger, fill: Any, free: Any, said: Any, meanwhile: Any = None
) -> None:
    """Start, fill, ask for more than there is room for, free, and see it all done once."""
    work = declare(app, ledger)
    big = "x" * 200_000
    async with app:
        handles = [await work.options(id=f"w{n}").start(f"w{n}") for n in range(5)]
        await until(lambda: len(ledger) == 5)
        await asyncio.to_thread(fill)
        asked = [asyncio.create_task(handle.send(big, "go")) for handle in handles for _ in range(2)]
        asked.append(asyncio.create_task(work.options(id="late").start("late")))
        await until(lambda: any("in trouble" in record.getMessage() for record in said.records), seconds=30)
        assert not all(task.done() for task in asked)
        if meanwhile is not None:
            await meanwhile()
        else:
            assert {await status(app, f"w{n}") for n in range(5)} <= {"running", "waiting", "queued"}
        await asyncio.to_thread(free)
        await asyncio.gather(*asked)
        await app.client.handle("late").send("", "go")
        await app.client.handle("late").send("", "go")
        assert [await handle.result(timeout=30) for handle in handles] == [8 + len(big)] * 5
        assert await app.client.handle("late").result(timeout=30) == 8
    assert set(ledger.counts.values()) == {1}
    assert len(ledger) == 12


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="perdure")
    return caplog


def mounted(folder: Path) -> bool:
    """A small file system of its own, where this process may make one (as root)."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "tmpfs", str(folder)]
    try:
        return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def filled(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


class Full:
    """A database on a disk that can be filled: a tablespace on a small tmpfs.

    Where nothing can be mounted, the server is made to say the same of each new record, and the test says so.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.disk = folder / "disk"
        self.real = mounted(self.disk)
        self.name = cluster.create_database()
        if self.real:
            space = self.disk / "space"
            space.mkdir()
            if cluster._user is not None:
                shutil.chown(space, cluster._user)
                for each in (self.disk, *self.disk.parents):
                    each.chmod(each.stat().st_mode | 0o111)
            cluster.sql(f"create tablespace small location '{space}'")
            cluster.sql(f'alter database "{self.name}" set tablespace small')
        else:
            print("\nno file system can be mounted here: the server only says that the disk is full")

    def fill(self) -> None:
        if self.real:
            filled(self.disk)
            return
        self.cluster.sql(
            "create function full_disk() returns trigger language plpgsql as $$ begin "
            "raise exception 'could not extend file' using errcode = '53100'; end $$",
            "create trigger full_disk before insert on perdure.message execute function full_disk()",
            db=self.name,
        )

    def free(self) -> None:
        if self.real:
            (self.disk / "filler").unlink()
        else:
            self.cluster.sql("drop trigger full_disk on perdure.message", db=self.name)

    def close(self) -> None:
        self.cluster.drop_database(self.name)
        if self.real:
            self.cluster.sql("drop tablespace small")
            subprocess.run(["umount", "-l", str(self.disk)], check=True)


@pytest.mark.postgres
async def test_the_disk_of_postgres_is_full(
    cluster: Cluster, tmp_path: Path, ledger: Ledger, said: pytest.LogCaptureFixture
) -> None:
    full = Full(cluster, tmp_path)
    try:
        app = App("shop", database=cluster.url(full.name))
        await goes_on_when_there_is_room(app, ledger, full.fill, full.free, said)
    finally:
        full.close()


@pytest.mark.postgres
async def test_connections_run_out(tmp_path: Path, ledger: Ledger, said: pytest.LogCaptureFixture) -> None:
    """An executor loses all of its connections, and others take their places for longer than its lease."""
    with Cluster(settings={"max_connections": "12"}) as server:
        greedy = Greedy(server)
        app = App("shop", database=server.url(), lease=3)
        too_late = App("shop", database=server.url())

        async def meanwhile() -> None:
            lease = app._home.engine().lease
            assert lease is not None
            await until(lambda: not lease.allowed, seconds=30)
            assert said.text.count("the lease could not be renewed") == 1, "an outage is told once, not at every try"
            with pytest.raises(DatabaseTrouble, match=r"has no connection to give .* raise its max_connections"):
                await too_late.open()

        try:
            await goes_on_when_there_is_room(app, ledger, greedy.fill, greedy.free, said, meanwhile)
        finally:
            await asyncio.to_thread(greedy.close)


class Greedy:
    """Takes every connection that a server has, also those of others."""

    def __init__(self, server: Cluster) -> None:
        self.server = server
        self._runner = asyncio.Runner()
        self._taken: list[Any] = []

    def fill(self) -> None:
        self._runner.run(self._fill())

    async def _fill(self) -> None:
        while True:
            try:
                self._taken.append(await asyncpg.connect(self.server.url()))
            except asyncpg.TooManyConnectionsError:
                if not await self._end_others():
                    return

    async def _end_others(self) -> int:
        mine = [conn.get_server_pid() for conn in self._taken]
        ended: int = await self._taken[0].fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> all($1::int[])",
            mine,
        )
        return ended

    def free(self) -> None:
        self._runner.run(self._free())

    def close(self) -> None:
        with self._runner:
            self.free()

    async def _free(self) -> None:
        taken, self._taken = self._taken, []
        for conn in taken:
            await conn.close()


@pytest.mark.postgres
async def test_a_server_that_takes_no_writes_for_a_while(
    cluster: Cluster, ledger: Ledger, said: pytest.LogCaptureFixture
) -> None:
    """As the standby of a failover that is not promoted yet."""
    name = cluster.create_database()

    def writes(word: str) -> Any:
        read_only = {"yes": "off", "no": "on"}[word]
        return lambda: cluster.sql(
            "set session characteristics as transaction read write",
            f'alter database "{name}" set default_transaction_read_only = {read_only}',
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'",
        )

    app = App("shop", database=cluster.url(name), lease=3)
    await goes_on_when_there_is_room(app, ledger, writes("no"), writes("yes"), said)
    assert "(25006)" in said.text


# -- SQLite


async def test_a_small_disk_of_sqlite_is_full(tmp_path: Path, ledger: Ledger, said: pytest.LogCaptureFixture) -> None:
    """A real one, where one can be mounted; else the file has a bound, as below."""
    disk = tmp_path / "disk"
    if not mounted(disk):
        print("\nno file system can be mounted here: SQLite has a bound of its own")
        return await test_the_disk_of_sqlite_is_full(tmp_path, ledger, said)
    try:
        app = App("shop", database=f"sqlite:///{disk / 'perdure.db'}")
        await goes_on_when_there_is_room(app, ledger, lambda: filled(disk), (disk / "filler").unlink, said)
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "-l", str(disk)], check=True)


async def test_the_disk_of_sqlite_is_full(tmp_path: Path, ledger: Ledger, said: pytest.LogCaptureFixture) -> None:
    """SQLite refuses at a bound of its own, with the error that a full disk gives."""
    bound = [2**30]
    app = App("shop", database=f"sqlite:///{tmp_path / 'perdure.db'}")
    home = app._home
    make = home.make_store

    def bounded(*given: Any) -> Any:
        store: Any = make(*given)
        send = store._send

        async def through(lane: Any, job: Any) -> Any:
            def within(conn: Any) -> Any:
                conn.pragma("max_page_count", bound[0])
                return job(conn)

            return await send(lane, within)

        store._send = through
        return store

    home.make_store = bounded

    def fill() -> None:
        bound[0] = 1  # it cannot be made smaller than the file is

    def free() -> None:
        bound[0] = 2**30

    await goes_on_when_there_is_room(app, ledger, fill, free, said)


@pytest.fixture
def holder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Another process that is in the middle of a write."""
    path = tmp_path / "perdure.db"
    with contextlib.closing(apsw.Connection(str(path))) as conn:
        conn.pragma("journal_mode", "wal")  # as every launch before it has left the file
    command = [sys.executable, "-m", "tests.faults.holder", str(path), request.param]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "held"
        yield process
        process.kill()


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
@pytest.mark.parametrize("holder", ["turn", "lock"], indirect=True)
async def test_a_writer_that_is_stopped_is_named_and_waited_for(
    holder: subprocess.Popen[str],
    end: signal.Signals,
    tmp_path: Path,
    ledger: Ledger,
    said: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    app = App("shop", database=f"sqlite:///{tmp_path / 'perdure.db'}")
    work = declare(app, ledger)
    holder.send_signal(signal.SIGSTOP)
    opening = asyncio.create_task(open_patiently(app))
    named = f"{holder.pid}" if LOCKS_ARE_TOLD else ""
    await until(lambda: any(named in record.getMessage() for record in said.records), seconds=30)
    assert not opening.done()
    holder.send_signal(end)
    holder.kill()  # one that goes on ends its write at some time
    await opening
    handle = await work.start("w0")
    await handle.send("", "go")
    await handle.send("", "go")
    assert await handle.result(timeout=30) == 8
    await app.close()


async def open_patiently(app: App) -> None:
    """As a supervisor would: a launch that cannot reach its database says so and ends."""
    while True:
        try:
            return await app.open()
        except DatabaseTrouble as trouble:
            logging.getLogger("perdure").warning("%s", trouble)
