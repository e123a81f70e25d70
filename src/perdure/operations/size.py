"""What a database holds, by table and by kind of workflow, and what to do about it."""

from __future__ import annotations

import msgspec

from perdure.model.states import Status
from perdure.store.upkeep import Sizes, TableSize, Upkeep, Weight

PAGE = 500
WEIGHED_MAX = 20_000  # workflows that are weighed, the oldest first; the others are taken to be like them
MANY_PAST = 10_000  # earlier runs, from which on it is worth a word
DEAD_MANY = 10_000
DEAD_SHARE = 0.5  # dead rows to live ones, from which on autovacuum seems not to keep up
FREE_SHARE = 0.25  # free pages of a file, from which on it is worth a word


class KindSize(msgspec.Struct, frozen=True, kw_only=True):
    """The workflows of one name and status."""

    name: str
    status: Status
    count: int
    rows: int
    bytes: int
    exact: bool
    """Whether all of them were weighed, and not only the oldest of many."""
    oldest: int
    """When the oldest of them was created: microseconds since 1970, UTC."""


class DatabaseSize(msgspec.Struct, frozen=True, kw_only=True):
    """What ``Client.size`` answers. ``tables`` and ``bytes`` are of the whole database, ``kinds`` of the app."""

    bytes: int
    free: int
    """Bytes of a SQLite file that new rows will use again."""
    exact: bool
    """Whether the rows of the tables were counted: Postgres tells what it last knew."""
    tables: tuple[TableSize, ...]
    kinds: tuple[KindSize, ...]
    past_runs: int
    """Earlier runs of the app's workflows."""
    advice: tuple[str, ...]


async def measure(upkeep: Upkeep, *, now: int | None = None) -> DatabaseSize:
    """Count and weigh; reads much, changes nothing."""
    sizes = await upkeep.sizes(now=now)
    weighed = await _weigh(upkeep, sizes)
    kinds: list[KindSize] = []
    for kind in sizes.kinds:
        count, weight = weighed.get((kind.name, kind.status), (0, Weight()))
        share = kind.count / count if count else 0.0
        kinds.append(
            KindSize(
                name=kind.name, status=kind.status, count=kind.count, rows=round(weight.rows * share),
                bytes=round(weight.bytes * share), exact=count >= kind.count, oldest=kind.oldest,
            )
        )  # fmt: skip
    return DatabaseSize(
        bytes=sizes.bytes, free=sizes.free, exact=sizes.exact, tables=tuple(sizes.tables), kinds=tuple(kinds),
        past_runs=sizes.past_runs, advice=tuple(_advice(sizes, kinds)),
    )  # fmt: skip


async def _weigh(upkeep: Upkeep, sizes: Sizes) -> dict[tuple[str, Status], tuple[int, Weight]]:
    found: dict[tuple[str, Status], tuple[int, Weight]] = {}
    after, seen = (-1, ""), 0
    while seen < WEIGHED_MAX:
        page = await upkeep.ended(after, sizes.now, PAGE)
        if not page:
            break
        weights = await upkeep.weigh([c.id for c in page])
        for c in page:
            count, weight = found.get((c.name, c.status), (0, Weight()))
            found[c.name, c.status] = (count + 1, weight.plus(weights[c.id]))
        after, seen = (page[-1].created, page[-1].id), seen + len(page)
    return found


def _advice(sizes: Sizes, kinds: list[KindSize]) -> list[str]:
    said: list[str] = []
    closed = [k for k in kinds if not k.status.open]
    if closed:
        most = max(closed, key=lambda k: k.bytes)
        said.append(
            f"most of what has ended: {most.count} of {most.name}, {most.status}; what would go: "
            f"perdure db purge --older-than 30d --status {most.status} --type {most.name} --plan"
        )
    if sizes.past_runs > MANY_PAST:
        said.append(
            f"{sizes.past_runs} earlier runs are kept; they go by age with retain={{'past': …}}, or "
            "perdure db purge --older-than 30d --status past"
        )
    said.extend(
        f"{table.dead} dead rows in {table.name}: autovacuum does not keep up. Look for long transactions (perdure "
        "doctor), or lower autovacuum_vacuum_scale_factor for it"
        for table in sizes.tables
        if table.dead > DEAD_MANY and table.dead > table.rows * DEAD_SHARE
    )
    if sizes.free > sizes.bytes * FREE_SHARE and sizes.free > 1 << 20:
        said.append(
            f"{sizes.free} bytes of the file are free and will be used again; perdure db purge --vacuum gives them back"
        )
    return said
