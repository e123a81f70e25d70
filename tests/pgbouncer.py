"""A real PgBouncer before the tests' Postgres: started on loopback, and always stopped.

Promises: a free port, its configuration in a temporary directory; it never outlives who started it (Linux); few
connections to the server, so that clients really share them. None on the machine is an error: these tests are
never skipped. Debian has it as the package ``pgbouncer``, which ``tools/debian.sh`` installs where it may.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from tests.postgres import _die_with_parent, free_port

CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
max_client_conn = 500
default_pool_size = {pool}
reserve_pool_size = 0
stats_users = {user}
log_connections = 0
log_disconnections = 0
"""


class NoPooler(RuntimeError):
    """No PgBouncer on this machine."""


def find_pgbouncer() -> str:
    """The program. Raises ``NoPooler``."""
    found = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NoPooler("No PgBouncer for the tests: install the package pgbouncer (Debian: apt-get install pgbouncer)")
    return found


class Pooler:
    """PgBouncer before the server at ``url``, from ``start`` to ``stop``."""

    def __init__(self, url: str, pool: int = 4, mode: str = "transaction") -> None:
        self._server = urlsplit(url)
        self._pool = pool
        self._mode = mode
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._home = Path()

    def url(self, name: str, query: str = "") -> str:
        """The URL of a database of the server by way of the pooler."""
        login = self._server.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{self.port}" if login else f"127.0.0.1:{self.port}"
        return urlunsplit(self._server._replace(netloc=netloc, path="/" + name, query=query))

    @property
    def direct(self) -> str:
        """Host and port of the server itself."""
        return f"{self._server.hostname}:{self._server.port}"

    def start(self) -> Self:
        program = find_pgbouncer()
        if self._home == Path():
            self._home = Path(tempfile.mkdtemp(prefix="perdure-pgbouncer-"))
        settings = self._home / "pgbouncer.ini"
        settings.write_text(
            CONFIGURATION.format(
                host=self._server.hostname, port=self._server.port, user=self._server.username or "postgres",
                listen=self.port, pool=self._pool, mode=self._mode,
            )
        )  # fmt: skip
        options: dict[str, Any] = {}
        if os.geteuid() == 0:  # it refuses root
            user = next(u for name in ("postgres", "nobody") for u in pwd.getpwall() if u.pw_name == name)
            self._home.chmod(0o755)
            options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                start_new_session=True, preexec_fn=_die_with_parent, **options,  # noqa: PLW1509 - no lock is taken in it
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return self
            time.sleep(0.02)  # waits: a server that starts has no other way to tell
        self.stop()
        raise RuntimeError(f"PgBouncer did not start:\n{(self._home / 'log').read_text(errors='replace')}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # nothing of it is to be kept
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)
