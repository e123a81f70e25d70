"""Who parks while what it waits for is there by now, or not."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.model.streams import StreamAsk
from perdure.model.writes import Park, SetEvent
from perdure.store.base import Store
from tests.store.build import T, append, one, running, unit, want


async def test_an_event_that_the_waiter_does_not_wait_for_does_not_wake_it_at_once(store: Store) -> None:
    claim = await running(store, "target", "watcher")
    await one(store, unit("target", claim, events=[SetEvent("e", b"1")]))
    park = Park(None, "target", ("target",), events=(("target", "f"),))
    await one(store, unit("watcher", claim, change=park), T + 2)
    assert await store.claim(want(), now=T + 2) == []


@pytest.mark.parametrize("what", ["event", "append"])
async def test_what_was_written_late_but_stamped_before_the_claim_wakes_who_has_missed_it(
    store: Store, what: str
) -> None:
    """A statement has its time from its beginning, and may wait for locks long after."""
    claim = await running(store, "target", now=T)
    more: dict[str, Any] = {"events": [SetEvent("e", b"1")]} if what == "event" else {"appends": [append(1)]}
    mine = await running(store, "watcher", now=T + 9)
    await one(store, unit("target", claim, **more), T + 1)
    park = Park(None, "", ("target",), (("target", "e"),), (StreamAsk("target", "s", 0),))
    await one(store, unit("watcher", mine, change=park), T + 10)
    assert [c.row.id for c in await store.claim(want(), now=T + 10)] == ["watcher"]
