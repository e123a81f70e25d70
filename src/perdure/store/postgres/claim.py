"""Taking workflows, and the one look that tells when there is something to take.

Promise: whoever takes a workflow gets it in one statement with its wakes: they are deleted, a cancel command among
them is kept in the row, and its watches are forgotten. Rows that others have locked are skipped. Histories are read
later, by statements of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from perdure.model.ids import Holding, RunKey
from perdure.model.records import Claimed, Wake
from perdure.store import asks
from perdure.store.asks import ClaimRequest, Poll
from perdure.store.lines import lines_of
from perdure.store.postgres import rows
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link


async def claim(link: Link, place: Place, want: ClaimRequest, now: int | None) -> list[Claimed]:
    found = await link.fetch(
        place.sql["claim_ready"], place.app, now, want.limit, want.owner, want.token, want.version,
        "" if want.fresh else want.version, want.suspect, *_let(want), want.after, asks.WAKES, writing=True,
    )  # fmt: skip
    return [rows.ready(row) for row in found]


def _let(want: ClaimRequest) -> tuple[list[str], list[str], list[int], int | None]:
    """What queues let the asker have, as parameters."""
    return list(want.full), [queue for queue, _ in want.some], [free for _, free in want.some], want.series


async def adopt(
    link: Link,
    place: Place,
    gone: Collection[bytes],
    want: ClaimRequest,
    now: int | None,
    *,
    death: bool,
    suspects: bool,
    spared: Collection[bytes],
) -> list[Claimed]:
    found = await link.fetch(
        place.sql["claim_suspects" if suspects else "claim_orphans"], place.app, now, want.limit, want.owner,
        want.token, want.version, sorted(gone), int(death), sorted(spared), *_let(want), writing=True,
    )  # fmt: skip
    return [rows.claimed(row) for row in found]


async def reclaim(
    link: Link, place: Place, keys: Sequence[RunKey], want: ClaimRequest, now: int | None
) -> list[Claimed]:
    keys = sorted(set(keys))  # the order of locks
    ids, runs = [key.id for key in keys], [key.run for key in keys]
    found = await link.fetch(
        place.sql["claim_again"], place.app, now, max(want.limit, len(ids)), want.owner, want.token, want.version,
        ids, runs, want.series, writing=True,
    )  # fmt: skip
    return [rows.claimed(row) for row in found]


async def poll(
    link: Link,
    place: Place,
    owner: bytes | None,
    held: Collection[Holding] | None,
    version: str,
    now: int | None,
    *,
    fresh: bool,
    after: str,
) -> Poll:
    """One statement; ``held`` None spares it the search for what ``owner`` holds without knowing."""
    known = held or ()
    ids, runs, claims = [one.id for one in known], [one.run for one in known], [one.claim for one in known]
    row = await link.fetchrow(
        place.sql["poll"], place.app, now, owner, ids, runs, held is not None, version, "" if fresh else version,
        after, asks.WAKES, claims,
    )  # fmt: skip
    wakes = [Wake(*wake) for wake in zip(row[2] or (), row[3] or (), row[4] or (), row[14] or (), strict=True)]
    lost = sorted(Holding(*one) for one in zip(row[5] or (), row[6] or (), row[16] or (), strict=True))
    return Poll(
        now=row[0], wakes=wakes, claimable=row[1], lost=lost,
        lines=lines_of(zip(row[7] or (), row[8] or (), strict=True)), due=row[9],
        told=list(dict(zip(row[10] or (), row[11] or (), strict=True)).items()), revision=row[12], schedule=row[13],
        after=row[15] or "",
    )  # fmt: skip
