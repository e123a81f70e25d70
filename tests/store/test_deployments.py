"""Deployments in the database: orders, what is counted as open, the list of changes; on every dialect."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from perdure.model.deployments import (
    Abort,
    DeleteVersion,
    Deployment,
    OpenWork,
    Order,
    Ruling,
    SetCurrent,
    SetMetadata,
    SetRamping,
    State,
    UnsetRamping,
    Verb,
    Why,
)
from perdure.model.problems import OF_HOLD, ProblemKind, Trouble
from perdure.model.records import Outcome
from perdure.model.states import Reason, Status, Versioning
from perdure.model.versions import Bound, Sample, Watch
from perdure.model.writes import Close, Hold, Park
from perdure.store.base import Store
from perdure.versions.deployments import state_of
from perdure.versions.routing import FIRST_EVER, FIRST_LAUNCH
from tests.store.build import ME, OTHER, SECOND, T, close, one, own, queued, running, start, tok, unit
from tests.store.test_executors import who
from tests.store.test_versions import launched

MakeStore = Callable[[str], Awaitable[Store]]
LEASE = 1_000 * SECOND
UP = Versioning.AUTO_UPGRADE


async def ordered(store: Store, verb: Verb, *, now: int = T, **how: Any) -> Ruling:
    fields: dict[str, Any] = {"nonce": tok("order"), "by": "ann@host", "allow_no_executors": True}
    return await store.change_deployment(Order(verb=verb, **{**fields, **how}), now=now)


async def two_versions(store: Store) -> None:
    """``v1``, then ``v2``, which a launch made current; nobody serves."""
    await launched(store, "v1", now=T)
    await launched(store, "v2", now=T + 1)


def states(found: Deployment) -> dict[str, State]:
    return {one.name: state_of(found.routing, one, found.open) for one in found.versions if one.deleted is None}


async def seen(store: Store, now: int = T) -> Deployment:
    return await store.deployment(now=now)


# -- states, as work and traffic come and go


async def test_from_inactive_to_current_to_draining_to_drained_and_back(store: Store) -> None:
    await launched(store, "v1", auto=False, now=T)
    await launched(store, "v2", auto=False, now=T + 1)
    assert states(await seen(store)) == {"v1": State.CURRENT, "v2": State.INACTIVE}
    await ordered(store, SetCurrent("v2"), now=T + 2)
    assert states(await seen(store)) == {"v1": State.DRAINED, "v2": State.CURRENT}
    await queued(store, "w", version="v1")
    assert states(await seen(store)) == {"v1": State.DRAINING, "v2": State.CURRENT}, "whenever it came"
    await store.terminate("w", "over", tok("end"), now=T + 3)
    assert states(await seen(store)) == {"v1": State.DRAINED, "v2": State.CURRENT}
    await ordered(store, SetRamping("v1", 0.1), now=T + 4)
    assert states(await seen(store)) == {"v1": State.RAMPING, "v2": State.CURRENT}
    await ordered(store, SetCurrent("v1"), now=T + 5)
    assert states(await seen(store)) == {"v1": State.CURRENT, "v2": State.DRAINED}


async def test_since_changes_with_the_part_of_new_work_alone(store: Store) -> None:
    async def since() -> dict[str, int]:
        return {one.name: one.since - T for one in await store.versions()}

    await launched(store, "v1", auto=False, now=T)
    await launched(store, "v2", auto=False, now=T + 1)
    assert await since() == {"v1": 0, "v2": 1}
    await ordered(store, SetRamping("v2", 5.0), now=T + 10)
    await ordered(store, SetRamping("v2", 50.0), now=T + 20)
    await launched(store, "v2", auto=False, now=T + 25)
    assert await since() == {"v1": 0, "v2": 10}, "a larger share, or another launch, is no other state"
    await ordered(store, SetCurrent("v2"), now=T + 30)
    assert await since() == {"v1": 30, "v2": 30}
    await ordered(store, SetMetadata("v1", {"a": 1}), now=T + 40)
    await ordered(store, SetCurrent("v2"), now=T + 50)
    assert await since() == {"v1": 30, "v2": 30}


async def test_what_stays_with_a_version_is_counted_by_behaviour_whoever_holds_it(store: Store) -> None:
    await two_versions(store)
    await queued(store, "pinned", "pinned too", version="v1", versioning=Versioning.PINNED)
    await queued(store, "undeclared", version="v1")
    await queued(store, "up", version="v1", versioning=UP)
    await queued(store, "nobody's", version="")
    await running(store, "held by me", versioning=Versioning.PINNED)
    claim = tok("claim")
    await one(store, own("stuck", claim))
    await one(store, unit("stuck", claim, change=Hold(Reason.NONDETERMINISM, "why")))
    claim = tok("claim")
    await one(store, own("parked", claim))
    await one(store, unit("parked", claim, change=Park(T + 5, "a timer")))
    claim = tok("claim")
    await one(store, own("done", claim, start=start("done", claim, versioning=Versioning.PINNED)))
    await one(store, unit("done", claim, change=close()))
    found = await seen(store)
    assert found.open == [
        OpenWork("v1", Versioning.UNDECLARED, 3),
        OpenWork("v1", Versioning.PINNED, 3),
        OpenWork("v1", UP, 1),
    ]
    bounded = await store.deployment(bound=1, now=T)
    assert [one.count for one in bounded.open] == [1, 2, 1], "a bound for each of those who hold it"
    await ordered(store, SetCurrent("v2"))
    assert states(await seen(store))["v1"] is State.DRAINING


async def test_one_pinned_among_many_that_go_on_is_seen(store: Store) -> None:
    """A bound on what is counted must not hide it."""
    await two_versions(store)
    await queued(store, *(f"w{n}" for n in range(30)), version="v1", versioning=UP)
    assert states(await store.deployment(bound=1, now=T))["v1"] is State.DRAINED
    await queued(store, "z", version="v1", versioning=Versioning.PINNED)
    assert states(await store.deployment(bound=1, now=T))["v1"] is State.DRAINING


async def test_owners_that_no_row_tells_of_count(store: Store) -> None:
    """As after a failover: nobody known as ``ME`` is there."""
    await two_versions(store)
    await running(store, "w", versioning=Versioning.PINNED)
    assert [who.id for who in (await seen(store)).executors] == []
    assert states(await seen(store))["v1"] is State.DRAINING
    assert (await ordered(store, DeleteVersion("v1"))).why is Why.DRAINING


async def test_a_deployment_belongs_to_its_app(make_store: MakeStore) -> None:
    a, b = await make_store("a"), await make_store("b")
    await two_versions(a)
    await queued(a, "w", version="v1")
    empty = await b.deployment(now=T)
    assert empty == Deployment(now=T, routing=None, versions=[], executors=[], open=[], changes=[])
    assert (await ordered(b, SetCurrent("v1"))).why is Why.NOTHING
    await launched(b, "v1")
    assert (await ordered(b, DeleteVersion("v2"))).why is Why.UNKNOWN
    assert [one.kind for one in (await b.deployment(now=T)).changes] == ["launch"]


# -- orders


async def test_an_order_changes_the_routing_and_withdraws_what_loses_traffic(store: Store) -> None:
    await two_versions(store)
    ruling = await ordered(store, SetRamping("v1", 12.5), now=T + 3, reason="try it", revision=2)
    after = await store.routing()
    assert ruling.changed
    assert ruling.after == after
    assert after is not None
    assert (after.current, after.ramping, after.percentage, after.revision) == ("v2", "v1", 12.5, 3)
    assert (after.changed, after.because) == (T + 3, "try it")
    assert {one.name: one.withdrawn for one in await store.versions()} == {"v1": False, "v2": False}
    await ordered(store, UnsetRamping(), now=T + 4)
    assert {one.name: one.withdrawn for one in await store.versions()} == {"v1": True, "v2": False}
    await ordered(store, SetCurrent("v1"), now=T + 5)
    assert {one.name: one.withdrawn for one in await store.versions()} == {"v1": False, "v2": True}
    assert (await launched(store, "v2", now=T + 6)).current == "v1", "no launch gives it traffic again"


async def test_a_stale_revision_is_refused_and_changes_nothing(store: Store) -> None:
    await two_versions(store)
    before = await seen(store)
    for verb in (SetCurrent("v1"), SetRamping("v1", 5.0), SetMetadata("v1", {"a": 1}), DeleteVersion("v1")):
        ruling = await ordered(store, verb, revision=1)
        assert ruling.why is Why.STALE, verb
        assert ruling.before is not None
        assert ruling.before.revision == 2
    assert await seen(store) == before
    assert (await ordered(store, SetCurrent("v1"), revision=2)).changed
    assert not (await ordered(store, SetCurrent("v1"), revision=2)).changed, "it is so"


async def test_who_is_alive_serves_and_who_drains_or_is_proven_gone_does_not(store: Store) -> None:
    await two_versions(store)
    how: dict[str, Any] = {"allow_no_executors": False}
    assert (await ordered(store, SetCurrent("v1"), **how)).why is Why.NO_EXECUTORS
    assert (await ordered(store, SetCurrent("v9"), **how)).why is Why.NEVER_LAUNCHED
    await store.register(who(ME, version="v1", state="draining"), LEASE, now=T)
    assert (await ordered(store, SetCurrent("v1"), **how)).why is Why.NO_EXECUTORS
    await store.register(who(OTHER, version="v1", executor="live"), SECOND, now=T)
    assert (await ordered(store, SetCurrent("v1"), apart=(OTHER,), **how)).why is Why.NO_EXECUTORS
    assert (await ordered(store, SetCurrent("v1"), now=T + 2 * SECOND, **how)).why is Why.NO_EXECUTORS
    ruling = await ordered(store, SetCurrent("v1"), **how)
    assert (ruling.changed, ruling.executors) == (True, ("live",))


async def test_a_version_is_deleted_only_without_traffic_executors_and_work(store: Store) -> None:
    await two_versions(store)
    assert (await ordered(store, DeleteVersion("v2"))).why is Why.IS_CURRENT
    await ordered(store, SetRamping("v1", 1.0))
    assert (await ordered(store, DeleteVersion("v1", True))).why is Why.IS_RAMPING
    await ordered(store, UnsetRamping())
    await store.register(who(ME, version="v1", executor="old", state="draining"), SECOND, now=T)
    ruling = await ordered(store, DeleteVersion("v1", True))
    assert (ruling.why, ruling.executors) == (Why.HAS_EXECUTORS, ("old",))
    await queued(store, "w", "x", version="v1")
    await queued(store, "up", version="v1", versioning=UP)
    later = T + 2 * SECOND  # its lease has run out
    ruling = await ordered(store, DeleteVersion("v1"), now=later)
    assert ruling.why is Why.DRAINING
    assert [one for one in ruling.open if one.stays] == [OpenWork("v1", Versioning.UNDECLARED, 2)]
    ruling = await ordered(store, DeleteVersion("v1", True), now=later)
    assert ruling.changed
    assert sum(one.count for one in ruling.open) == 3
    assert states(await seen(store)) == {"v2": State.CURRENT}
    assert not (await ordered(store, DeleteVersion("v1"), now=later)).changed


async def test_no_number_of_versions_is_too_many(store: Store) -> None:
    """Nothing is deleted to make room, and nothing is refused for want of it."""
    for n in range(110):
        await launched(store, f"v{n}", auto=False, now=T + n)
    assert (await ordered(store, SetCurrent("v109"), allow_no_executors=True)).changed
    assert set(states(await seen(store))) == {f"v{n}" for n in range(110)}


async def test_a_launch_brings_a_deleted_version_back_and_what_was_said_of_it(store: Store) -> None:
    await two_versions(store)
    await ordered(store, SetMetadata("v2", {"a": 1}))
    await ordered(store, SetCurrent("v1"))
    await ordered(store, DeleteVersion("v2"), now=T + 9)
    [gone] = [one for one in await store.versions() if one.name == "v2"]
    assert (gone.deleted, gone.withdrawn, gone.first_launched) == (T + 9, True, T + 1)
    routing = await launched(store, "v2", now=T + 10)
    assert routing.current == "v1", "it is no new version"
    [back] = [one for one in await store.versions() if one.name == "v2"]
    assert (back.deleted, back.withdrawn, back.launched, back.metadata) == (None, True, T + 10, b"{}")
    assert states(await seen(store))["v2"] is State.DRAINED


async def test_a_version_may_be_named_before_its_launch(store: Store) -> None:
    await launched(store, "v1", now=T)
    await store.register(who(ME, version="v1"), LEASE, now=T)
    await ordered(store, SetRamping("v2", 10.0), now=T + 1)
    named = next(one for one in await store.versions() if one.name == "v2")
    assert (named.first_launched, named.routed, named.since) == (0, True, T + 1)
    assert states(await seen(store))["v2"] is State.RAMPING
    routing = await launched(store, "v2", now=T + 2)
    assert (routing.current, routing.ramping) == ("v1", "v2"), "it has its share, and no launch gives it more"
    there = next(one for one in await store.versions() if one.name == "v2")
    assert (there.first_launched, there.launched) == (T + 2, T + 2)


async def test_metadata_are_kept_and_looked_at_by_name(store: Store) -> None:
    await two_versions(store)
    await ordered(store, SetMetadata("v1", {"commit": "4f1c2aa", "tested": True, "größe": [1, None]}))
    await ordered(store, SetMetadata("v1", {"tested": False}, ("commit",)))
    [kept] = [one for one in await store.versions() if one.name == "v1"]
    assert kept.metadata == '{"größe":[1,null],"tested":false}'.encode()


# -- the list of changes


async def test_every_change_is_listed_with_who_and_why_launches_too(store: Store) -> None:
    await two_versions(store)
    await ordered(store, SetRamping("v1", 5.0), now=T + 2, reason="canary")
    await ordered(store, SetRamping("v1", 5.0), now=T + 3, reason="again")
    await ordered(store, SetMetadata("v1", {"a": 1}), now=T + 4)
    await ordered(store, UnsetRamping(), now=T + 5, by="bob@host")
    await ordered(store, DeleteVersion("v1"), now=T + 6)
    listed = (await seen(store)).changes
    assert [(one.revision, one.at - T, one.kind, one.version, one.by, one.reason) for one in listed] == [
        (6, 6, "delete_version", "v1", "ann@host", ""),
        (5, 5, "unset_ramping_version", "v1", "bob@host", ""),
        (4, 4, "update_metadata", "v1", "ann@host", ""),
        (3, 2, "set_ramping_version", "v1", "ann@host", "canary"),
        (2, 1, "launch", "v2", "", FIRST_LAUNCH),
        (1, 0, "launch", "v1", "", FIRST_EVER),
    ]
    assert [(one.current, one.ramping, one.percentage) for one in listed[2:4]] == [("v2", "v1", 5.0)] * 2
    assert [one.revision for one in (await store.deployment(changes=2, now=T)).changes] == [6, 5]


# -- ramps that watch themselves


async def test_a_watch_is_kept_with_the_routing(store: Store) -> None:
    await launched(store, "v1")
    bounds = (Bound("failure_rate", 2.5), Bound("problem_rate", 1.0))
    await ordered(store, SetRamping("v2", 5.0, bounds), now=T + 5)
    kept = await store.routing()
    assert kept is not None
    assert kept.watch == Watch(version="v2", since=T + 5, back="v1", bounds=bounds)
    ruling = await ordered(store, Abort("v2"), now=T + 9, by="executor e", reason="bad", revision=kept.revision)
    assert ruling.changed
    after = await store.routing()
    assert after == ruling.after
    assert after is not None
    assert (after.ramping, after.watch, after.because) == (None, None, "bad")
    assert (await seen(store)).changes[0].kind == "abort"
    assert [one.name for one in await store.versions() if one.withdrawn] == ["v2"]


async def test_a_launch_that_takes_all_from_a_watched_version_ends_its_watch(store: Store) -> None:
    await launched(store, "v1")
    await ordered(store, SetRamping("v2", 5.0, (Bound("failure_rate", 2.0),)))
    await ordered(store, SetCurrent("v2"))
    routing = await store.routing()
    assert routing is not None
    assert routing.watch is not None
    assert (await launched(store, "v3", now=T + 9)).watch is None


async def test_what_a_version_began_is_sampled_by_what_became_of_it(store: Store) -> None:
    """Of the latest since a time; nothing that waits to begin, or that another version runs."""
    ends = {
        "done": Status.COMPLETED, "failed": Status.FAILED, "late": Status.TIMED_OUT, "cancelled": Status.CANCELLED,
    }  # fmt: skip
    held = [Reason.NONDETERMINISM, Reason.NO_CODE, Reason.UNDECODABLE, Reason.RECOVERY_LIMIT, Reason.POLICY]
    await queued(store, "waits to begin", now=T + 5)
    for name, status in ends.items():
        claim = await running(store, name, now=T + 5)
        await one(store, unit(name, claim, change=Close(status, Outcome.NONE, None, tok("wake"))))
    for reason in held:
        claim = await running(store, str(reason), now=T + 5)
        kind = OF_HOLD.get(reason, ProblemKind.EXECUTOR_DIED)
        now = None if reason is Reason.POLICY else kind
        await one(store, unit(str(reason), claim, change=Hold(reason, "why"), trouble=Trouble(now=now)))
    await running(store, "runs", now=T + 5)
    claim = await running(store, "before", now=T + 4)
    ended = Close(Status.FAILED, Outcome.NONE, None, tok("wake"))
    await one(store, unit("before", claim, trouble=Trouble(now=ProblemKind.STEP_FAILED), change=ended))
    await running(store, "other", now=T + 5, version="v2")
    assert await store.sample("v1", T + 5) == Sample(begun=10, ended=3, failed=2, problems=4)
    assert await store.sample("v2", T + 5) == Sample(begun=1, ended=0, failed=0, problems=0)
    assert await store.sample("v1", T + 4) == Sample(begun=11, ended=4, failed=3, problems=4)
    assert await store.sample("v1", T + 6) == Sample(begun=0, ended=0, failed=0, problems=0)
    await running(store, "latest", now=T + 9)
    assert (await store.sample("v1", T, latest=1)).begun == 1


# -- lost answers, and many at once


async def test_an_order_whose_answer_was_lost_is_known_again(store: Store) -> None:
    """Not taken for stale by its own first try, though somebody else has changed it back since."""
    await two_versions(store)
    order = Order(verb=SetCurrent("v1"), nonce=tok("mine"), by="ann", revision=2, allow_no_executors=True)
    assert (await store.change_deployment(order, now=T + 1)).changed
    await ordered(store, SetCurrent("v2"), now=T + 2)
    again = await store.change_deployment(order, now=T + 3)
    assert (again.changed, again.why) == (True, None)
    routing = await store.routing()
    assert routing is not None
    assert (routing.current, routing.revision) == ("v2", 4), "nothing is done twice"


async def test_many_order_at_once_and_each_is_answered(make_store: MakeStore) -> None:
    stores = [await make_store("app") for _ in range(6)]
    await two_versions(stores[0])
    same = await asyncio.gather(*(ordered(store, SetCurrent("v1")) for store in stores))
    assert sorted(one.changed for one in same) == [False] * 5 + [True]
    names = [f"v{n}" for n in range(10, 16)]
    for name in names:
        await launched(stores[0], name, auto=False)
    before = await stores[0].routing()
    assert before is not None
    fought = await asyncio.gather(
        *(ordered(store, SetCurrent(name), revision=before.revision) for store, name in zip(stores, names, strict=True))
    )
    assert sorted(str(one.why) for one in fought if one.why) == ["revision"] * 5, "one was first"
    free = await asyncio.gather(
        *(ordered(store, SetRamping(name, 5.0)) for store, name in zip(stores, names, strict=True))
    )
    assert all(one.changed or one.why is Why.IS_CURRENT for one in free)
    listed = (await seen(stores[0])).changes
    revisions = [one.revision for one in listed]
    assert revisions == list(range(revisions[0], revisions[0] - len(revisions), -1)), "no revision twice, none left out"


async def test_many_delete_at_once_and_one_does(make_store: MakeStore) -> None:
    stores = [await make_store("app") for _ in range(4)]
    await two_versions(stores[0])
    ruled = await asyncio.gather(*(ordered(store, DeleteVersion("v1")) for store in stores))
    assert sorted(one.changed for one in ruled) == [False, False, False, True]
    assert {one.why for one in ruled} == {None}


async def test_orders_and_launches_at_once_leave_one_story(make_store: MakeStore) -> None:
    stores = [await make_store("app") for _ in range(4)]
    await launched(stores[0], "v0")
    numbers = itertools.count(1)

    async def busy(store: Store, operator: bool) -> None:
        for _ in range(5):
            n = next(numbers)
            if operator:
                await ordered(store, SetCurrent("v0") if n % 2 else SetRamping(f"v{n - 1}", 5.0))
            else:
                await launched(store, f"v{n}")

    await asyncio.gather(*(busy(store, n < 2) for n, store in enumerate(stores)))
    found = await stores[0].deployment(changes=1000, now=T)
    assert found.routing is not None
    assert [one.revision for one in found.changes] == list(range(found.routing.revision, 0, -1))
    last = found.changes[0]
    assert (last.current, last.ramping) == (found.routing.current, found.routing.ramping)
    assert states(found)[found.routing.current] is State.CURRENT


async def test_an_order_that_fails_in_its_last_statement_has_done_nothing(store: Store) -> None:
    await two_versions(store)
    before = await seen(store)
    order = Order(verb=SetCurrent("v1"), nonce=tok("n"), by="ann", allow_no_executors=True)
    broken = msgspec.structs.replace(order, by=None)  # what the list of changes cannot hold
    with pytest.raises(Exception, match=r"(?i)not.null"):
        await store.change_deployment(broken, now=T + 5)
    assert await seen(store) == before
    assert (await store.change_deployment(order, now=T + 6)).changed
