"""What macOS tells of this boot and of its processes, by ``sysctl`` and ``libproc``.

Layouts: ``struct proc_bsdinfo`` of ``<sys/proc_info.h>``, unchanged since macOS 10.5; an answer that does not look like
one counts as none.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

_PROC_PIDTBSDINFO = 3
_ZOMBIES_TOO = 1  # else one that nobody has waited for yet is not told of, although a signal finds it
_BSDINFO_BYTES = 136
_HEAD = struct.Struct("=4I")  # flags, status, exit status, pid
_STARTED = struct.Struct("=2Q")  # seconds since 1970, microseconds
_STARTED_AT = 120
_SZOMB = 5
_Y2001 = 978_307_200  # nothing that runs there began before

_libc: Any = None


def libc() -> Any:
    """The system's library, which has both."""
    global _libc  # noqa: PLW0603  # opened once
    if _libc is None:
        _libc = ctypes.CDLL(None)
    return _libc


def boot_id() -> str:
    """The UUID of this boot; "" if the system does not say."""
    text = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(text))
    failed = libc().sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else text.value.decode("ascii", "replace")


def process_started(pid: int) -> int | None:
    """When a process began, in microseconds since 1970; 0: it is dead. None: the system does not say."""
    info = ctypes.create_string_buffer(_BSDINFO_BYTES)
    flavor, arg, size = ctypes.c_int(_PROC_PIDTBSDINFO), ctypes.c_uint64(_ZOMBIES_TOO), ctypes.c_int(_BSDINFO_BYTES)
    got = libc().proc_pidinfo(ctypes.c_int(pid), flavor, arg, info, size)
    if got != _BSDINFO_BYTES:
        return None
    _, status, _, its_pid = _HEAD.unpack_from(info)
    seconds, micros = _STARTED.unpack_from(info, _STARTED_AT)
    if its_pid != pid or seconds < _Y2001 or micros >= 1_000_000:
        return None
    return 0 if status == _SZOMB else seconds * 1_000_000 + micros
