"""What a power cut leaves of a SQLite database: everything that was acknowledged, and a file that is whole.

A virtual file system under the store records every write, sync and truncation. At each acknowledgement the log must be
synced. Then, from many places of the record, the files are built as a power cut could have left them: what was synced
is there; of what was not, a seeded choice (whole, missing, or torn at a sector); and the store opens them.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure.model.ids import RunKey
from perdure.store.sqlite import SQLiteStore, headroom
from tests.store import build

pytestmark = [pytest.mark.crash, pytest.mark.slow]

SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
WORKFLOWS = 90
CHECKPOINT_EVERY = 11  # workflows
IMAGES = 250
SECTOR = 512
BASE = apsw.vfs_names()[0]  # named, since the default is ours while the tape runs


@dataclass(frozen=True)
class Op:
    """One thing that was done to a file: a write, a truncation, a sync, a removal; or (``ack``) what was promised."""

    file: str
    what: str
    offset: int = 0
    data: bytes = b""


class Tape:
    """All that was done, in order."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._lock = threading.Lock()

    def note(self, op: Op) -> None:
        with self._lock:
            self.ops.append(op)


class TapeFile(apsw.VFSFile):  # type: ignore[misc]
    def __init__(self, base: str, name: Any, flags: Any, tape: Tape) -> None:
        super().__init__(base, name, flags)
        self._name = os.path.basename(name.filename() if isinstance(name, apsw.URIFilename) else str(name))
        self._tape = tape

    def xWrite(self, data: bytes, offset: int) -> None:
        self._tape.note(Op(self._name, "write", offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._tape.note(Op(self._name, "truncate", size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        """A sync of the plain kind ends in the drive's cache on macOS (``fsync(2)`` there): it counts as none."""
        super().xSync(flags)
        if flags & 0x0F == apsw.SQLITE_SYNC_FULL:
            self._tape.note(Op(self._name, "sync"))


class TapeVFS(apsw.VFS):  # type: ignore[misc]
    """The system's own file system, with a tape running."""

    def __init__(self, tape: Tape) -> None:
        super().__init__("perdure-tape", BASE, makedefault=True)
        self._tape = tape

    def xOpen(self, name: Any, flags: Any) -> Any:
        return TapeFile(BASE, name, flags, self._tape)

    def xDelete(self, name: str, sync: bool) -> None:
        self._tape.note(Op(os.path.basename(name), "delete"))
        super().xDelete(name, sync)


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tape]:
    tape = Tape()
    vfs = TapeVFS(tape)
    lengthen = headroom.lengthen

    def noted(fd: int, size: int, by: int) -> int:
        tape.note(Op("power.db-wal", "write", size, bytes(by)))
        return lengthen(fd, size, by)

    monkeypatch.setattr(headroom, "lengthen", noted)
    yield tape
    vfs.unregister()


async def record(tape: Tape, path: Path, rng: random.Random) -> None:
    """Work on the store as engines do, noting each acknowledgement; and checkpoints, as they come in long work."""
    store = SQLiteStore(path, "power")
    await store.open()
    await store.migrate()
    tape.note(Op("", "ack"))
    for n in range(WORKFLOWS):
        id, claim = f"w{n}", build.tok("claim")
        steps = [build.record(i, data=rng.randbytes(rng.choice((20, 300, 5000))).hex().encode()) for i in (1, 2, 3)]
        await build.one(store, build.own(id, claim, records=steps[:1]))
        tape.note(Op(f"{id} 1", "ack"))
        await build.one(store, build.unit(id, claim, records=steps[1:], change=build.close()))
        tape.note(Op(f"{id} 3", "ack"))
        if n % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
            conn = apsw.Connection(str(path))
            conn.pragma("synchronous", "full")
            conn.pragma("fullfsync", True)
            conn.execute(f"pragma wal_checkpoint({rng.choice(('passive', 'full', 'restart', 'truncate'))})").fetchall()
            conn.close()
    await store.close()


def unsynced_at_acknowledgements(ops: list[Op]) -> list[str]:
    """Promises that were made while the log had writes which no sync had covered."""
    open_writes = 0
    wrong: list[str] = []
    for op in ops:
        if op.file.endswith("-wal"):
            open_writes = 0 if op.what == "sync" else open_writes + (op.what == "write")
        elif op.what == "ack" and open_writes:
            wrong.append(op.file)
    return wrong


def apply(image: bytearray, op: Op, data: bytes | None = None) -> None:
    data = op.data if data is None else data
    if op.what == "write":
        image.extend(bytes(max(0, op.offset - len(image))))
        image[op.offset : op.offset + len(data)] = data
    elif op.what == "truncate":
        del image[op.offset :]


def power_cut(ops: list[Op], rng: random.Random) -> dict[str, bytearray]:
    """The files after a power cut: synced writes are there, of the rest a choice, in any order that the disk liked."""
    images: dict[str, bytearray] = {}
    pending: dict[str, list[Op]] = {}
    for op in ops:
        match op.what:
            case "write" | "truncate":
                pending.setdefault(op.file, []).append(op)
            case "sync":
                for done in pending.pop(op.file, ()):
                    apply(images.setdefault(op.file, bytearray()), done)
            case "delete":
                images.pop(op.file, None)
                pending.pop(op.file, None)
    share = rng.choice((0.0, 0.2, 0.5, 0.8, 1.0))
    for file, waiting in pending.items():
        image = images.setdefault(file, bytearray())
        for op in waiting:
            if rng.random() < share:
                torn = op.what == "write" and rng.random() < 0.3
                apply(image, op, op.data[: SECTOR * rng.randrange(len(op.data) // SECTOR + 1)] if torn else None)
    return images


def lay_out(folder: Path, images: dict[str, bytearray]) -> None:
    folder.mkdir()
    for name, image in images.items():
        (folder / name).write_bytes(image)


async def reopened(folder: Path, images: dict[str, bytearray], promised: list[str]) -> None:
    """The store opens what is left, finds it whole, and has everything that was promised."""
    lay_out(folder, images)
    conn = apsw.Connection(str(folder / "power.db"), flags=apsw.SQLITE_OPEN_READWRITE)
    assert conn.pragma("integrity_check") == "ok"
    conn.close()
    store = SQLiteStore(folder / "power.db", "power")
    await store.open()
    try:
        assert await store.schema_version() != (0, 0)
        wanted = dict(line.split() for line in promised if line)  # the last promise of each workflow
        histories = await store.histories([RunKey(id, 1) for id in wanted])
        lost = [id for id, least in wanted.items() if len(histories[RunKey(id, 1)]) < int(least)]
        assert not lost, f"acknowledged, and lost: {lost}"
        rows = await store.rows(wanted)
        assert all(rows[id].status == "completed" for id, least in wanted.items() if least == "3")
        gaps = [k for k, found in histories.items() if [r.seq for r in found] != list(range(1, len(found) + 1))]
        assert not gaps
    finally:
        await store.close()


async def test_what_was_acknowledged_survives_a_power_cut(tape: Tape, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    await record(tape, tmp_path / "power.db", rng)
    ops = list(tape.ops)
    acks = [i for i, op in enumerate(ops) if op.what == "ack"]
    assert len(acks) == 2 * WORKFLOWS + 1
    assert any(op.file == "power.db" and op.what == "write" for op in ops[acks[0] :]), "no checkpoint was on the tape"
    assert any(len(op.data) >= headroom.PIECE_MIN for op in ops), "the log was never lengthened ahead"
    assert unsynced_at_acknowledgements(ops) == []
    # Right after an acknowledgement is where a promise is worth least; half of the images are cut there.
    cuts = [rng.choice(acks) + 1 if rng.random() < 0.5 else rng.randrange(acks[0] + 1, len(ops)) for _ in range(IMAGES)]
    where = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    for number, cut in enumerate(cuts):
        folder = where / f"perdure-power-{os.getpid()}-{number}"
        try:
            await reopened(folder, power_cut(ops[:cut], rng), [op.file for op in ops[:cut] if op.what == "ack"])
        except BaseException as error:
            error.add_note(f"image {number}, cut after {cut} of {len(ops)} operations; PERDURE_SEED={SEED}")
            raise
        finally:
            shutil.rmtree(folder)
    print(f"\n{IMAGES} images after a power cut, from {len(ops)} operations, {len(acks)} acknowledgements, seed {SEED}")
    assert IMAGES >= 200


def test_the_check_would_notice() -> None:
    """Without the sync before the acknowledgement, both checks fail."""
    ops = [Op("power.db-wal", "write", 0, b"x"), Op("w0 1", "ack")]
    assert unsynced_at_acknowledgements(ops) == ["w0 1"]
    assert any(not power_cut(ops, random.Random(seed))["power.db-wal"] for seed in range(20))
