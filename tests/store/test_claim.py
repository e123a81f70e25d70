"""Claims, adoption, lost answers and the poll."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import msgspec
import pytest

from perdure.model.ids import Holding, RunKey
from perdure.model.records import Incarnation, Kind
from perdure.model.states import Cause, Reason, Status, Versioning
from perdure.model.writes import Continue, Hold, Park, Release
from perdure.store import asks
from perdure.store.asks import ClaimRequest
from perdure.store.base import Store
from tests.store.build import (
    ME,
    OTHER,
    SECOND,
    T,
    close,
    dump,
    letin,
    one,
    outside,
    own,
    queued,
    record,
    row,
    running,
    send,
    start,
    tok,
    unit,
    want,
)

pytestmark = pytest.mark.usefixtures("serving")

MakeStore = Callable[[str], Awaitable[Store]]


def but(of: ClaimRequest, **fields: object) -> ClaimRequest:
    return msgspec.structs.replace(of, **fields)


async def parked(store: Store, id: str, until: int | None = None, now: int = T, parent: str | None = None) -> bytes:
    claim = await running(store, id, now=now, parent=parent)
    await one(store, unit(id, claim, change=Park(until, "waiting")), now)
    return claim


# -- claim


async def test_a_claim_takes_ready_work(store: Store) -> None:
    await queued(store, "w", timeout=5 * SECOND, version="")
    w = want(version="v2")
    [got] = await store.claim(w, now=T + 3)
    assert got.input == b'{"n":1}'
    r = got.row
    assert (r.status, r.owner, r.claim, r.epoch, r.attempts) == (Status.RUNNING, ME, w.token, 1, 0)
    assert (r.started, r.deadline, r.updated, r.until, r.created) == (T + 3, T + 3 + 5 * SECOND, T + 3, None, T)
    assert r.version == "v2", "unstarted work takes the version of whoever claims it"
    assert r == await row(store, "w")
    assert (await one(store, unit("w", w.token, records=[record(1)]))).applied
    assert await store.claim(want(), now=T + 4) == []


async def test_a_claim_takes_what_is_of_its_version_or_of_none(store: Store) -> None:
    for id, version in (("mine", "v1"), ("another's", "v0"), ("anybody's", "")):
        await queued(store, id, version=version)
    assert (await store.poll(None, [], "v9", now=T)).claimable == T, "for what is of no version"
    got = await store.claim(want(version="v1"), now=T)
    assert sorted(c.row.id for c in got) == ["anybody's", "mine"]
    assert (await store.poll(None, [], "v9", now=T)).claimable is None
    assert (await store.poll(None, [], "v0", now=T)).claimable == T
    assert await store.claim(want(version=""), now=T) == [], "who has no version takes nothing of another"


async def test_a_claim_may_leave_what_has_no_version_to_others(store: Store) -> None:
    await queued(store, "mine", version="v1")
    await queued(store, "anybody's", version="", now=T - 1)
    await queued(store, "told", version="", now=T - 1)
    await store.cancel("told", "", tok("n"), now=T)  # nobody holds it: that is its end
    for id in ("later", "later and told"):
        await queued(store, id, version="", status=Status.SCHEDULED, delay=9 * SECOND)
    await one(store, outside(sends=[send("later and told", known=True)]))
    assert (await store.poll(None, [], "v9", fresh=False, now=T)).claimable is None
    assert (await store.poll(None, [], "v1", fresh=False, now=T)).claimable == T
    mine = msgspec.structs.replace(want(version="v1"), fresh=False)
    assert [c.row.id for c in await store.claim(mine, now=T + 20 * SECOND)] == ["mine"]
    assert await store.claim(mine, now=T + 20 * SECOND) == []
    got = await store.claim(want(version="v1"), now=T + 20 * SECOND)
    assert sorted(c.row.id for c in got) == ["anybody's", "later", "later and told"]


async def test_what_is_woken_is_of_its_version_too(store: Store) -> None:
    await parked(store, "w")
    await one(store, outside(sends=[send("w", known=True)]))
    assert (await store.poll(None, [], "v2", now=T)).claimable is None
    assert await store.claim(want(version="v2"), now=T) == []
    [got] = await store.claim(want(version="v1"), now=T)
    assert got.row.id == "w"


async def test_the_first_claim_alone_sets_started_deadline_and_version(store: Store) -> None:
    await queued(store, "w", timeout=SECOND, version="")
    [first] = await store.claim(want(version="v1"), now=T)
    await one(store, unit("w", first.row.claim or b"", change=Release()), T + 10)
    assert await store.claim(want(version="v9"), now=T + 20) == []
    [second] = await store.claim(want(version="v1"), now=T + 20)
    assert (second.row.started, second.row.deadline, second.row.version) == (T, T + SECOND, "v1")
    assert (second.row.epoch, second.row.attempts) == (2, 0)


async def test_an_inherited_deadline_bounds_the_timeout(store: Store) -> None:
    await queued(store, "near", timeout=SECOND, deadline=T + 5)
    await queued(store, "far", timeout=SECOND, deadline=T + 9 * SECOND)
    await queued(store, "none", timeout=None, deadline=T + 7)
    got = {c.row.id: c.row.deadline for c in await store.claim(want(), now=T)}
    assert got == {"near": T + 5, "far": T + SECOND, "none": T + 7}


async def test_oldest_due_first_and_no_more_than_the_limit(store: Store) -> None:
    await queued(store, "second", now=T + 2)
    await queued(store, "first", now=T + 1)
    await queued(store, "third", now=T + 3)
    await queued(store, "timer", now=T, status=Status.SCHEDULED, delay=4)
    await queued(store, "later", now=T, status=Status.SCHEDULED, delay=SECOND)
    assert [c.row.id for c in await store.claim(want(2), now=T + 5)] == ["first", "second"]
    assert [c.row.id for c in await store.claim(want(5), now=T + 5)] == ["third", "timer"]
    assert await store.claim(want(5), now=T + SECOND - 1) == []
    assert [c.row.id for c in await store.claim(want(5), now=T + SECOND)] == ["later"]


async def test_equal_times_go_by_id(store: Store) -> None:
    await queued(store, "b", "c", "a", "É", "Z")
    assert [c.row.id for c in await store.claim(want(), now=T)] == ["Z", "a", "b", "c", "É"]


async def test_a_claim_of_nothing(store: Store) -> None:
    await queued(store, "w")
    assert await store.claim(want(0), now=T) == []
    assert (await row(store, "w")).status is Status.QUEUED


async def test_a_woken_workflow_is_claimed_before_its_time_and_its_wakes_are_deleted(store: Store) -> None:
    await parked(store, "w", T + SECOND)
    assert await store.claim(want(), now=T) == []
    await one(store, outside(sends=[send("w"), send("w")]))
    [got] = await store.claim(want(), now=T)
    assert (got.row.until, got.row.detail, got.row.cancel) == (None, "", None)
    assert (await dump(store))["wake"] == []
    assert len(await store.inbox(["w"])) == 2


async def test_a_woken_workflow_is_not_starved_by_a_backlog(store: Store) -> None:
    await parked(store, "old", now=T)
    for n in range(5):
        await queued(store, f"q{n}", now=T + 1 + n)
    await one(store, outside(sends=[send("old")]), T + 10)
    assert [c.row.id for c in await store.claim(want(1), now=T + 10)] == ["old"]


async def test_mail_does_not_hurry_scheduled_or_held_work(store: Store) -> None:
    await queued(store, "scheduled", status=Status.SCHEDULED, delay=SECOND)
    claim = await running(store, "held")
    await one(store, unit("held", claim, change=Hold(Reason.POLICY, "")))
    await one(store, outside(sends=[send("scheduled"), send("held")]))
    assert await store.claim(want(), now=T) == []


@pytest.mark.parametrize("what", ["queued", "scheduled", "waiting"])
async def test_a_cancel_wake_makes_work_claimable_and_stays_known_in_the_row(store: Store, what: str) -> None:
    if what == "waiting":
        await parked(store, "w", T + SECOND, parent="parent")
    elif what == "scheduled":
        await queued(store, "w", status=Status.SCHEDULED, delay=SECOND, parent="parent")
    else:
        await queued(store, "w", now=T + 100, parent="parent")
    claim = await running(store, "parent")
    await one(store, unit("parent", claim, change=close(children=("w",))), T + 1)
    [got] = await store.claim(want(), now=T + 1)
    assert got.row.id == "w"
    assert got.row.cancel is not None
    assert (await dump(store))["wake"] == []


async def test_a_claim_tells_for_whom_mail_waits(store: Store) -> None:
    await queued(store, "written", "read", "alone", "lined", queue=None)
    await queued(store, "in line", queue="q")
    await store.make_queues(["q"], now=T)
    mail = {id: send(id) for id in ("written", "read", "in line")}
    await one(store, outside(sends=[*mail.values()]))
    claims = {c.row.id: c for c in await store.claim(want(1 + 3, owner=ME), now=T)}
    assert {id for id, c in claims.items() if c.mail} == {"written", "read"}
    took = unit("read", claims["read"].row.claim or b"", records=[record(1, Kind.RECV)], taken=[(mail["read"].mid, 1)])
    assert (await one(store, took)).applied
    adopted = {c.row.id for c in await store.adopt([ME], want(owner=OTHER), now=T) if c.mail}
    assert adopted == {"written"}
    assert [c.mail for c in (await store.claim_line(letin("q"), now=T)).claimed] == [True]


async def test_wakes_are_looked_at_a_bounded_number_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whom nobody here can claim stand in nobody's way, however many there are."""
    monkeypatch.setattr(asks, "WAKES", 2)
    await parked(store, "a")  # of a version that is not ours, and written to three times
    await one(store, outside(sends=[send("a") for _ in range(3)]))
    for id in "cdef":
        await parked(store, id)
        await one(store, outside(sends=[send(id)]))
    await running(store, "b")
    await one(store, outside(sends=[send("b")]))
    poll = await store.poll(ME, None, "v2", now=T)
    assert (poll.claimable, poll.wakes, poll.after) == (None, [], "a")
    assert await store.claim(want(version="v2"), now=T) == []
    poll = await store.poll(ME, None, "v1", after="a", now=T)
    assert ([wake.dest for wake in poll.wakes], poll.claimable, poll.after) == (["b"], T, "c")
    assert [c.row.id for c in await store.claim(but(want(), after="a"), now=T)] == ["c"]
    poll = await store.poll(ME, None, "v1", after="c", now=T)
    assert (poll.claimable, poll.after) == (T, "e")
    assert [c.row.id for c in await store.claim(but(want(), after="c"), now=T)] == ["d", "e"]
    poll = await store.poll(ME, None, "v1", after="e", now=T)
    assert (poll.claimable, poll.after) == (T, ""), "that is all of them"


async def test_two_claimers_share_the_work(make_store: MakeStore) -> None:
    a, b = await make_store("app"), await make_store("app")
    await queued(a, *[f"w{n}" for n in range(20)])
    got = await asyncio.gather(*[s.claim(want(3, owner=o), now=T) for s, o in ((a, ME), (b, OTHER)) for _ in range(4)])
    ids = [c.row.id for claimed in got for c in claimed]
    ids += [c.row.id for c in await a.claim(want(20), now=T)]  # what one skipped while the other had it locked
    assert sorted(ids) == sorted(f"w{n}" for n in range(20))


async def test_a_claimer_learns_how_long_the_history_is(store: Store) -> None:
    """Who takes ``last_seq`` 0 for a fresh run must never meet one with a past."""
    claim = await running(store, "w", "v")
    await one(store, unit("w", claim, records=[record(1), record(2)]))
    await one(store, unit("v", claim, records=[record(1)]))
    await one(store, unit("v", claim, change=Release()))
    [v] = await store.claim(want(), now=T)
    [w] = [c for c in await store.adopt([ME], want(), now=T) if c.row.id == "w"]
    assert (v.row.last_seq, w.row.last_seq) == (1, 2)


# -- adopt


async def test_adoption_takes_running_work_of_the_gone_and_counts_a_death(store: Store) -> None:
    old = await running(store, "a", "b")
    await one(store, own("c", tok("c"), start=start("c", tok("c"), owner=OTHER)))
    await queued(store, "q")
    w = want(owner=OTHER)
    got = await store.adopt([ME, b"unknown.........."[:16]], w, now=T + 5)
    assert sorted(c.row.id for c in got) == ["a", "b"]
    for c in got:
        r = c.row
        assert (r.status, r.owner, r.claim, r.epoch, r.attempts) == (Status.RUNNING, OTHER, w.token, 2, 1)
        assert (r.started, r.updated) == (T, T + 5)
        assert c.input == b'{"n":1}'
    assert not (await one(store, unit("a", old, records=[record(1)]))).applied
    assert (await one(store, unit("a", w.token, records=[record(1)]))).applied
    assert await store.adopt([ME], want(), now=T + 6) == []


@pytest.mark.parametrize("suspects", [False, True])
async def test_who_was_declared_dead_takes_nothing_over(store: Store, suspects: bool) -> None:
    """Two such that do not know it yet would take one run from each other until it is held for too many deaths."""
    await running(store, "a")
    if suspects:
        await store.adopt([ME], want(), now=T)
    await store.bury([ME, OTHER], expired_only=False, now=T)
    for taker, former in ((OTHER, ME), (ME, OTHER), (tok("forgotten"), ME)):
        assert await store.adopt([former], want(owner=taker), suspects=suspects, now=T) == []


async def test_adoption_leaves_what_is_of_another_version(store: Store) -> None:
    await running(store, "a")
    assert await store.adopt([ME], want(owner=OTHER, version="v2"), now=T) == []
    assert [c.row.id for c in await store.adopt([ME], want(owner=OTHER), now=T)] == ["a"]


@pytest.mark.parametrize("suspects", [False, True])
async def test_adoption_leaves_what_was_given_to_another(store: Store, suspects: bool) -> None:
    """Whoever asks has read that they are gone, and a person may have given their work away since."""
    heir = tok("heir")
    for id, name in ((ME, "me"), (OTHER, "other"), (heir, "heir")):
        await store.register(Incarnation(id=id, executor=name, version="v1"), SECOND, now=T)
    await running(store, "a")
    if suspects:  # two deaths in a row
        await store.adopt([ME], want(), now=T)
    await store.bury([ME], expired_only=False, now=T)
    await store.hand_over([ME], "heir")
    assert await store.adopt([ME], want(owner=OTHER), suspects=suspects, now=T) == []
    assert await store.release_orphans([ME], ["v2"], 10, now=T) == []
    [got] = await store.adopt([ME], want(owner=heir), suspects=suspects, now=T)
    assert got.row.owner == heir


async def test_what_was_given_to_any_is_anybodys(store: Store) -> None:
    await store.register(Incarnation(id=ME, executor="me", version="v1"), SECOND, now=T)
    await running(store, "a", "b")
    await store.bury([ME], expired_only=False, now=T)
    await store.hand_over([ME], "heir")
    await store.hand_over([ME], None)
    assert len(await store.adopt([ME], want(1, owner=OTHER), now=T)) == 1
    assert len(await store.release_orphans([ME], ["v2"], 10, now=T)) == 1


async def test_the_row_says_what_happened_before_the_claim(store: Store) -> None:
    claim = await running(store, "died", "drained", "waited")
    await one(store, unit("drained", claim, change=Release()))
    await one(store, unit("waited", claim, change=Park(T, "waiting")))
    [died] = await store.adopt([ME], want(owner=OTHER), now=T)
    got = {c.row.id: c.row for c in await store.claim(want(owner=OTHER), now=T)}
    assert (died.row.cause, got["drained"].cause, got["waited"].cause) == (Cause.CRASH, Cause.DRAINED, Cause.NONE)
    assert died.row.claim is not None
    await one(store, unit("died", died.row.claim, change=Park(T, "waiting")))
    [again] = await store.claim(want(owner=OTHER), now=T)
    assert again.row.cause is Cause.NONE, "a wait of its own lies between"


async def test_adoption_without_a_death_and_within_the_limit(store: Store) -> None:
    await running(store, "a", "b", "c")
    got = await store.adopt([ME], want(2, owner=OTHER), death=False, now=T)
    assert [c.row.attempts for c in got] == [0, 0]
    rest = await store.adopt([ME], want(2, owner=OTHER), now=T)
    assert sorted(c.row.id for c in got + rest) == ["a", "b", "c"]


async def died(store: Store, *ids: str, spared: Collection[bytes] = (), suspects: bool = False) -> dict[str, int]:
    """``ME`` dies and gets it all back (as if by another's hand): attempts by id of what was taken."""
    got = await store.adopt([ME], want(), spared=spared, suspects=suspects, now=T)
    return {c.row.id: c.row.attempts for c in got if not ids or c.row.id in ids}


async def test_deaths_are_counted_anew_once_something_was_recorded(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, records=[record(1)]))
    assert await died(store) == {"w": 1}
    assert await died(store) == {}, "a second death in a row: it is a suspect"
    assert await died(store, suspects=True) == {"w": 2}
    [c] = await store.adopt([ME], want(), suspects=True, now=T)
    assert c.row.attempts == 3
    assert c.row.claim is not None
    more = [record(2, Kind.ATTEMPT), record(3, Kind.INTENT), record(4, Kind.DECISION), record(5, Kind.CANCEL)]
    await one(store, unit("w", c.row.claim, records=more))
    assert await died(store) == {}, "still a suspect: none of these gets anywhere"
    [c] = await store.adopt([ME], want(), suspects=True, now=T)
    assert c.row.attempts == 4
    assert c.row.claim is not None
    await one(store, unit("w", c.row.claim, records=[record(6)]))
    assert await store.with_suspects([ME], "v1") == []
    assert await died(store, suspects=True) == {}
    assert await died(store) == {"w": 1}


async def test_suspects_are_taken_apart_and_the_others_are_not_counted_with_them(store: Store) -> None:
    await running(store, "poison")
    assert await died(store) == {"poison": 1}
    assert await store.with_suspects([ME], "v1") == []
    await running(store, "before")
    [once] = await store.adopt([ME], want(owner=OTHER), now=T)
    assert (once.row.id, once.row.attempts) == ("before", 1), "nobody knows yet which of the two it was"
    assert await died(store, suspects=True) == {"poison": 2}
    [back] = await store.adopt([OTHER], want(), death=False, now=T)
    assert back.row.attempts == 1
    await running(store, "calm")
    assert await store.with_suspects([ME, OTHER], "v1") == [ME]
    assert await store.with_suspects([ME], "v2") == []
    got = await store.adopt([ME], want(owner=OTHER), spared=[ME], now=T)
    assert {c.row.id: (c.row.attempts, c.row.cause) for c in got} == {
        "calm": (0, Cause.CRASH), "before": (1, Cause.CRASH)
    }  # fmt: skip
    assert await store.adopt([ME], want(1, owner=OTHER), spared=[ME], now=T) == []
    got = await store.adopt([ME], want(1, owner=OTHER), suspects=True, spared=[ME], now=T)
    assert [(c.row.id, c.row.attempts) for c in got] == [("poison", 3)]
    assert await store.with_suspects([ME], "v1") == []


async def test_suspects_of_the_fewest_deaths_come_first(store: Store) -> None:
    await running(store, "a")
    await died(store)
    await died(store, suspects=True)
    await running(store, "b")
    await died(store)  # b has died once by now, a twice
    first, second = [(await store.adopt([ME], want(1, owner=OTHER), suspects=True, now=T))[0].row for _ in range(2)]
    assert [(first.id, first.attempts), (second.id, second.attempts)] == [("b", 2), ("a", 3)]


async def suspected(store: Store, *ids: str) -> bytes:
    """Each has been in flight at two deaths; their token."""
    await running(store, *ids)
    await died(store)
    got = await store.adopt([ME], want(), suspects=True, now=T)
    assert {c.row.id: c.row.attempts for c in got} == dict.fromkeys(ids, 2)
    assert got[0].row.claim is not None
    return got[0].row.claim


async def test_suspects_that_were_handed_back_are_claimed_one_at_a_time(store: Store) -> None:
    claim = await suspected(store, "s1", "s2", "s3")
    for n, id in enumerate(("s2", "s1", "s3")):
        assert (await one(store, unit(id, claim, change=Release()), now=T + n)).applied
    await store.cancel("s3", "", tok("n"), now=T + 3)
    await queued(store, "calm", "calm too", now=T + 4)
    none = msgspec.structs.replace(want(1), suspect=False)
    assert [c.row.id for c in await store.claim(none, now=T + 5)] == ["calm"], "suspects are in nobody's way"
    assert [c.row.id for c in await store.claim(want(), now=T + 5)] == ["s2", "calm too"]
    assert await store.claim(none, now=T + 5) == []
    assert (await store.poll(None, [], "v1", now=T + 5)).claimable == T + 5
    for id in ("s1", "s3"):  # the one that is cancelled, too: it has a cleanup to do
        assert [(c.row.id, c.row.attempts) for c in await store.claim(want(), now=T + 5)] == [(id, 2)]
    assert await store.claim(want(), now=T + 5) == []


async def test_a_suspect_that_got_somewhere_is_handed_back_as_calm(store: Store) -> None:
    claim = await suspected(store, "s1", "s2")
    for id in ("s1", "s2"):
        release = unit(id, claim, records=[record(1)], change=Release(anew=True))
        assert (await one(store, release, now=T)).applied
        assert (await one(store, release, now=T)).applied
    got = await store.claim(want(), now=T)
    assert [(c.row.id, c.row.attempts, c.row.cause) for c in got] == [
        ("s1", 0, Cause.DRAINED), ("s2", 0, Cause.DRAINED)
    ]  # fmt: skip


async def test_a_wait_of_its_own_ends_the_count_and_a_hand_back_does_not(store: Store) -> None:
    await running(store, "parked", "drained")
    got = {c.row.id: c.row for c in await store.adopt([ME], want(), now=T)}
    for id, change in (("parked", Park(T, "waiting")), ("drained", Release())):
        claim = got[id].claim
        assert claim is not None
        await one(store, unit(id, claim, change=change))
    assert {c.row.id: c.row.attempts for c in await store.claim(want(), now=T)} == {"parked": 0, "drained": 1}


async def test_mail_and_cancel_survive_an_adoption(store: Store) -> None:
    await running(store, "w")
    await one(store, outside(sends=[send("w")]))
    await store.cancel("w", "enough", tok("n"), now=T)
    [got] = await store.adopt([ME], want(owner=OTHER), now=T)
    assert got.row.cancel == "enough"
    assert (await dump(store))["wake"] == [], "who adopts looks at everything anyway"
    assert len(await store.inbox(["w"])) == 1


# -- lost claim answers


async def test_a_lost_claim_answer_is_found_by_poll_and_reclaimed(store: Store) -> None:
    await queued(store, "a", "b")
    lost = want()
    await store.claim(lost, now=T)
    held = await running(store, "known")
    poll = await store.poll(ME, [Holding("known", 1, held)], "v1", now=T)
    assert poll.lost == [Holding("a", 1, lost.token), Holding("b", 1, lost.token)]
    w = want()
    got = await store.reclaim([one.key for one in poll.lost], w, now=T + 1)
    assert sorted(c.row.id for c in got) == ["a", "b"]
    assert all((c.row.claim, c.row.attempts, c.row.owner) == (w.token, 0, ME) for c in got)
    assert not (await one(store, unit("a", lost.token, records=[record(1)]))).applied
    assert (await one(store, unit("a", w.token, records=[record(1)]))).applied
    assert (await one(store, unit("known", held, records=[record(1)]))).applied
    now_held = [Holding("a", 1, w.token), Holding("b", 1, w.token), Holding("known", 1, held)]
    assert (await store.poll(ME, now_held, "v1", now=T)).lost == []


async def test_a_claim_that_followed_another_of_the_same_run_is_lost(store: Store) -> None:
    """A move or a skip takes the token and leaves the run: who held it may have claimed it again, and not know."""
    before = await running(store, "w")
    assert (await one(store, unit("w", before, change=Park(T, "timer")))).applied
    again = want()
    assert [c.row.run for c in await store.claim(again, now=T)] == [1]
    poll = await store.poll(ME, [Holding("w", 1, before)], "v1", now=T)
    assert poll.lost == [Holding("w", 1, again.token)]
    assert (await store.poll(ME, poll.lost, "v1", now=T)).lost == []


async def test_reclaim_takes_only_the_askers_own_running_runs(store: Store) -> None:
    claim = await running(store, "closed", "next")
    await one(store, unit("closed", claim, change=close()))
    await one(store, unit("next", claim, change=Continue(start("next", claim, run=2), tok("wake"))))
    await one(store, own("others", tok("c"), start=start("others", tok("c"), owner=OTHER)))
    await queued(store, "queued")
    keys = [RunKey(id, 1) for id in ("closed", "next", "others", "queued", "unknown")]
    assert await store.reclaim(keys, want(), now=T) == []


async def test_reclaim_leaves_what_was_moved_to_another_version_since(store: Store) -> None:
    """Whoever is taken for dead, lives, and has not heard of it would run it with the code of the old one."""
    claim = await running(store, "w", versioning=Versioning.AUTO_UPGRADE)
    assert await store.bury([ME], expired_only=False, now=T) == [ME]
    assert await store.upgrade("v2", ["flow"], 10, gone=[ME], now=T) == 1
    poll = await store.poll(ME, [Holding("w", 1, claim)], "v1", now=T)
    assert await store.reclaim([RunKey("w", 1)], want(), now=T) == []
    assert [one.row.version for one in await store.adopt([ME], want(owner=OTHER, version="v2"), now=T)] == ["v2"]
    assert [one.id for one in poll.lost] == ["w"], "it does not have it by this token"


async def test_poll_of_nothing(store: Store) -> None:
    poll = await store.poll(ME, [], "v1", now=T)
    assert (poll.now, poll.wakes, poll.claimable, poll.lost) == (T, [], None, [])


async def test_poll_tells_when_something_becomes_claimable(store: Store) -> None:
    await queued(store, "later", status=Status.SCHEDULED, until=T + 9)
    await parked(store, "sooner", T + 5)
    await parked(store, "mail")
    assert (await store.poll(None, [], "v1", now=T)).claimable == T + 5
    assert (await store.poll(None, [], "v1", now=T + 7)).claimable == T + 7
    await one(store, outside(sends=[send("mail")]))
    assert (await store.poll(None, [], "v1", now=T)).claimable == T


async def test_poll_shows_wakes_of_what_the_owner_holds_only(store: Store) -> None:
    await running(store, "mine")
    await one(store, own("theirs", tok("c"), start=start("theirs", tok("c"), owner=OTHER)))
    await parked(store, "parked")
    mail = [send("mine"), send("theirs"), send("parked")]
    await one(store, outside(sends=mail))
    await store.cancel("mine", "", tok("n"), now=T)
    wakes = (await store.poll(ME, [], "v1", now=T)).wakes
    assert sorted((w.dest, w.cancel is None) for w in wakes) == [("mine", False), ("mine", True)]
    assert [w.dest for w in (await store.poll(OTHER, [], now=T)).wakes] == ["theirs"]
    assert (await store.poll(None, [], "v1", now=T)).wakes == []


async def test_poll_without_held_does_not_search_for_lost_claims(store: Store) -> None:
    await running(store, "w")
    await one(store, outside(sends=[send("w")]))
    poll = await store.poll(ME, None, "v1", now=T)
    assert (len(poll.wakes), poll.lost) == (1, [])


async def test_a_stale_run_number_is_lost(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=Continue(start("w", claim, run=2), tok("wake"))))
    assert (await store.poll(ME, [Holding("w", 1, claim)], "v1", now=T)).lost == [Holding("w", 2, claim)]


async def test_wakes_of_a_run_pass_to_the_next(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, outside(sends=[send("w")]))
    u = unit("w", claim, records=[record(1, Kind.STEP)], change=Continue(start("w", run=2), tok("wake")))
    await one(store, u)
    [got] = await store.claim(want(), now=T)
    assert got.row.run == 2
    assert len(await store.inbox(["w"])) == 1


async def test_real_time_is_used_when_none_is_given(store: Store) -> None:
    import time

    before = time.time_ns() // 1000
    receipt = await store.commit([outside(children=[start("w")])])
    poll = await store.poll(None, [], "v1")
    after = time.time_ns() // 1000
    slack = 5 * SECOND  # between this clock and that of a database elsewhere
    assert before - slack <= receipt.now <= poll.now <= after + slack
    assert (await row(store, "w")).created == receipt.now
    assert len(await store.claim(want())) == 1
