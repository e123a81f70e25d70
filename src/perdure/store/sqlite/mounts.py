"""Which file system a folder lies on, and whether a database may lie there.

Linux tells by ``/proc/self/mountinfo``, macOS by ``mount``. Where the system does not say, nothing is refused.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# WAL needs shared memory and POSIX locks that all processes agree on.
_UNSAFE = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|afpfs|webdav|ftp|ceph|glusterfs|lustre|gpfs|ncpfs|coda|(mac|osx)?fuse(blk|fs|\..*)?"
)
_LINE_OF_MACOS = re.compile(r".+? on (?P<point>/.*) \((?P<kind>\w+)[,)]")


def unsafe_kind(folder: Path, mounts: list[tuple[str, str]] | None = None) -> str | None:
    """The type of the file system that ``folder`` is on, if no database must be there; else None."""
    where = os.path.realpath(folder)
    best, kind = -1, ""
    for point, its_kind in here() if mounts is None else mounts:
        # A later one of equal length was mounted over the earlier one.
        if len(point) >= best and (where == point or where.startswith(point.rstrip("/") + "/")):
            best, kind = len(point), its_kind
    return kind if _UNSAFE.fullmatch(kind) else None


def here() -> list[tuple[str, str]]:
    """Where file systems are mounted on this machine, and the type of each, in the order they were mounted."""
    try:
        if sys.platform == "darwin":
            said = subprocess.run(["/sbin/mount"], capture_output=True, timeout=5, check=True).stdout
            return list(of_macos(said.decode("utf-8", "surrogateescape")))
        return list(of_linux(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")))
    except (OSError, subprocess.SubprocessError):
        return []


def of_linux(mountinfo: str) -> Iterator[tuple[str, str]]:
    r"""``36 35 98:0 / /mnt rw,noatime shared:1 - ext4 /dev/sda1 rw``; an odd character is ``\040`` and the like."""
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        fields, tail = mount.split(" "), source.split(" ")
        if len(fields) >= 5 and tail[0]:
            yield re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), fields[4]), tail[0]


def of_macos(said: str) -> Iterator[tuple[str, str]]:
    """``//me@server/share on /Volumes/my share (smbfs, nodev, nosuid, mounted by me)``."""
    for line in said.splitlines():
        if found := _LINE_OF_MACOS.match(line):
            yield found["point"], found["kind"]
