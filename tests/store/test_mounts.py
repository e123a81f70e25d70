"""Where a SQLite file must not lie, as Linux and macOS tell of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.store.sqlite import mounts


@pytest.mark.parametrize(
    ("kind", "refused"),
    [("ext4", False), ("tmpfs", False), ("overlay", False), ("nfs4", True), ("fuse.sshfs", True), ("cifs", True)],
)
def test_file_systems_without_sound_locks_are_refused(kind: str, refused: bool) -> None:
    listed = list(
        mounts.of_linux(
            "22 1 8:1 / / rw - ext4 /dev/sda rw\n"
            f"23 22 0:9 / /mnt/my\\040data rw,relatime shared:1 - {kind} there rw\n"
            "24 22 0:9 / /mnt/my\\040data/in rw - xfs here rw\n"
        )
    )
    assert mounts.unsafe_kind(Path("/mnt/my data/x"), listed) == (kind if refused else None)
    assert mounts.unsafe_kind(Path("/mnt/my data"), listed) == (kind if refused else None)
    assert mounts.unsafe_kind(Path("/mnt/my data/in/x"), listed) is None
    assert mounts.unsafe_kind(Path("/mnt/my database"), listed) is None


def test_file_systems_are_told_apart_on_macos_too() -> None:
    listed = list(
        mounts.of_macos(
            "/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)\n"
            "devfs on /dev (devfs, local, nobrowse)\n"
            "/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse, protect, root data)\n"
            "map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)\n"
            "//me@nas._smb._tcp.local/on on on /Volumes/my on (old) (smbfs, nodev, nosuid, mounted by me)\n"
        )
    )
    assert [kind for _, kind in listed] == ["apfs", "devfs", "apfs", "autofs", "smbfs"]
    assert mounts.unsafe_kind(Path("/Volumes/my on (old)/x"), listed) == "smbfs"
    assert mounts.unsafe_kind(Path("/Volumes/my"), listed) is None
    assert mounts.unsafe_kind(Path("/System/Volumes/Data/x"), listed) is None
