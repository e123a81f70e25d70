"""What the system tells of this boot and of its processes: who is asked before a process is called dead.

Linux tells by ``/proc``, macOS by its own libraries. Elsewhere nothing is known, and a lease that has run out is the
only sign of a death.

Promise: what may not be looked at (``hidepid``, ``ProtectProc``, a process of another user) is unknown, never dead.
"""

from __future__ import annotations

import os
import sys
import time

SHORT = 4096  # bytes: /proc/PID/stat has 52 numbers and a name of 15

ON_MACOS = sys.platform == "darwin"

# macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC goes on in sleep, its ``time.monotonic`` does not.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Seconds by a clock that goes on while the machine sleeps."""
    return time.clock_gettime(_STEADY)


def boot_id() -> str:
    """Tells this boot of this machine from every other; "" where the system does not say."""
    if ON_MACOS:
        from perdure.runtime import macos  # noqa: PLC0415  # ctypes, which nobody else needs

        return macos.boot_id()
    return _read("/proc/sys/kernel/random/boot_id")


def pid_space() -> str:
    """Tells this pid namespace from others: a pid means something only within one. "" where the system does not say."""
    if ON_MACOS:
        return "macOS"  # it has one
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def process_started(pid: int) -> int | None:
    """When a process began, in a unit of the system's own; 0 if there is none. None: the system does not say."""
    if ON_MACOS:
        from perdure.runtime import macos  # noqa: PLC0415

        started = macos.process_started(pid)
    else:
        started = _started_by_proc(pid)
    return 0 if started is None and not _exists(pid) else started


def _started_by_proc(pid: int) -> int | None:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not fields:
        return None
    if fields[0] in "ZX" and fields[17] in "01":  # dead with its last thread, and not reaped yet
        return 0
    return int(fields[19])


def _exists(pid: int) -> bool:
    """Whether some process has this pid. Signal 0 only asks, and is answered about those that may not be seen, too."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _read(path: str) -> str:
    """A short file of the system's. An executor reads several a second: no ``Path``, no decoder that remembers.

    What a process calls itself may be any bytes.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(file, SHORT).decode(errors="replace").strip()
    except OSError:  # it has ended since
        return ""
    finally:
        os.close(file)
