"""Batches in the database: frozen once, each target acted on once, sums, rates and owners; on every dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from perdure.errors import ConfigError
from perdure.model.acts import (
    Act,
    CancelIt,
    DeleteIt,
    ForkIt,
    Leave,
    MoveIt,
    PauseIt,
    ReopenIt,
    ResetIt,
    RewindIt,
    SkipIt,
    TerminateIt,
)
from perdure.model.batches import LEASE, Applied, Ask, BatchRow, BatchState, Fate, NewBatch, TargetRow
from perdure.model.cuts import Cut, mark
from perdure.model.ids import RunKey
from perdure.model.orders import Goal, MoveOrder, SkipOrder, digest_of
from perdure.model.records import Intent
from perdure.model.resets import ResetOrder, as_move, read_point
from perdure.model.states import Reason, Status, Versioning
from perdure.model.writes import Hold, Park, Pause, Reopen
from perdure.query.read import read_query
from perdure.store import batched
from perdure.store.base import Store
from tests.store.build import (
    ME,
    SECOND,
    T,
    close,
    commit,
    dump,
    history,
    one,
    outside,
    own,
    queued,
    record,
    rewind,
    row,
    running,
    send,
    start,
    status,
    tok,
    unit,
)

MakeStore = Callable[[str], Awaitable[Store]]
KEY = "k"
CHARGE = Intent("2", "charge", b"fp")
TO_V2 = Goal(Versioning.PINNED, "v2")


def new(**more: Any) -> NewBatch:
    fields: dict[str, Any] = {
        "key": KEY, "verb": "cancel", "options": b"{}", "query": "id IS NOT NULL", "by": "ann@host", "reason": "why",
        "rate": None, "owner": ME, "nonce": tok("batch"),
    }  # fmt: skip
    return NewBatch(**{**fields, **more})


async def frozen(store: Store, text: str = "id IS NOT NULL", *, now: int = T, **more: Any) -> BatchRow:
    made, is_new = await store.batches.create(new(query=text, **more), read_query(text, store.app, use="set"), now=now)
    assert is_new
    return made


def cancels(*ids: str, run: int = 1) -> list[Act]:
    return [CancelIt(id=id, run=run, nonce=tok("act"), reason="why") for id in ids]


async def apply(store: Store, *acts: Act, owner: bytes = ME, now: int = T + 1) -> Applied:
    return await store.batches.apply(KEY, owner, acts, now=now)


async def targets(store: Store, fate: Fate | None = None) -> dict[str, TargetRow]:
    return {one.id: one for one in await store.batches.targets(KEY, fate, "", 1000)}


async def fates(store: Store) -> dict[str, str]:
    return {id: f"{one.fate}: {one.detail}" for id, one in (await targets(store)).items()}


async def sums(store: Store) -> tuple[int, int, int, int]:
    """Of the batch's row, which are those of its targets."""
    found = await store.batches.get(KEY)
    assert found is not None
    by_fate = [len(await store.batches.targets(KEY, fate, "", 1000)) for fate in Fate]
    assert [found.waiting, found.done, found.skipped, found.failed] == by_fate
    assert found.total == sum(by_fate)
    return found.waiting, found.done, found.skipped, found.failed


def ask(kind: Any, **more: Any) -> Ask:
    fields: dict[str, Any] = {"by": "bob@host", "reason": "so", "owner": ME, "nonce": tok("ask")}
    return Ask(kind=kind, **{**fields, **more})


# -- frozen


async def test_targets_are_what_the_query_names_at_that_moment(make_store: MakeStore) -> None:
    store, other = await make_store("app"), await make_store("other")
    await queued(other, "a")
    await queued(store, "a", "b", version="v2")
    await queued(store, "c")
    await running(store, "d", version="v2")
    assert (await frozen(store, "version = v2 AND status = open")).total == 3
    await queued(store, "late", version="v2")
    assert sorted(await targets(store)) == ["a", "b", "d"]
    assert {one.run for one in (await targets(store)).values()} == {1}
    assert await sums(store) == (3, 0, 0, 0)


async def test_the_latest_run_is_meant(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, records=[record(1)], change=rewind("w", 0)))
    await frozen(store)
    assert [(one.id, one.run) for one in (await targets(store)).values()] == [("w", 2)]


async def test_a_query_that_names_nothing_is_a_batch_that_is_done(store: Store) -> None:
    made = await frozen(store, "status = failed")
    assert (made.state, made.total, made.closed, made.owner) == (BatchState.DONE, 0, T, None)
    assert not (await apply(store)).mine


async def test_ordered_again_nothing_changes_but_a_line_of_audit(store: Store) -> None:
    await queued(store, "a", "b")
    first = await frozen(store)
    await apply(store, *cancels("a", "b"))
    await queued(store, "c")
    before = await dump(store)
    again, is_new = await store.batches.create(new(by="bob@host"), read_query("", "app"), now=T + 9)
    assert not is_new
    assert (again.key, again.nonce, again.state) == (KEY, first.nonce, BatchState.DONE)
    after = await dump(store)
    assert {table for table in before if before[table] != after[table]} == {"audit_line"}
    [line] = await store.batches.audits(KEY, [""])
    assert (line.verb, line.by, line.at) == ("batch cancel", "bob@host", T + 9)
    assert line.after == "ordered again: answered with this batch, which is done"


async def test_the_answer_was_lost_and_the_same_order_comes_again(store: Store) -> None:
    await queued(store, "a")
    order = new()
    first = await store.batches.create(order, read_query("", "app"), now=T)
    assert await store.batches.create(order, read_query("", "app"), now=T + 1) == first
    assert await store.batches.audits(KEY, [""]) == []


@pytest.mark.parametrize("other", [{"verb": "pause"}, {"options": b'{"a":1}'}, {"query": "status = open"}])
async def test_another_order_under_the_key_is_answered_with_the_batch_and_writes_nothing(
    store: Store, other: dict[str, Any]
) -> None:
    await frozen(store)
    before = await dump(store)
    there, is_new = await store.batches.create(new(**other), read_query("", "app"), now=T)
    assert (there.verb, is_new) == ("cancel", False)
    assert await dump(store) == before


async def test_more_targets_than_a_batch_may_have_are_refused_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "TARGETS_MAX", 2)
    await queued(store, "a", "b")
    await frozen(store)
    await queued(store, "c")
    with pytest.raises(ConfigError, match="more than 2 workflows; narrow it"):
        await store.batches.create(new(key="more"), read_query("", "app"), now=T)
    assert await store.batches.get("more") is None
    assert await store.batches.targets("more", None, "", 10) == []


async def test_two_who_order_at_once_make_one_batch(make_store: MakeStore) -> None:
    stores = [await make_store("app") for _ in range(2)]
    await queued(stores[0], *(f"w{n}" for n in range(50)))
    made = await asyncio.gather(*(s.batches.create(new(), read_query("", "app"), now=T) for s in stores))
    assert sorted(is_new for _, is_new in made) == [False, True]
    assert {found.nonce for found, _ in made} == {next(found.nonce for found, is_new in made if is_new)}
    assert await sums(stores[0]) == (50, 0, 0, 0)


# -- acts


async def zoo(*stores: Store) -> None:
    """A workflow in each state, the same in each store, to the last byte."""
    claims = {id: tok("claim") for id in ("running", "waiting", "held", "done", "parent", "child", "watcher", "paused")}
    began = [own(id, claim) for id, claim in claims.items()]
    child = own("child2", tok("claim"), start=start("child2", tok("c"), parent="parent", parent_run=1, parent_path="1"))
    plain = outside(
        children=[
            start("queued"), start("delayed", delay=SECOND, status=Status.SCHEDULED), start("line", queue="q"),
            start("offspring", parent="parent", parent_run=1, parent_path="2"),
        ],
        sends=[send("waiting")],
    )  # fmt: skip
    then = [
        unit("waiting", claims["waiting"], records=[record(1, intents=(CHARGE,))], change=Park(None, "a word")),
        unit(
            "held",
            claims["held"],
            records=[record(1), record(2, intents=(CHARGE,))],
            change=Hold(Reason.POLICY, "by policy"),
        ),
        unit("done", claims["done"], records=[record(1)], change=close()),
        unit("parent", claims["parent"], change=Park(None, "children", ("queued",))),
        unit("watcher", claims["watcher"], change=Park(None, "held", ("held", "running"))),
    ]
    told = Pause(nonce=tok("pause"), shown="by ann", at=T)
    for store in stores:
        await commit(store, *began, child, plain)
        await commit(store, *then)
        await store.pause("paused", told, now=T)


ZOO = (
    "child", "child2", "delayed", "done", "held", "line", "offspring", "parent", "paused", "queued", "running",
    "waiting", "watcher",
)  # fmt: skip


async def rows_of(store: Store, app: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of an app but batches and audit, without its name."""
    found = await dump(store)
    return {
        table: [{name: value for name, value in r.items() if name != "app"} for r in rows if r.get("app") == app]
        for table, rows in found.items()
        if table not in ("batch", "batch_target", "audit_line")
    }


async def by_hand(store: Store, act: Act, seen: Any) -> None:
    match act:
        case CancelIt(reason=reason):
            await store.cancel(act.id, reason, act.nonce, now=T + 1)
        case TerminateIt(reason=reason):
            await store.terminate(act.id, reason, act.nonce, now=T + 1)
        case PauseIt(order=order):
            await store.pause(act.id, order, now=T + 1)
        case ReopenIt(order=order):
            await store.reopen(seen, order, now=T + 1)
        case RewindIt(change=change):
            await store.rewind(seen, change, now=T + 1)
        case ForkIt(source=source, start=begun, mark=sign, end=end):
            await store.fork(source, begun, sign, end=end, now=T + 1)
        case MoveIt(order=order):
            await store.move([order], now=T + 1)
        case SkipIt(order=order):
            await store.skip(order, now=T + 1)
        case _:
            await store.upkeep.purge([RunKey(act.id, act.run)])


def act_on(kind: str, seen: Any) -> Act:
    id, nonce = seen.id, tok("act")
    more: dict[str, Any] = {"id": id, "run": 1, "nonce": nonce}
    match kind:
        case "cancel":
            return CancelIt(**more, reason="why")
        case "terminate":
            return TerminateIt(**more, reason="why")
        case "pause":
            return PauseIt(**more, order=Pause(nonce=nonce, shown="by ann", at=T))
        case "reopen":
            order = Reopen(nonce=nonce, verb="resume", shown="by ann", at=T, version="v2", at_once=id == "queued")
            return ReopenIt(**more, seen=seen, order=order)
        case "rewind":
            return RewindIt(**more, seen=seen, change=rewind(id, 0, uncancel=True))
        case "fork":
            sign = mark(Cut(id, 1, 0), "restart", at=T, shown="by ann")
            return ForkIt(**more, source=RunKey(id, 1), start=start(f"{id}-2"), mark=sign, end="restarted")
        case "move":
            return MoveIt(**more, order=MoveOrder(id=id, goal=TO_V2, nonce=nonce, shown="by ann", at=T))
        case "reset":
            order_ = ResetOrder(
                id=id, root=id, point=read_point("first"), goal=TO_V2, key="k", nonce=nonce, wake=tok("wake"),
                by="ann", reason="why", at=T,
            )  # fmt: skip
            return ResetIt(**more, orders=(order_,))
        case "skip":
            told = SkipOrder(
                id=id, step="charge", data=b'"ch"', digest=digest_of(b'"ch"'), nonce=nonce, shown="by ann", at=T
            )
            return SkipIt(**more, order=told)
        case _:
            return DeleteIt(**more)


KINDS = ("cancel", "terminate", "pause", "reopen", "rewind", "fork", "delete", "move", "reset", "skip")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_act_of_a_batch_does_what_the_command_by_hand_does(make_store: MakeStore, kind: str) -> None:
    """To the last column, in each state, for all of them in one transaction or one after the other."""
    hand, many = await make_store("hand"), await make_store("many")
    await zoo(hand, many)
    seen = await many.rows(ZOO)
    assert sorted(seen) == sorted(ZOO)
    acts = [act_on(kind, seen[id]) for id in ZOO]
    await frozen(many)
    if kind == "reset":  # by hand, too, those that wait for each other are reset together
        orders = {act.id: act.orders[0] for act in acts if isinstance(act, ResetIt)}
        answers = await hand.reset(list(orders.values()), now=T + 1)
        whole = [as_move(orders[one.id], TO_V2) for one in answers if one.nothing]
        await hand.move(whole, now=T + 1)
    for act in acts:
        if kind != "reset":
            await by_hand(hand, act, (await hand.rows([act.id])).get(act.id))
    applied = await apply(many, *reversed(acts))
    assert applied.batch is not None
    assert not applied.again or kind == "reopen"  # what is closed is not as anybody sees who reopens
    here, there = await rows_of(many, "many"), await rows_of(hand, "hand")
    for table in there:
        assert here[table] == there[table], table
    changed = {id for id, one in (await targets(many)).items() if one.fate is Fate.DONE}
    lines = await many.batches.audits(KEY, ZOO)
    assert {line.id for line in lines} == changed
    assert len(lines) == len(changed) > 0
    await sums(many)


async def test_what_is_said_of_each(store: Store) -> None:
    await zoo(store)
    await frozen(store)
    await store.upkeep.purge([RunKey("done", 1)])
    await apply(store, *cancels(*ZOO, "nobody"))
    assert await fates(store) == {
        "done": "skipped: no workflow has this id any more",
        **dict.fromkeys(("child", "child2", "paused", "running"), "done: told to cancel"),
        **dict.fromkeys(("held", "parent", "waiting", "watcher"), "done: told to cancel"),
        **dict.fromkeys(("delayed", "line", "offspring", "queued"), "done: cancelled"),
    }
    [line] = await store.batches.audits(KEY, ["held"])
    assert (line.before, line.after, line.verb) == ("held, run 1, version v1", "told to cancel", "cancel")
    assert (line.by, line.reason, line.run, line.at) == ("ann@host", "why", 1, T + 1)
    assert (await store.batches.get(KEY)).state is BatchState.DONE  # type: ignore[union-attr]


async def test_each_target_is_acted_on_once_however_often_a_chunk_is_sent(store: Store) -> None:
    await queued(store, "a", "b", "c")
    await frozen(store)
    acts = cancels("a", "b")
    first = await apply(store, *acts)
    before = await dump(store)
    again = await apply(store, *acts)
    assert again.batch == first.batch is not None
    after = await dump(store)
    assert after["workflow"] == before["workflow"]
    assert after["audit_line"] == before["audit_line"]
    assert after["batch_target"] == before["batch_target"]
    await apply(store, *cancels("a", "b", "c", "x"))
    assert await sums(store) == (0, 3, 0, 0)
    assert len(await store.batches.audits(KEY, ["a", "b", "c", "x"])) == 3


async def test_what_is_not_as_it_was_seen_waits(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=Hold(Reason.POLICY, "why")))
    await frozen(store)
    act = act_on("reopen", await row(store, "w"))
    await store.terminate("w", "quicker", tok("end"), now=T)
    applied = await apply(store, act)
    assert applied.again == {"w"}
    assert await fates(store) == {"w": "waiting: "}
    assert (await targets(store))["w"].tries == 0
    assert await store.batches.audits(KEY, ["w"]) == []
    gone = await apply(store, Leave(id="w", run=1, nonce=tok("act"), fate=Fate.FAILED, detail="it is hard at work"))
    assert not gone.again
    assert await fates(store) == {"w": "failed: it is hard at work"}


async def test_another_run_than_was_looked_at_is_not_acted_on(store: Store) -> None:
    claim = await running(store, "w")
    await frozen(store)
    acts = cancels("w")
    await one(store, unit("w", claim, records=[record(1)], change=rewind("w", 0)))
    assert (await apply(store, *acts)).again == {"w"}
    assert await status(store, "w") is Status.QUEUED


async def test_open_or_asked_for_is_not_deleted(store: Store) -> None:
    claims = await running(store, "open", "parent", "free")
    child = start("child", parent="parent", parent_run=1, parent_path="1")
    await one(store, own("child", tok("claim"), start=msgspec.structs.replace(child, claim=claims, owner=ME,
              status=Status.RUNNING), change=close()))  # fmt: skip
    await one(store, unit("free", claims, records=[record(1)], change=close()))
    await frozen(store, verb="delete")
    deletes = [DeleteIt(id=id, run=1, nonce=tok("act")) for id in ("open", "child", "free")]
    await apply(store, *deletes)
    assert await fates(store) == {
        "open": "failed: it is running, and only what has ended is deleted: cancel it first",
        "child": f"failed: {batched.NEEDED}",
        "free": "done: deleted",
        "parent": "waiting: ",
    }
    assert sorted(await store.rows(["open", "child", "free"])) == ["child", "open"]
    assert await history(store, "free") == []


# -- the batch


async def test_an_order_about_a_batch_that_is_not_there(store: Store) -> None:
    assert await store.batches.change("none", ask("cancel"), now=T) is None
    found = await store.batches.apply("none", ME, [], now=T)
    assert (found.batch, found.mine) == (None, False)
    assert await store.batches.get("none") is None
    assert await store.batches.listing(10) == []


async def test_a_cancelled_batch_acts_on_nothing_more_and_stays_so(store: Store) -> None:
    await queued(store, "a", "b")
    await frozen(store)
    await apply(store, *cancels("a"))
    order = ask("cancel")
    cancelled = await store.batches.change(KEY, order, now=T + 5)
    assert cancelled is not None
    assert (cancelled.state, cancelled.closed, cancelled.waiting) == (BatchState.CANCELLED, T + 5, 1)
    assert not (await apply(store, *cancels("b"), now=T + LEASE * 9)).mine
    assert await status(store, "b") is Status.QUEUED
    before = await dump(store)
    for kind in ("cancel", "retry", "take"):
        assert await store.batches.change(KEY, ask(kind), now=T + 6) == cancelled
    assert await store.batches.change(KEY, order, now=T + 6) == cancelled
    assert await dump(store) == before
    [line] = await store.batches.audits(KEY, [""])
    assert (line.verb, line.by, line.reason, line.before) == ("batch cancel", "bob@host", "so", "running")


async def test_what_has_failed_is_put_back_and_only_that(store: Store) -> None:
    await queued(store, "a", "b", "c")
    await frozen(store)
    fail = [Leave(id=id, run=1, nonce=tok("act"), fate=Fate.FAILED, detail="no") for id in ("a", "b")]
    await apply(store, *fail, *cancels("c"))
    assert await sums(store) == (0, 1, 0, 2)
    order = ask("retry", owner=b"other".ljust(16))
    back = await store.batches.change(KEY, order, now=T + 5)
    assert back is not None
    assert (back.state, back.waiting, back.failed, back.closed) == (BatchState.RUNNING, 2, 0, None)
    assert await sums(store) == (2, 1, 0, 0)
    again = await store.batches.change(KEY, order, now=T + 6)
    assert again == back, "its answer was lost, and it was sent again"
    await apply(store, *cancels("a", "b", "c"), owner=order.owner, now=T + 7)
    assert await sums(store) == (0, 3, 0, 0)
    assert {id: one.tries for id, one in (await targets(store)).items()} == {"a": 2, "b": 2, "c": 1}
    assert len(await store.batches.audits(KEY, ["a", "b", "c"])) == 3
    done = await store.batches.get(KEY)
    assert await store.batches.change(KEY, ask("retry"), now=T + 8) == done, "nothing has failed"


async def test_a_batch_is_left_to_its_owner_while_that_is_heard_of(store: Store) -> None:
    other = b"other".ljust(16, b".")
    await queued(store, "a", "b", "c", "d")
    await frozen(store)
    assert not (await apply(store, *cancels("a"), owner=other, now=T + LEASE - 1)).mine
    assert (await apply(store, *cancels("a"), now=T + LEASE - 1)).mine
    later = T + 2 * LEASE
    taken = await apply(store, *cancels("b"), owner=other, now=later)
    assert taken.batch is not None
    assert (taken.batch.owner, taken.batch.until) == (other, later + LEASE)
    assert not (await apply(store, *cancels("c"), now=later + 1)).mine, "who lost it carries out nothing"
    back = await store.batches.change(KEY, ask("take"), now=later + 2)
    assert back is not None
    assert back.owner == ME
    assert not (await apply(store, *cancels("c"), owner=other, now=later + 3)).mine
    assert (await apply(store, *cancels("c"), now=later + 3)).mine
    assert await sums(store) == (1, 3, 0, 0)
    assert [line.verb for line in await store.batches.audits(KEY, [""])] == ["batch take"]
    assert await store.batches.change(KEY, ask("take"), now=later + 4) == await store.batches.get(KEY)


async def test_no_chunk_begins_before_the_rate_allows_it_whoever_carries_it_out(store: Store) -> None:
    other = b"other".ljust(16, b".")
    await queued(store, *"abcdef")
    claim = await running(store, "over")
    await one(store, unit("over", claim, change=close()))
    await frozen(store, rate=0.5)
    applied = await apply(store, *cancels("a", "over"), now=T)
    assert applied.batch is not None
    assert applied.batch.next == T + 2 * SECOND, "what is skipped does not count"
    assert applied.batch.until == T + 2 * SECOND + LEASE
    for owner in (ME, other):
        await store.batches.change(KEY, ask("take", owner=owner), now=T + 1)
        early = await apply(store, *cancels("b"), owner=owner, now=T + 2 * SECOND - 1)
        assert (early.mine, early.again) == (True, frozenset())
    assert await sums(store) == (5, 1, 1, 0)
    two = await apply(store, *cancels("b", "c"), owner=other, now=T + 2 * SECOND)
    assert two.batch is not None
    assert two.batch.next == T + 6 * SECOND
    only_skipped = await apply(store, *cancels("b", "over"), owner=other, now=T + 6 * SECOND)
    assert only_skipped.batch is not None
    assert only_skipped.batch.next == T + 6 * SECOND


async def test_two_chunks_at_once_act_on_each_target_once(make_store: MakeStore) -> None:
    stores = [await make_store("app") for _ in range(2)]
    ids = [f"w{n:02}" for n in range(40)]
    await queued(stores[0], *ids)
    await frozen(stores[0])
    await asyncio.gather(*(apply(s, *cancels(*ids)) for s in stores for _ in range(3)))
    assert await sums(stores[0]) == (0, 40, 0, 0)
    assert len(await stores[0].batches.audits(KEY, ids)) == 40


async def test_the_latest_batches_come_first_and_targets_by_pages(store: Store) -> None:
    await queued(store, *"abcde")
    for n in range(3):
        await frozen(store, key=f"k{n}", now=T + n)
    assert [one.key for one in await store.batches.listing(2)] == ["k2", "k1"]
    assert [one.id for one in await store.batches.targets("k0", None, "b", 2)] == ["c", "d"]
    assert [one.id for one in await store.batches.targets("k0", Fate.WAITING, "d", 2)] == ["e"]
    assert await store.batches.targets("k0", Fate.DONE, "", 2) == []


async def test_old_batches_are_swept_with_all_that_is_theirs(store: Store) -> None:
    await queued(store, *"abcde")
    await frozen(store)
    await frozen(store, key="open", now=T)
    await apply(store, *cancels(*"abcde"))
    await store.batches.create(new(), read_query("", "app"), now=T + 2)
    assert await store.upkeep.sweep_batches(T, 3) == 0, "it ended later"
    swept: list[int] = []
    while gone := await store.upkeep.sweep_batches(T + 1, 3):
        swept.append(gone)
    assert swept == [3, 2, 3, 3, 1]
    found = await dump(store)
    assert [one["key"] for one in found["batch"]] == ["open"], "what is not closed stays, however old"
    assert {one["batch"] for one in found["batch_target"]} == {"open"}
    assert found["audit_line"] == []


async def test_other_apps_are_not_touched(make_store: MakeStore) -> None:
    store, other = await make_store("app"), await make_store("other")
    await queued(store, "a")
    await queued(other, "a")
    await frozen(store)
    await frozen(other)
    await apply(store, *cancels("a"))
    await store.batches.change(KEY, ask("cancel"), now=T)
    assert await status(other, "a") is Status.QUEUED
    assert await sums(other) == (1, 0, 0, 0)
    assert await other.batches.audits(KEY, ["a", ""]) == []
