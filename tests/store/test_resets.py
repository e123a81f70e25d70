"""Reset: the next run from a kept prefix, open or closed, many in one commit; the same order again writes nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perdure.model.cuts import cut_of
from perdure.model.ids import RunKey
from perdure.model.orders import Answer, Answered, Goal
from perdure.model.problems import Failing, ProblemKind, Trouble
from perdure.model.queues import lane_of
from perdure.model.records import Intent, Kind, Override, Record
from perdure.model.resets import ResetOrder, read_point
from perdure.model.states import Reason, Status, Versioning
from perdure.model.writes import Hold, Park, Pause, SetEvent
from perdure.store.base import Store
from perdure.store.lines import LineRequest
from tests.store.build import (
    SECOND,
    T,
    append,
    close,
    dump,
    history,
    one,
    outside,
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

LATER = T + 100


def order(to: str = "first", id: str = "w", **more: Any) -> ResetOrder:
    fields: dict[str, Any] = {
        "root": id, "key": "k", "nonce": tok("reset"), "wake": tok("wake"), "by": "ann", "reason": "why", "at": LATER,
    }  # fmt: skip
    return ResetOrder(id=id, point=read_point(to), **{**fields, **more})


async def reset(store: Store, to: str = "first", id: str = "w", **more: Any) -> Answered:
    [answered] = await store.reset([order(to, id, **more)], now=LATER)
    return answered


async def nothing_more(store: Store, to: str = "first", **more: Any) -> None:
    before = await dump(store)
    assert (await reset(store, to, **more)).answer is Answer.ALREADY
    assert await dump(store) == before


def by(version: str, u: Any) -> Any:
    return msgspec.structs.replace(u, version=version)


async def worked(store: Store) -> bytes:
    """Two records of v1, a message received, two records of v2; a step in flight."""
    claim = await running(store, "w", timeout=9 * SECOND)
    mail = [send("w", mid=bytes([n]) * 16, data=str(n).encode()) for n in (1, 2, 3)]
    await one(store, outside(sends=mail))
    assert (await one(store, unit("w", claim, records=[record(1), record(2)]))).applied
    recv = record(3, Kind.RECV)
    assert (await one(store, unit("w", claim, records=[recv], taken=[(mail[0].mid, 3)]))).applied
    again = record(5, Kind.RECV)
    two = unit("w", claim, records=[record(4), again], taken=[(mail[1].mid, 5)])
    assert (await one(store, by("v2", two))).applied
    last = record(6, intents=(Intent("7", "charge", b"fp", True),))
    assert (await one(store, by("v2", unit("w", claim, records=[last])))).applied
    return claim


# -- points

POINTS = {"first": 0, "last": 5, "before-version:v2": 3, "#2": 1, "4": 3, "7": 6, "charge": 6}


@pytest.mark.parametrize(("to", "keep"), POINTS.items())
async def test_each_point_keeps_what_comes_before_it(store: Store, to: str, keep: int) -> None:
    claim = await worked(store)
    before = await history(store, "w")
    answered = await reset(store, to)
    assert (answered.answer, answered.status) == (Answer.DONE, Status.QUEUED)
    after = await history(store, "w", 2)
    assert after[:-1] == before[:keep], "as they stand, versions included"
    mark = after[-1]
    assert (mark.seq, mark.kind, mark.name, mark.shown) == (keep + 1, Kind.CUT, "reset", "by ann: why")
    assert (cut_of(mark).run, cut_of(mark).kept, cut_of(mark).origin, cut_of(mark).key) == (1, keep, 1, "k")
    assert [i.path for i in mark.intents] == ["7"], "it has begun, and may run once at most"
    assert await history(store, "w") == before, "what was dropped stays readable"
    old, now = await store.run(RunKey("w", 1)), await row(store, "w")
    assert old is not None
    assert (old.status, old.closed, old.last_seq, old.claim) == (Status.SUPERSEDED, LATER, 6, claim)
    assert (now.status, now.run, now.claim, now.owner, now.lineage) == (Status.QUEUED, 2, None, None, old.lineage)
    assert (now.last_seq, now.until, now.closed, now.attempts) == (keep + 1, LATER, None, 0)
    assert (now.started, now.deadline) == ((None, None) if keep == 0 else (old.started, LATER + 9 * SECOND))
    assert not (await one(store, unit("w", claim, records=[record(7)]))).applied, "a zombie writes nothing"
    [got] = await store.claim(want(), now=LATER)
    assert (got.row.key, got.input) == (RunKey("w", 2), start("w").input)


async def test_what_kept_it_is_left_to_the_run_before(store: Store) -> None:
    claim = await running(store, "w")
    said = Failing(kind=ProblemKind.NONDETERMINISM, version="v1", text="why")
    held = unit("w", claim, change=Hold(Reason.NONDETERMINISM, "why"), trouble=Trouble(now=said.kind, told=(said,)))
    assert (await one(store, held)).applied
    assert (await row(store, "w")).problem is ProblemKind.NONDETERMINISM
    assert (await reset(store)).answer is Answer.DONE
    assert (await row(store, "w")).problem is None
    assert [(one.run, one.kind) for one in await store.problems(["w"])] == [(1, ProblemKind.NONDETERMINISM)]


async def test_a_point_that_is_not_there_is_refused(store: Store) -> None:
    await worked(store)
    before = await dump(store)
    for to in ("ship", "#9", "step"):
        assert (await reset(store, to)).answer is Answer.REFUSED, to
    assert (await reset(store, id="nobody")).answer is Answer.UNKNOWN
    assert await dump(store) == before


async def test_where_a_version_wrote_nothing_there_is_nothing_to_drop(store: Store) -> None:
    claim = await worked(store)
    before = await dump(store)
    answered = await reset(store, "before-version:v9", goal=Goal(Versioning.PINNED, "v3"))
    assert (answered.answer, answered.nothing) == (Answer.ALREADY, True), "it is moved, if at all"
    assert await dump(store) == before
    await one(store, by("v9", unit("w", claim, change=close(Status.FAILED))))
    assert (await reset(store, "before-version:v9")).answer is Answer.DONE, "it failed there, without a record"
    assert len(await history(store, "w", 2)) == 7


async def test_a_first_step_under_way_is_what_its_version_wrote(store: Store) -> None:
    await running(store, "w", intents=(Intent("1", "charge", b"fp"),))
    assert (await reset(store, "before-version:v2")).nothing
    assert (await reset(store, "before-version:v1")).answer is Answer.DONE
    assert [i.path for i in (await history(store, "w", 2))[0].intents] == ["1"]


async def test_an_order_of_a_person_is_not_what_a_version_wrote(store: Store) -> None:
    await worked(store)
    from tests.store.test_orders import moved

    assert await moved(store, Goal(Versioning.PINNED, "v9")) is Answer.DONE
    assert (await reset(store, "before-version:v9")).answer is Answer.ALREADY


# -- twice


async def test_the_same_order_is_carried_out_once_until_it_is_asked_for_again(store: Store) -> None:
    await worked(store)
    assert (await reset(store)).answer is Answer.DONE
    await nothing_more(store)
    [got] = await store.claim(want(), now=LATER)
    assert (await one(store, unit("w", got.row.claim or b"", run=2, records=[record(2)], change=close()))).applied
    before = await dump(store)
    said = await reset(store)
    assert (said.answer, said.status) == (Answer.ALREADY, Status.COMPLETED)
    assert "by ann: why" in said.words
    assert await dump(store) == before, "closed since, it is not reset again"
    assert (await reset(store, key="other")).answer is Answer.DONE
    assert (await reset(store, key="other", again=True)).answer is Answer.DONE
    assert (await row(store, "w")).run == 4


@pytest.mark.parametrize("end", [Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT])
async def test_a_closed_one_keeps_when_it_ended(store: Store, end: Status) -> None:
    claim = await worked(store)
    await one(store, unit("w", claim, change=close(end)), T + 50)
    assert (await reset(store, "last")).answer is Answer.DONE
    old = await store.run(RunKey("w", 1))
    assert old is not None
    assert (old.status, old.closed) == (Status.SUPERSEDED, T + 50)
    assert await store.ended(["w"]) == {}, "who waits for it waits on"
    await nothing_more(store, "last")


async def test_a_terminated_one_is_reset_like_any_other(store: Store) -> None:
    await worked(store)
    await store.terminate("w", "by hand", tok("end"), now=T + 50)
    assert (await reset(store)).answer is Answer.DONE
    assert (await row(store, "w")).detail == ""


async def test_what_has_never_begun_has_nothing_to_reset(store: Store) -> None:
    await queued(store, "w")
    before = await dump(store)
    answered = await reset(store)
    assert (answered.answer, answered.nothing) == (Answer.ALREADY, True)
    assert await dump(store) == before


# -- messages, commands


async def mail(store: Store) -> list[bytes]:
    return [m.data for m in await store.inbox(["w"])]


async def test_messages_are_received_again_in_their_order(store: Store) -> None:
    await worked(store)
    assert (await reset(store, "before-version:v2")).answer is Answer.DONE
    assert await mail(store) == [b"2", b"3"]
    assert (await reset(store, key="2")).answer is Answer.DONE
    assert await mail(store) == [b"1", b"2", b"3"]


async def test_excluded_messages_are_gone_for_good_but_not_what_the_kept_part_has(store: Store) -> None:
    await worked(store)
    late = send("w", mid=bytes([9]) * 16, data=b"9")
    await one(store, outside(sends=[late]), T + 60)
    assert (await reset(store, "before-version:v2", exclude="messages")).answer is Answer.DONE
    assert await mail(store) == [b"3"], "came before the last kept record, and nobody has received it"
    assert cut_of((await history(store, "w", 2))[-1]).dropped == "messages dropped"
    await one(store, outside(sends=[send("w", mid=bytes([10]) * 16, data=b"10")]), LATER)
    assert (await reset(store, key="2")).answer is Answer.DONE
    assert await mail(store) == [b"1", b"3", b"10"], "dropped is dropped; what the kept part had comes again"


@pytest.mark.parametrize("exclude", ["none", "messages", "all"])
async def test_a_command_to_cancel_is_given_to_the_next_run_unless_all_is_excluded(store: Store, exclude: str) -> None:
    claim = await worked(store)
    nonce = tok("cancel")
    await store.cancel("w", "enough", nonce, now=T)
    told = Record(7, "", Kind.CANCEL, "cancelled:enough", T + 7)
    assert (await one(store, unit("w", claim, records=[told], woken=[nonce]))).applied
    assert (await reset(store, "last", exclude=exclude)).answer is Answer.DONE
    assert (await row(store, "w")).cancel == (None if exclude == "all" else "enough")
    assert len(await history(store, "w", 2)) == 6


async def test_a_cancel_that_had_its_effect_is_taken_back(store: Store) -> None:
    claim = await worked(store)
    nonce = tok("cancel")
    await store.cancel("w", "enough", nonce, now=T)
    told = Record(7, "", Kind.CANCEL, "cancelled:enough", T + 7)
    end = close(Status.CANCELLED)
    assert (await one(store, unit("w", claim, records=[told], woken=[nonce], change=end))).applied
    assert (await reset(store, "last")).answer is Answer.DONE
    assert (await row(store, "w")).cancel is None
    assert Kind.CANCEL not in {r.kind for r in await history(store, "w", 2)}


@pytest.mark.parametrize("exclude", ["none", "all"])
@pytest.mark.parametrize("done", [False, True])
async def test_a_pause_holds_for_the_next_run_unless_all_is_excluded(store: Store, done: bool, exclude: str) -> None:
    claim = await worked(store)
    await store.pause("w", Pause(nonce=tok("pause"), shown="by bob", at=T), now=T)
    if done:
        await one(store, unit("w", claim, change=Hold(Reason.PAUSED, "by bob")))
    assert (await reset(store, exclude=exclude)).answer is Answer.DONE
    now = await row(store, "w")
    assert (now.status, now.pause) == (Status.QUEUED, None if exclude == "all" else "by bob")


# -- what else goes with it


@pytest.mark.parametrize("goal", [Goal(Versioning.PINNED, "v3"), Goal(Versioning.AUTO_UPGRADE, "v3")])
async def test_it_is_moved_in_the_same_commit(store: Store, goal: Goal) -> None:
    await worked(store)
    answered = await reset(store, "before-version:v2", goal=goal)
    assert "on version v3" in answered.words
    now = await row(store, "w")
    assert (now.version, now.versioning, now.override) == ("v3", goal.versioning, Override(Versioning.UNDECLARED))
    assert await store.claim(want(), now=LATER) == []
    await nothing_more(store, "before-version:v2", goal=goal)


async def test_an_order_about_its_version_outlives_a_reset(store: Store) -> None:
    from tests.store.test_orders import moved

    await worked(store)
    await moved(store)
    assert (await reset(store)).answer is Answer.DONE
    now = await row(store, "w")
    assert (now.version, now.override) == ("v2", Override(Versioning.UNDECLARED))


async def test_it_stands_in_its_queues_line_again(store: Store) -> None:
    await queued(store, "w", "x", queue="q", partition="p", priority=2)
    await store.make_queues(["q"], now=T)
    line = LineRequest(queue="q", owner=b"me".ljust(16, b"."), token=tok("claim"), version="v1", limit=1)
    [got] = (await store.claim_line(line, now=T)).claimed
    assert got.row.id == "w"
    assert (await reset(store)).answer is Answer.DONE
    now = await row(store, "w")
    assert (now.queue, now.partition, now.priority, now.lane) == ("q", "p", 2, lane_of("q", "p", 2))
    assert await store.claim(want(), now=LATER) == [], "only through the line"
    again = msgspec.structs.replace(line, token=tok("claim"), limit=9)
    assert [c.row.id for c in (await store.claim_line(again, now=LATER)).claimed] == ["x", "w"], "behind who waits"


async def test_events_and_streams_are_as_the_kept_records_have_set_them(store: Store) -> None:
    claim = await running(store, "w")
    for n in (1, 2, 3):
        event = Record(n, str(n), Kind.EVENT, "e", T, data=str(n).encode())
        value = append(n, str(n))
        u = unit("w", claim, records=[event], events=[SetEvent("e", str(n).encode())], appends=[value])
        assert (await one(store, u)).applied
    assert (await reset(store, "#3")).answer is Answer.DONE
    assert await store.events([("w", "e")]) == {("w", "e"): b"2"}
    dumped = await dump(store)
    assert sorted(r["next"] for r in dumped["stream"]) == [0, 3], "an event is no value's record: none is kept"
    assert {r["name"] for r in dumped["event"]} == {"e"}


async def test_who_watches_is_woken_and_what_it_waited_for_is_forgotten(store: Store) -> None:
    claim = await running(store, "w", "watcher", "other")
    await one(store, unit("watcher", claim, change=Park(None, "", ("w",))))
    await one(store, unit("w", claim, change=Park(None, "", ("other",))))
    assert (await reset(store)).answer is Answer.DONE
    assert [r["waiter"] for r in (await dump(store))["watch"]] == ["watcher"]
    assert {c.row.id for c in await store.claim(want(), now=LATER)} == {"watcher", "w"}


async def test_wakes_for_a_closed_run_do_not_reach_the_next(store: Store) -> None:
    claim = await running(store, "w")
    await store.cancel("w", "late", tok("late"), now=T)
    await one(store, unit("w", claim, change=close()))
    assert (await reset(store)).answer is Answer.DONE
    assert (await dump(store))["wake"] == []
    assert (await row(store, "w")).cancel is None


async def test_a_deadline_that_only_the_parent_gave_stays_unless_it_is_past(store: Store) -> None:
    claim = await running(store, "w", deadline=LATER + 5)
    await running(store, "past", deadline=LATER - 5)
    await one(store, unit("w", claim, records=[record(1)]))
    answers = await store.reset([order(id="w"), order(id="past")], now=LATER)
    assert {a.answer for a in answers} == {Answer.DONE}
    assert [(await row(store, id)).deadline for id in ("w", "past")] == [LATER + 5, None]


async def test_what_was_about_to_be_purged_is_kept_once_it_is_reset(store: Store) -> None:
    claim = await worked(store)
    await one(store, unit("w", claim, change=close()))
    assert (await reset(store)).answer is Answer.DONE
    before = await dump(store)
    assert await store.upkeep.purge([RunKey("w", 1), RunKey("w", 2)]) == []
    assert await dump(store) == before


# -- many, and families


async def test_many_are_reset_in_one_commit(store: Store) -> None:
    ids = [f"w{n}" for n in range(30)]
    claim = await running(store, *ids)
    for n, id in enumerate(ids):
        records = [record(k) for k in range(1, n % 4 + 1)]
        await one(store, unit(id, claim, records=records, change=close() if n % 2 else None))
    await one(store, outside(sends=[send(id) for id in ids if not id.endswith("7")]))
    answers = await store.reset([order("#1", id) for id in ids], now=LATER)
    assert {a.answer for a in answers} == {Answer.DONE}
    assert {r.run for r in (await store.rows(ids)).values()} == {2}
    assert {len(await history(store, id, 2)) for id in ids} == {1}
    before = await dump(store)
    assert {a.answer for a in await store.reset([order("#1", id) for id in ids], now=LATER)} == {Answer.ALREADY}
    assert await dump(store) == before


async def family(store: Store) -> bytes:
    claim = await running(store, "w")
    child = Record(2, "2", Kind.CHILD, "flow", T, data=b"w:2")
    records = [record(1), child]
    u = unit("w", claim, records=records, children=[start("w:2", parent="w", parent_run=1, parent_path="2")])
    assert (await one(store, u)).applied
    return claim


async def test_a_family_is_reset_together_or_not_at_all(store: Store) -> None:
    claim = await family(store)
    [got] = await store.claim(want(), now=T)
    await one(store, unit("w:2", got.row.claim or b"", records=[record(1)], change=close()))
    before = await dump(store)
    kin = frozenset({"w:2"})
    blind = order("#2", family=frozenset())
    below = order(id="w:2", root="w", key="k@w#1", family=frozenset())
    assert {a.answer for a in await store.reset([blind, below], now=LATER)} == {Answer.REFUSED}
    assert await dump(store) == before, "its children are others than were seen"
    seen = order("#2", family=kin)
    assert {a.answer for a in await store.reset([seen, below], now=LATER)} == {Answer.DONE}
    assert [(await row(store, id)).run for id in ("w", "w:2")] == [2, 2]
    before = await dump(store)
    again = await store.reset([order("#2", family=frozenset()), below], now=LATER)
    assert [a.answer for a in again] == [Answer.ALREADY, Answer.REFUSED]
    assert await dump(store) == before
    assert not (await one(store, unit("w", claim, records=[record(3)]))).applied


async def test_another_app_is_not_touched(make_store: object) -> None:
    store, other = await make_store("app"), await make_store("other")  # type: ignore[operator]
    await worked(store)
    before = await dump(store)
    assert (await reset(other)).answer is Answer.UNKNOWN
    assert await dump(store) == before
