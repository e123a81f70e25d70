"""Versions that were launched, and where new work goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure.model.states import Reason, Status, Versioning
from perdure.model.versions import Routing, Terms, Unfinished, Version
from perdure.model.writes import Hold, Park
from perdure.store.base import Store
from perdure.versions.routing import FIRST_EVER, FIRST_LAUNCH, RELAUNCH, ramps, share
from tests.store.build import (
    ME,
    OTHER,
    SECOND,
    T,
    close,
    one,
    own,
    queued,
    record,
    row,
    running,
    start,
    tok,
    unit,
    want,
)
from tests.store.test_executors import who

PRINTS = {"flow": "f1", "other": ""}


async def launched(
    store: Store, version: str, *apart: bytes, now: int = T, auto: bool = True, prints: dict[str, str] = PRINTS
) -> Routing:
    return await store.launched(version, prints, apart, auto=auto, now=now)


async def current(store: Store) -> str:
    routing = await store.routing()
    assert routing is not None
    return routing.current


async def test_the_first_launch_of_an_app_makes_its_version_current(store: Store) -> None:
    assert await store.routing() is None
    assert await store.versions() == []
    expected = Routing(current="v1", revision=1, changed=T, because=FIRST_EVER)
    assert await launched(store, "v1", auto=False) == expected
    assert await store.routing() == expected
    known = Version(name="v1", fingerprints=PRINTS, first_launched=T, launched=T, since=T, routed=True)
    assert await store.versions() == [known]


async def test_a_version_launched_for_the_first_time_becomes_current_under_auto_alone(store: Store) -> None:
    await launched(store, "v1")
    await store.register(who(ME, version="v1"), SECOND, now=T)
    assert (await launched(store, "v2", auto=False, now=T + 1)).current == "v1"
    routing = await launched(store, "v3", now=T + 2)
    assert routing == Routing(current="v3", revision=2, changed=T + 2, because=FIRST_LAUNCH)
    assert await store.routing() == routing
    assert [v.name for v in await store.versions()] == ["v3", "v2", "v1"]


async def test_a_launch_again_is_noted_with_its_time_and_fingerprints(store: Store) -> None:
    await launched(store, "v1")
    await launched(store, "v1", now=T + 5, prints={"flow": "f2"})
    assert await store.versions() == [
        Version(name="v1", fingerprints={"flow": "f2"}, first_launched=T, launched=T + 5, since=T, routed=True),
    ]


async def test_a_version_launched_again_becomes_current_once_nobody_serves_the_current_one(store: Store) -> None:
    await launched(store, "v1")
    await launched(store, "v2")
    await store.register(who(ME, version="v2"), SECOND, now=T)
    assert (await launched(store, "v1", now=T + 1)).current == "v2"
    assert (await launched(store, "v1", OTHER, now=T + 1)).current == "v2"
    routing = await launched(store, "v1", ME, now=T + 2)  # which counts for nothing: proven gone
    assert (routing.current, routing.because, routing.revision) == ("v1", RELAUNCH, 3)
    await store.register(who(OTHER, version="v1"), SECOND, now=T)
    assert (await launched(store, "v2", now=T + 2 * SECOND)).current == "v2", "the lease of v1 has run out"


async def test_who_drains_or_has_left_serves_no_longer(store: Store) -> None:
    await launched(store, "v1")
    await launched(store, "v2")
    await store.register(who(ME, version="v2", state="draining"), SECOND, now=T)
    await store.register(who(OTHER, version="v2"), SECOND, now=T)
    await store.bury([OTHER], expired_only=False, now=T)
    assert (await launched(store, "v1")).current == "v1"


async def test_many_launch_at_once_and_one_decides(make_store: Callable[[str], Awaitable[Store]]) -> None:
    stores = [await make_store("app") for _ in range(4)]
    await asyncio.gather(*(launched(store, "v1") for store in stores))
    await asyncio.gather(*(launched(store, "v2") for store in stores))
    routing = await stores[0].routing()
    assert routing is not None
    assert (routing.current, routing.revision) == ("v2", 2)


async def test_versions_belong_to_their_app(make_store: Callable[[str], Awaitable[Store]]) -> None:
    a, b = await make_store("a"), await make_store("b")
    await launched(a, "v1")
    assert await b.routing() is None
    assert await b.versions() == []
    await b.register(who(tok(), version="v1"), SECOND, now=T)
    await launched(a, "v2")
    assert (await launched(a, "v1")).current == "v1", "b's executor serves nothing of a"


# -- unfinished work


async def test_open_work_is_counted_by_version_with_its_oldest(store: Store) -> None:
    assert await store.unfinished() == []
    await store.register(who(ME), SECOND, now=T)
    await running(store, "held", now=T + 3)  # v1, held by ME
    await queued(store, "a", "b", now=T + 5, version="v1")
    await queued(store, "c", now=T + 1, version="v2")
    await queued(store, "none yet", now=T, version="")
    claim = await running(store, "done", now=T)
    await one(store, unit("done", claim, change=close()))
    assert await store.unfinished() == [
        Unfinished(version="v2", count=1, oldest=T + 1),
        Unfinished(version="v1", count=3, oldest=T + 3),
    ]
    assert [u.count for u in await store.unfinished(2)] == [1, 2]


async def test_unfinished_work_belongs_to_its_app(make_store: Callable[[str], Awaitable[Store]]) -> None:
    a, b = await make_store("a"), await make_store("b")
    await queued(a, "w", version="v1")
    assert await b.unfinished() == []


# -- upgrades


UP = Versioning.AUTO_UPGRADE
BY_CODE = frozenset({Reason.NONDETERMINISM})


async def upgraded(store: Store, limit: int = 10, **more: Any) -> int:
    return await store.upgrade("v2", ["flow"], limit, retry=BY_CODE, now=T + 9, **more)


async def versions(store: Store, *ids: str) -> list[str]:
    rows = await store.rows(ids)
    return [rows[id].version for id in ids]


async def test_what_goes_with_the_current_version_is_given_it(store: Store) -> None:
    await queued(store, "up", "up too", versioning=UP)
    await queued(store, "stays", versioning=Versioning.PINNED)
    await queued(store, "undeclared")
    await queued(store, "other name", name="other", versioning=UP)
    await queued(store, "none yet", version="", versioning=UP)
    claim = tok("claim")
    await one(store, own("running", claim, start=start("running", claim, versioning=UP)))
    assert await upgraded(store) == 2
    assert await upgraded(store) == 0
    assert await versions(store, "up", "up too") == ["v2", "v2"]
    assert await versions(store, "stays", "undeclared", "other name", "running") == ["v1"] * 4
    assert await versions(store, "none yet") == [""]
    got = {c.row.id for c in await store.claim(want(version="v2"), now=T + 10)}
    assert got == {"up", "up too", "none yet"}


@pytest.mark.parametrize("held", [False, True])
async def test_a_ramp_parts_what_goes_with_the_routing_by_its_ids(store: Store, held: bool) -> None:
    ids = [f"w{n}" for n in range(40)]
    within = [id for id in ids if ramps("app", id, 30.0)]
    others = [id for id in ids if id not in within]
    assert 5 < len(within) < 20
    if held:
        claim = tok("claim")
        await store.commit([own(id, claim, start=start(id, claim, versioning=UP)) for id in ids], now=T)
    else:
        await queued(store, *ids, versioning=UP)
    how: dict[str, Any] = {"gone": [ME] if held else [], "retry": BY_CODE}
    ramp = share(30.0)
    assert await store.upgrade("v2", ["flow"], 100, ramp=(ramp, True), now=T, **how) == len(within)
    assert await store.upgrade("v3", ["flow"], 100, ramp=(ramp, False), now=T, **how) == len(others)
    assert set(await versions(store, *within)) == {"v2"}
    assert set(await versions(store, *others)) == {"v3"}
    for version, inside in (("v2", True), ("v3", False)):
        assert await store.upgrade(version, ["flow"], 100, ramp=(ramp, inside), now=T, **how) == 0
    larger = [id for id in ids if ramps("app", id, 60.0)]
    moved = await store.upgrade("v2", ["flow"], 100, ramp=(share(60.0), True), now=T, **how)
    assert moved == len(larger) - len(within), "a larger share only adds"
    assert await store.upgrade("v3", ["flow"], 100, now=T, **how) == len(larger), "without a ramp, all of it"


async def test_no_more_than_the_limit_at_once(store: Store) -> None:
    await queued(store, *"abc", versioning=UP)
    await queued(store, *"de", version="v0", versioning=UP)
    assert [await upgraded(store, 2) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.usefixtures("serving")
async def test_what_the_gone_hold_is_moved_where_it_is_and_taken_over_from_there(store: Store) -> None:
    claim = tok("claim")
    starts = {id: start(id, claim, versioning=v) for id, v in (("w", UP), ("stays", Versioning.PINNED))}
    await store.commit([own(id, claim, start=s) for id, s in starts.items()], now=T)
    assert await upgraded(store, gone=[OTHER]) == 0
    assert await upgraded(store, gone=[ME]) == 1
    after = await row(store, "w")
    assert (after.version, after.status, after.owner, after.claim) == ("v2", Status.RUNNING, ME, None)
    late = await one(store, unit("w", claim, record(1)))
    assert not late.applied, (
        "who held it may only have been stopped: nothing of the old version is written after the move"
    )
    [taken] = await store.adopt([ME], want(owner=OTHER, version="v2"), now=T + 9)
    assert (taken.row.id, taken.row.attempts) == ("w", 1)


async def test_what_waits_goes_on_waiting_under_the_other_version(store: Store) -> None:
    claim = tok("claim")
    await one(store, own("w", claim, start=start("w", claim, versioning=UP)))
    park = unit("w", claim, change=Park(T + 5 * SECOND, "a timer"))
    await one(store, park)
    assert await upgraded(store) == 1
    await one(store, park)  # whose answer was lost
    after = await row(store, "w")
    assert (after.version, after.status, after.until, after.detail) == ("v2", Status.WAITING, T + 5 * SECOND, "a timer")


@pytest.mark.parametrize(("reason", "status"), [(Reason.NONDETERMINISM, "queued"), (Reason.RECOVERY_LIMIT, "held")])
async def test_what_is_held_is_queued_if_the_code_was_the_reason(store: Store, reason: Reason, status: str) -> None:
    claim = tok("claim")
    await one(store, own("w", claim, start=start("w", claim, versioning=UP)))
    hold = unit("w", claim, change=Hold(reason, "why"))
    await one(store, hold)
    assert await upgraded(store) == 1
    after = await row(store, "w")
    assert (after.version, str(after.status)) == ("v2", status)
    if status == "queued":
        assert (after.reason, after.detail, after.until) == (None, "", T + 9)
        assert not (await one(store, hold)).applied, "a late second try of the hold"
    else:
        assert (after.reason, after.detail, after.until) == (reason, "why", None)


async def test_what_the_code_declares_is_noted_under_the_claim(store: Store) -> None:
    await queued(store, "a", "b")
    await queued(store, "said", versioning=Versioning.PINNED)
    [*claimed] = await store.claim(want(), now=T)
    token = claimed[0].row.claim or b""
    assert await store.declare(terms("a", "b", "said", "unknown"), tok("stale")) == 0
    assert await store.declare(terms("b", "said", "unknown"), token) == 1
    rows = await store.rows(["a", "b", "said"])
    assert [rows[id].versioning for id in ("a", "b", "said")] == [Versioning.UNDECLARED, UP, Versioning.PINNED]
    assert await store.declare([], token) == 0


async def test_a_declared_timeout_counts_from_the_begin_and_never_beyond_another(store: Store) -> None:
    await queued(store, "free")
    await queued(store, "told", timeout=50)
    await queued(store, "sooner", deadline=T + 30)
    await queued(store, "later", deadline=T + 3000)
    [*claimed] = await store.claim(want(), now=T + 7)
    token = claimed[0].row.claim or b""
    ids = ("free", "told", "sooner", "later")
    assert await store.declare(terms(*ids, timeout=100), tok("stale")) == 0
    assert await store.declare(terms(*ids, versioning=Versioning.UNDECLARED, timeout=100), token) == 3
    assert await store.declare(terms(*ids, versioning=Versioning.UNDECLARED, timeout=900), token) == 0, "it stays"
    rows = await store.rows(ids)
    assert [rows[id].timeout for id in ids] == [100, 50, 100, 100]
    assert [rows[id].deadline for id in ids] == [T + 107, T + 57, T + 30, T + 107]
    assert {rows[id].versioning for id in ids} == {Versioning.UNDECLARED}


def terms(*ids: str, versioning: Versioning = UP, timeout: int | None = None) -> list[Terms]:
    return [Terms(id=id, versioning=versioning, timeout=timeout) for id in ids]


async def test_schemes_are_kept_by_version(store: Store) -> None:
    await store.launched("v1", {"S": "f"}, [], auto=True, now=T)
    await store.launched("v2", {"S": "f"}, [], auto=True, now=T + SECOND)
    assert await store.schemes() == {}
    await store.note_schemes("v1", {"S": "one", "T": "two"})
    await store.note_schemes("v2", {"S": "three"})
    await store.note_schemes("v2", {"S": "three"})
    await store.note_schemes("v3", {"S": "never launched"})
    assert list((await store.schemes()).items()) == [("v2", {"S": "three"}), ("v1", {"S": "one", "T": "two"})]
    await store.launched("v1", {"S": "f"}, [], auto=True, now=T + 2 * SECOND)
    assert list(await store.schemes()) == ["v1", "v2"]
