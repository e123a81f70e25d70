"""Incarnations and their leases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from perdure.model.records import Incarnation
from perdure.store.base import Store
from tests.store.build import ME, OTHER, SECOND, T, close, one, running, tok, unit


def who(id: bytes, **more: object) -> Incarnation:
    fields: dict[str, object] = {
        "executor": "host-1",
        "version": "v1",
        "host": "host",
        "boot": "b",
        "space": "ns",
        "pid": 7,
        "pid_started": 99,
    }
    return Incarnation(id=id, **{**fields, **more})  # type: ignore[arg-type]


async def states(store: Store) -> dict[bytes, str]:
    return {i.id: i.state for i in await store.incarnations()}


async def test_an_incarnation_is_registered_with_a_lease(store: Store) -> None:
    await store.register(who(ME), 15 * SECOND, now=T)
    [got] = await store.incarnations()
    assert got == who(ME, started=T, lease_until=T + 15 * SECOND, lease=15 * SECOND)


async def test_a_repeated_registration_is_one_row(store: Store) -> None:
    await store.register(who(ME), SECOND, now=T)
    await store.register(who(ME), SECOND, now=T + 1)
    assert len(await store.incarnations()) == 1


async def test_a_heartbeat_renews_and_tells_the_time(store: Store) -> None:
    await store.register(who(ME), SECOND, now=T)
    assert await store.heartbeat(ME, SECOND, now=T + 5) == T + 5
    [got] = await store.incarnations()
    assert (got.lease_until, got.started) == (T + 5 + SECOND, T)


async def test_a_late_heartbeat_still_renews_unless_it_was_buried(store: Store) -> None:
    await store.register(who(ME), SECOND, now=T)
    assert await store.heartbeat(ME, SECOND, now=T + 9 * SECOND) == T + 9 * SECOND
    assert await store.bury([ME], now=T + 20 * SECOND) == [ME]
    assert await store.heartbeat(ME, SECOND, now=T + 20 * SECOND) is None
    assert await store.heartbeat(OTHER, SECOND, now=T) is None


async def test_only_the_expired_are_buried(store: Store) -> None:
    await store.register(who(ME), SECOND, now=T)
    await store.register(who(OTHER, state="draining"), 9 * SECOND, now=T)
    assert await store.bury([ME, OTHER, tok()], now=T + SECOND - 1) == []
    assert await store.bury([ME, OTHER], now=T + 2 * SECOND) == [ME]
    assert await store.bury([ME, OTHER], now=T + 2 * SECOND) == []
    assert await states(store) == {ME: "dead", OTHER: "draining"}
    assert await store.bury([OTHER], expired_only=False, now=T) == [OTHER]
    assert await store.bury([], now=T) == []


async def test_who_leaves_is_forgotten_once_it_owns_nothing(store: Store) -> None:
    await store.register(who(ME), SECOND, now=T)
    await store.register(who(OTHER), SECOND, now=T)
    claim = await running(store, "w")
    await store.leave(ME)
    assert await states(store) == {ME: "gone", OTHER: "alive"}
    assert await store.heartbeat(ME, SECOND, now=T) is None
    await one(store, unit("w", claim, change=close()))
    await store.leave(OTHER)
    assert await states(store) == {}


async def test_the_dead_are_forgotten_once_they_own_nothing(store: Store) -> None:
    for id in (ME, OTHER):
        await store.register(who(id), SECOND, now=T)
    claim = await running(store, "w")
    await store.bury([ME, OTHER], expired_only=False, now=T)
    await store.forget()
    assert await states(store) == {ME: "dead"}
    await one(store, unit("w", claim, change=close()))
    await store.forget()
    assert await states(store) == {}


async def test_incarnations_belong_to_their_app(make_store: Callable[[str], Awaitable[Store]]) -> None:
    a, b = await make_store("a"), await make_store("b")
    await a.register(who(ME), SECOND, now=T)
    assert await b.incarnations() == []
    assert await b.heartbeat(ME, SECOND, now=T) is None
    assert await b.bury([ME], expired_only=False, now=T) == []
    await b.leave(ME)
    assert await states(a) == {ME: "alive"}


async def test_health_has_facts(store: Store) -> None:
    facts = (await store.health()).facts
    assert facts
    goods = [good for _, _, good in facts]
    assert goods == sorted(goods), "most severe first"
    assert all(goods), facts


# -- guards and hand-over


async def test_only_who_has_renewed_so_often_is_buried(store: Store) -> None:
    for id in (ME, OTHER):
        await store.register(who(id), SECOND, now=T)
    await store.heartbeat(ME, SECOND, now=T)
    assert await store.bury([ME, OTHER], expired_only=False, beats={ME: 0, OTHER: 0}, now=T) == [OTHER]
    assert await store.bury([ME], expired_only=False, beats={OTHER: 1}, now=T) == []
    assert await store.bury([ME], expired_only=False, beats={ME: 1}, now=T) == [ME]


async def test_who_drains_serves_on(store: Store) -> None:
    await store.register(who(ME), SECOND, now=T)
    await store.drain(ME)
    await store.drain(OTHER)
    assert await states(store) == {ME: "draining"}
    assert await store.heartbeat(ME, SECOND, now=T) == T
    await store.bury([ME], expired_only=False, now=T)
    await store.drain(ME)
    assert await states(store) == {ME: "dead"}


async def test_what_is_over_is_given_to_an_heir(store: Store) -> None:
    for id in (ME, OTHER):
        await store.register(who(id), SECOND, now=T)
    await running(store, "b", "a")
    assert await store.hand_over([ME, OTHER], "host-2") == [], "whoever serves keeps what it has"
    await store.bury([ME], expired_only=False, now=T)
    assert await store.hand_over([ME, OTHER, tok()], "host-2") == ["a", "b"]
    assert await states(store) == {ME: "released", OTHER: "alive"}
    assert {i.heir for i in await store.incarnations()} == {"host-2", None}
    assert await store.heartbeat(ME, SECOND, now=T) is None
    assert await store.hand_over([ME], None) == ["a", "b"]
    assert {i.heir for i in await store.incarnations()} == {None}
