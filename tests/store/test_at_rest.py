"""Runs that are begun at rest: waiting until a time or held, nobody's from the first moment, and woken by mail."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.model.problems import ProblemKind
from perdure.model.records import Kind
from perdure.model.states import Reason, Status
from perdure.model.writes import Continue, Rest
from perdure.store.base import Store
from tests.store.build import ME, T, append, one, outside, record, row, running, send, start, tok, unit, want

HOUR = 3_600_000_000


def following(status: Status, rest: Rest) -> Continue:
    begun = start("a", run=2, input=b'{"$args":[]}', status=status, through=True, attributes=b'{"state":"x"}')
    return Continue(begun, tok("wake"), rest)


async def go_on(store: Store, change: Continue, **more: Any) -> None:
    """The end of a burst, sent twice: the first answer was lost."""
    last = unit("a", await running(store, "a"), change=change, **more)
    for now in (T + 1, T + 5):
        assert (await one(store, last, now=now)).applied


async def ready(store: Store, now: int) -> list[str]:
    return [claimed.row.id for claimed in await store.claim(want(), now=now)]


async def mail(store: Store, now: int = T + 2) -> None:
    await one(store, outside(sends=[send("a")]), now=now)


async def test_it_waits_until_its_time_with_what_its_row_tells(store: Store) -> None:
    rest = Rest(topic="t", until=T + HOUR, detail="in state x", attempts=3, problem=ProblemKind.EXECUTOR_DIED)
    await go_on(store, following(Status.WAITING, rest), appends=[append(1)])
    found = await row(store, "a")
    assert (found.run, found.status, found.until, found.detail, found.attempts, found.problem, found.owner) == (
        2, Status.WAITING, T + HOUR, "in state x", 3, ProblemKind.EXECUTOR_DIED, None,
    )  # fmt: skip
    assert (await store.inputs([found.key]))[found.key] == b'{"$args":[]}'
    assert await ready(store, T + HOUR - 1) == []
    assert await ready(store, T + HOUR) == ["a"]


async def test_without_a_time_only_mail_wakes_it(store: Store) -> None:
    await go_on(store, following(Status.WAITING, Rest(topic="t")))
    assert (await row(store, "a")).until is None
    assert await ready(store, T + 1000 * HOUR) == []
    await mail(store)
    assert await ready(store, T + 3) == ["a"]


@pytest.mark.parametrize("status", [Status.WAITING, Status.HELD])
async def test_mail_that_is_there_already_wakes_it_at_once(store: Store, status: Status) -> None:
    reason = Reason.NO_EXIT if status is Status.HELD else None
    claim = await running(store, "a")
    letter = send("a")
    await one(store, outside(sends=[letter]), now=T)
    change = following(status, Rest(topic="t", reason=reason))
    last = unit("a", claim, change=change, records=[record(1, Kind.RECV)], woken=[letter.wake])
    assert (await one(store, last, now=T + 1)).applied
    found = await row(store, "a")
    assert (found.status, found.reason) == (status, reason)
    assert await ready(store, T + 2) == ["a"]


async def test_mail_for_another_does_not_wake_it(store: Store) -> None:
    claim = await running(store, "a")
    letter = send("a", topic="other")
    await one(store, outside(sends=[letter]), now=T)
    change = following(Status.WAITING, Rest(topic="t"))
    await one(store, unit("a", claim, change=change, woken=[letter.wake]), now=T + 1)
    assert await ready(store, T + 2) == []


async def test_held_for_want_of_an_exit_it_is_woken_for_no_other_reason_it_is_not(store: Store) -> None:
    await go_on(store, following(Status.HELD, Rest(topic="t", reason=Reason.NO_EXIT)))
    assert await ready(store, T + HOUR) == []
    await mail(store)
    assert (await store.poll(ME, (), version="v1", now=T + 3)).claimable is not None
    assert await ready(store, T + 3) == ["a"]
