"""What the system tells of its processes: one is dead when the system says so, never because it says nothing."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from perdure.runtime import leases, machine, macos
from perdure.runtime.leases import new_incarnation, provably_gone
from tests.runtime.support import until_sync

NOBODY = 2**22 + 1  # no process: beyond what Linux gives out


class BsdInfo(ctypes.Structure):
    """``struct proc_bsdinfo`` of macOS's ``<sys/proc_info.h>``."""

    _fields_ = [
        *((f"pbi_{name}", ctypes.c_uint32) for name in ("flags", "status", "xstatus", "pid", "ppid")),
        *((f"pbi_{name}", ctypes.c_uint32) for name in ("uid", "gid", "ruid", "rgid", "svuid", "svgid")),
        ("rfu_1", ctypes.c_uint32),
        ("pbi_comm", ctypes.c_char * 16),
        ("pbi_name", ctypes.c_char * 32),
        *((f"pbi_{name}", ctypes.c_uint32) for name in ("nfiles", "pgid", "pjobc", "tdev", "tpgid")),
        ("pbi_nice", ctypes.c_int32),
        ("pbi_start_tvsec", ctypes.c_uint64),
        ("pbi_start_tvusec", ctypes.c_uint64),
    ]


class Darwin:
    """The two calls of macOS's libc that are asked, about processes that are told it."""

    def __init__(self) -> None:
        self.known = {
            os.getpid(): BsdInfo(pbi_status=2, pbi_pid=os.getpid(), pbi_start_tvsec=1_795_000_000, pbi_start_tvusec=42)
        }
        self.boot = b"3F1B2C4D-0000-4000-8000-00805F9B34FB"

    def proc_pidinfo(self, pid: Any, flavor: Any, arg: Any, into: Any, size: Any) -> int:
        assert (flavor.value, arg.value, size.value) == (3, 1, 136)
        info = self.known.get(pid.value)
        if info is None:
            return 0
        ctypes.memmove(into, bytes(info), len(bytes(info)))
        return len(bytes(info))

    def sysctlbyname(self, name: bytes, into: Any, size: Any, new: None, _new_size: Any) -> int:
        assert (name, new) == (b"kern.bootsessionuuid", None)
        if not self.boot:
            return -1
        into.value = self.boot
        return 0


@pytest.fixture
def darwin(monkeypatch: pytest.MonkeyPatch) -> Darwin:
    """As on macOS, as far as a machine's word about itself goes."""
    libc = Darwin()
    monkeypatch.setattr(machine, "ON_MACOS", True)
    monkeypatch.setattr(macos, "_libc", libc)
    return libc


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_it_tells_when_a_process_began_and_that_there_is_none(child: subprocess.Popen[bytes]) -> None:
    began = machine.process_started(child.pid)
    assert began
    assert machine.process_started(child.pid) == began
    assert machine.process_started(os.getpid()) not in {0, began, None}
    assert machine.process_started(NOBODY) == 0
    assert machine.process_started(2**40) == 0  # no system has such a pid
    child.kill()
    until_sync(lambda: machine.process_started(child.pid) == 0)  # a zombie
    child.wait()
    assert machine.process_started(child.pid) == 0


@pytest.mark.skipif(sys.platform != "linux" or machine.ON_MACOS, reason="a process names itself by /proc")
def test_a_process_may_call_itself_what_it_likes() -> None:
    """Bytes that are no UTF-8, and what looks like the end of a name."""
    code = "open('/proc/self/comm', 'wb').write(b') Z \\xff\\xfe'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            assert machine.process_started(process.pid) not in {0, None}
        finally:
            process.kill()


def test_a_process_that_may_not_be_looked_at_is_not_dead(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``/proc`` mounted with ``hidepid=2`` shows nothing of other users' processes."""
    me = new_incarnation(b"i", "e", "")
    if machine.ON_MACOS or not me.boot:
        pytest.skip("no /proc here")
    who = msgspec.structs.replace(me, pid=child.pid, pid_started=machine.process_started(child.pid) or 0)
    read = machine._read
    monkeypatch.setattr(machine, "_read", lambda path: "" if path.endswith("/stat") else read(path))
    assert machine.process_started(child.pid) is None
    assert not provably_gone(who)
    child.kill()
    child.wait()
    assert provably_gone(who)  # that there is no such process is told all the same


def test_that_another_users_process_may_not_be_signalled_says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(machine, "_read", lambda _path: "")
    assert machine.process_started(4711) is None


def test_on_macos_the_system_is_asked(darwin: Darwin) -> None:
    me = new_incarnation(b"i", "e", "")
    assert me.boot == darwin.boot.decode()
    assert me.space
    assert me.pid_started == 1_795_000_000_000_042
    assert not provably_gone(me)
    darwin.known[me.pid].pbi_start_tvusec = 43
    assert provably_gone(me), "another process has its pid"
    assert provably_gone(msgspec.structs.replace(me, pid=NOBODY))
    darwin.known[me.pid] = BsdInfo(pbi_status=5, pbi_pid=me.pid, pbi_start_tvsec=1_795_000_000, pbi_start_tvusec=42)
    assert provably_gone(me), "a zombie"


def test_on_macos_what_is_not_told_proves_nothing(darwin: Darwin) -> None:
    me = new_incarnation(b"i", "e", "")
    mine = darwin.known.pop(me.pid)
    assert not provably_gone(me), "it may not be looked at"
    for odd in ({"pbi_pid": me.pid + 1}, {"pbi_start_tvsec": 7}, {"pbi_start_tvusec": 10**6}):
        darwin.known[me.pid] = BsdInfo.from_buffer_copy(mine)
        for field, value in odd.items():
            setattr(darwin.known[me.pid], field, value)
        assert not provably_gone(me), f"an answer of another shape: {odd}"
    darwin.boot = b""
    darwin.known.clear()
    assert not provably_gone(msgspec.structs.replace(me, pid=NOBODY)), "no boot to compare"
    assert leases.boot_id() == ""


def test_on_a_system_that_tells_nothing_an_incarnation_is_made_and_never_proven_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def readlink(path: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(machine, "ON_MACOS", False)
    monkeypatch.setattr(machine, "_read", lambda _path: "")
    monkeypatch.setattr(os, "readlink", readlink)
    me = new_incarnation(b"i", "e", "")
    assert (me.boot, me.space, me.pid_started) == ("", "", 0)
    assert not provably_gone(msgspec.structs.replace(me, pid=NOBODY))


def test_seconds_go_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock that does so on each system (``clock_gettime(2)``, of Linux and of macOS)."""
    asked: list[int] = []
    monkeypatch.setattr(time, "clock_gettime", lambda clock: asked.append(clock) or 1.5)
    assert machine.elapsed() == 1.5
    assert asked == [getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)]
