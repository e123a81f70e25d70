"""A Linux made poorer: what macOS lacks is taken away, and what it has of its own is answered as it would.

Every Python imports this at its start if the folder is in ``PYTHONPATH`` (``make test-elsewhere``).
``TESTED_ELSEWHERE``: ``macos``; ``nothing`` for a system that tells nothing of its boot and its processes.
"""

from __future__ import annotations

import os
import selectors
import sys
import time
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

PROC = "/proc/"
OF_LINUX = {os: ("eventfd", "eventfd_read", "eventfd_write", "pidfd_open"), time: ("CLOCK_BOOTTIME",)}


def take_away() -> None:
    """``/proc``, ``eventfd``, the clock of the boot, memory as a folder, and ``epoll``."""
    for module, names in OF_LINUX.items():
        for name in names:
            delattr(module, name)
    read_text, readlink, access = Path.read_text, os.readlink, os.access

    def without_proc(self: Path, *args: Any, **kwargs: Any) -> str:
        if str(self).startswith(PROC):
            raise FileNotFoundError(2, "not on this system", str(self))
        return read_text(self, *args, **kwargs)

    def no_link_of_proc(path: Any, **kwargs: Any) -> Any:
        if str(path).startswith(PROC):
            raise FileNotFoundError(2, "not on this system", str(path))
        return readlink(path, **kwargs)

    Path.read_text = without_proc  # type: ignore[method-assign]
    os.readlink = no_link_of_proc
    os.access = lambda path, *args, **kwargs: path != "/dev/shm" and access(path, *args, **kwargs)
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc]


class Libc:
    """The calls of macOS's libc that ``perdure.runtime.macos`` makes, about the processes of this system."""

    def sysctlbyname(self, name: bytes, into: Any, *_: Any) -> int:
        assert name == b"kern.bootsessionuuid"
        with Path("/proc/sys/kernel/random/boot_id").open("rb") as file:
            into.value = file.read().strip()
        return 0

    def proc_pidinfo(self, pid: Any, flavor: Any, arg: Any, into: Any, size: Any) -> int:
        import ctypes
        import struct

        assert (flavor.value, arg.value, size.value) == (3, 1, 136)
        try:
            with Path(f"/proc/{pid.value}/stat").open() as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            return 0
        status = 5 if fields[0] in "ZX" and fields[17] in "01" else 2
        seconds, ticks = divmod(int(fields[19]), os.sysconf("SC_CLK_TCK"))
        ctypes.memmove(into, struct.pack("=4I104x2Q", 0, status, 0, pid.value, 1_790_000_000 + seconds, ticks), 136)
        return 136


class AsOnMacos(MetaPathFinder):
    """Tells the modules that ask the system which one it is."""

    CHANGES: ClassVar[dict[str, tuple[str, Any]]] = {
        "perdure.runtime.machine": ("ON_MACOS", True),
        "perdure.runtime.macos": ("_libc", Libc()),
    }

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self.CHANGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        loader: Any = spec and spec.loader
        execute = loader.exec_module

        def changed(module: ModuleType) -> None:
            execute(module)
            setattr(module, *self.CHANGES[name])

        loader.exec_module = changed
        return spec


def change_what_is_found_otherwise() -> None:
    """The same where another finder comes first: pytest's, of the package that brings its plugin."""
    for name, change in AsOnMacos.CHANGES.items():
        setattr(import_module(name), *change)


if elsewhere := os.environ.get("TESTED_ELSEWHERE"):
    take_away()
    if elsewhere == "macos":
        sys.meta_path.insert(0, AsOnMacos())
