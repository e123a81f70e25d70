"""Resets at work: what runs again, under which keys, with which messages, children, parents. On both stores."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import App, Stream, Topic, current, patched, recv, sleep, write_stream
from perdure.errors import WorkflowNotFound, WorkflowRefused, WorkflowTimedOut
from perdure.model.ids import RunKey
from perdure.model.records import Kind
from perdure.model.states import Reason, Status
from perdure.runtime import eviction
from perdure.runtime import executor as runtime_executor
from perdure.store.asks import ClaimRequest
from tests.runtime.moving import at_rest, go, names, run_of, store_of, trip
from tests.runtime.releases import Replica, everybody_follows, waits
from tests.runtime.releases import go as let_go
from tests.runtime.support import Ledger, executor, history, in_memory, row, status, until

lines = Stream[str]("lines")


async def is_(app: Any, id: str, wanted: str) -> None:
    async def there() -> bool:
        return await status(app, id) == wanted

    await until(there)


async def done(app: Any, ledger: Ledger) -> Any:
    """A trip that has ended."""
    handle = await trip(app, ledger).options(id="a").start("ann")
    await handle.send("first", go)
    assert (await handle.result(timeout=15))[3] == "first"
    return handle


async def test_a_closed_workflow_runs_again_from_before_a_step_with_the_same_keys(app: App, ledger: Ledger) -> None:
    async with app:
        handle = await done(app, ledger)
        assert await handle.reset("3", reason="a bad hotel") == "queued"
        assert (await handle.result(timeout=15)) == ["ann", "flight!", "hotel!", "first", "taxi!"]
        assert names(ledger) == ["flight", "hotel", "taxi", "hotel", "taxi"]
        assert len(set(ledger)) == 3, "the same idempotency keys: an outside that keeps its promise does it once"
        old, records = await run_of(app, "a", 1)
        assert (old.status, len(records)) == (Status.SUPERSEDED, 6)
        assert (await row(app, "a")).run == 2
        before = (await row(app, "a"), await history(app, "a"))
        assert await handle.reset("3", reason="a bad hotel") == "completed"
        assert (await row(app, "a"), await history(app, "a")) == before, "done once"
        assert await handle.reset("3", reason="a bad hotel", again=True) == "queued"


@pytest.mark.usefixtures("quick_eviction")
async def test_a_rewound_run_that_waits_is_claimed_once_more_when_nothing_of_before_is_under_way(
    app: App, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a child or a message that was being written while it began has found nobody to wake."""

    async def parked_until() -> int | None:
        await until(lambda: not in_memory(app, "a"))
        await is_(app, "a", "waiting")
        return (await row(app, "a")).until

    async with app:
        handle = await trip(app, ledger).options(id="a").start("ann")
        assert await parked_until() is None
        await handle.send("first", go)
        await handle.result(timeout=15)
        await handle.reset("first", exclude="all")
        assert await parked_until() == (await row(app, "a")).created + eviction.LATE_US
        monkeypatch.setattr(eviction, "LATE_US", 0)
        await handle.reset("first", exclude="all", again=True)
        assert await parked_until() is None
        await handle.send("second", go)
        assert (await handle.result(timeout=15))[3] == "second"


@pytest.mark.parametrize(("exclude", "word"), [("none", "first"), ("messages", "second"), ("all", "second")])
async def test_messages_come_again_unless_they_are_excluded(app: App, ledger: Ledger, exclude: Any, word: str) -> None:
    async with app:
        handle = await done(app, ledger)
        await handle.reset("first", exclude=exclude)
        if word == "second":
            await until(lambda: names(ledger).count("hotel") == 2)
            await handle.send("second", go)
        assert (await handle.result(timeout=15))[3] == word


async def test_an_open_workflow_drops_what_came_since_its_last_wait(app: App, ledger: Ledger) -> None:
    """The last wait that ended was the message: what it did then is done again, the message is kept."""
    more = Topic[str]("more")

    @app.step(name="act")
    async def act(n: int) -> int:
        ledger.note(n)
        return n

    @app.workflow
    async def body() -> list[Any]:
        first = await act(1)
        word = await recv(go)
        out: list[Any] = [first, word, await act(2), await act(3)]
        return [*out, await recv(more)]

    async with app:
        handle = await body.options(id="a").start()
        await handle.send("on", go)
        await until(lambda: len(ledger) == 3)
        await at_rest(app, "a")
        await handle.reset("last", exclude="all")
        await until(lambda: len(ledger) == 5)
        await handle.send("more", more)
        assert await handle.result(timeout=15) == [1, "on", 2, 3, "more"]
    assert ledger == ["1", "2", "3", "2", "3"]


async def test_reset_with_a_move_to_mended_code_drops_what_the_bad_version_wrote(
    replica: Replica, database: str
) -> None:
    old = await replica("v1")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    bad = App("shop", database=database, version="v2", rollout="manual", adopt="never")

    @bad.step(name="step")
    async def step() -> str:
        return current().version

    @bad.workflow(name="order")
    async def order() -> list[str]:
        await step()
        await recv("go")
        await step()
        raise ValueError("corrupted")

    async with bad:
        handle = bad.client.handle("w")
        await handle.move("v2")
        await handle.send(True, "go")
        with pytest.raises(Exception, match="corrupted"):
            await handle.result(timeout=15)
    good = await replica("v3")
    handle = good.client.handle("w")
    assert await handle.reset("before-version:v2", move_to="v3", reason="v2 is bad") == "queued"
    assert await handle.result(timeout=15) == ["v1", "v3"], "the message that v2 received came again"
    records = await history(good, "w")
    assert "v2" not in {record.version for record in records if record.kind is not Kind.DECISION}
    assert await handle.reset("before-version:v2", move_to="v3", reason="v2 is bad") == "completed"
    assert (await row(good, "w")).run == 2
    await everybody_follows(old, good)


async def test_what_the_bad_version_wrote_nothing_of_is_moved_without_a_cut(replica: Replica) -> None:
    old, new = await replica("v1"), await replica("v2")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    handle = new.client.handle("w")
    assert await handle.reset("before-version:v7", move_to="v2") == "waiting"
    assert (await row(new, "w")).run == 1
    assert await let_go(new) == ["v1", "v2"]


async def test_a_patch_is_taken_in_the_burst_after_the_cut(database: str, ledger: Ledger) -> None:
    """The bad code was handed the message; the mended code lives through what follows it anew."""

    def build(version: str) -> tuple[App, Any]:
        app = App("shop", database=database, version=version, rollout="manual")

        @app.step(name="pay")
        async def pay(how: str) -> str:
            ledger.note(how)
            return how

        @app.workflow(name="body")
        async def body() -> list[str]:
            word = await recv(go)
            if version == "v1":
                return [word, await pay("wrong"), await recv(go)]
            return [word, await pay("right" if patched("fix") else "wrong"), await recv(go)]

        return app, body

    bad, body = build("v1")
    async with bad:
        handle = await body.options(id="a").start()
        await handle.send("one", go)
        await until(lambda: ledger == ["wrong"])
        await at_rest(bad, "a")
        good, body = build("v2")
        async with good:
            await good.client.handle("a").reset("last", move_to="v2")
            await until(lambda: ledger == ["wrong", "right"])
            await good.client.handle("a").send("two", go)
            assert await body.handle("a").result(timeout=15) == ["one", "right", "two"]
            assert await good.client.handle("a").status() == "completed"


async def test_a_timed_out_workflow_has_its_whole_time_again(app: App) -> None:
    @app.workflow(timeout=0.3)
    async def body() -> str:
        return await recv(go)

    async with app:
        handle = await body.options(id="a").start()
        with pytest.raises(WorkflowTimedOut):
            await handle.result(timeout=15)
        await handle.reset("first")
        await handle.send("in time", go)
        assert await handle.result(timeout=15) == "in time"


async def test_streams_hold_what_the_kept_part_wrote(app: App) -> None:
    @app.workflow
    async def body() -> str:
        await write_stream(lines, f"begun in run {current().run}")
        word = await recv(go)
        await write_stream(lines, f"{word} in run {current().run}")
        return word

    async with app:
        handle = await body.options(id="a").start()
        await handle.send("on", go)
        await handle.result(timeout=15)
        await handle.reset("last")
        await handle.result(timeout=15)
        assert [line async for line in handle.read_stream(lines)] == ["begun in run 1", "on in run 2"]


# -- children and parents


def household(app: App, ledger: Ledger) -> tuple[Any, Any]:
    """A parent that starts a child, waits for it, and for a word; what the child answers is worse the first time."""

    @app.step(name="act")
    async def act(who: str) -> str:
        ledger.note(who)
        return f"{who} {sum(line == who for line in ledger)}"

    @app.workflow(name="child")
    async def child() -> str:
        return await act("child")

    @app.workflow(name="parent")
    async def parent() -> list[str]:
        first = await act("parent")
        return [first, await child(), await recv(go)]

    return parent, child


async def test_a_child_of_the_dropped_part_is_found_again_with_its_result(app: App, ledger: Ledger) -> None:
    parent, _ = household(app, ledger)
    async with app:
        handle = await parent.options(id="p").start()
        await handle.send("on", go)
        assert await handle.result(timeout=15) == ["parent 1", "child 1", "on"]
        await handle.reset("first")
        assert await handle.result(timeout=15) == ["parent 2", "child 1", "on"]
        assert (await row(app, "p:2")).run == 1


async def test_one_that_was_deleted_since_is_begun_anew_under_the_same_keys(app: App) -> None:
    keys: list[str] = []

    @app.step(name="act")
    async def act() -> None:
        keys.append(current().idempotency_key)

    @app.workflow(name="child")
    async def child() -> None:
        await act()

    @app.workflow(name="parent")
    async def parent() -> None:
        await child()

    async with app:
        handle = await parent.options(id="p").start()
        await handle.result(timeout=15)
        await app.client.handle("p:1").delete()
        await handle.reset("first")
        await handle.result(timeout=15)
    assert keys == [keys[0]] * 2


async def test_or_it_is_reset_with_its_parent(app: App, ledger: Ledger) -> None:
    parent, _ = household(app, ledger)
    async with app:
        handle = await parent.options(id="p").start()
        await handle.send("on", go)
        await handle.result(timeout=15)
        await handle.reset("2", children="reset")
        assert await handle.result(timeout=15) == ["parent 1", "child 2", "on"]
        assert [(await row(app, id)).run for id in ("p", "p:2")] == [2, 2]
        before = [await history(app, id) for id in ("p", "p:2")]
        await handle.reset("2", children="reset")
        assert [await history(app, id) for id in ("p", "p:2")] == before, "once, the child too"


async def test_a_running_child_of_the_kept_part_stays_with_the_next_run(app: App, ledger: Ledger) -> None:
    @app.workflow(name="child")
    async def child() -> str:
        return await recv(go)

    @app.step(name="act")
    async def act() -> None:
        ledger.note("act")

    @app.workflow(name="parent")
    async def parent() -> str:
        started = await child.options(id="kid").start()
        await act()
        return await started.result()

    async with app:
        handle = await parent.options(id="p").start()
        await until(lambda: ledger == ["act"])
        await at_rest(app, "p")
        await handle.reset("act")
        await until(lambda: ledger == ["act", "act"])
        await app.client.handle("kid").send("done", go)
        assert await handle.result(timeout=15) == "done"
        assert (await row(app, "kid")).run == 1


async def test_a_child_that_closes_after_its_parent_is_seen_by_the_reset_one(app: App, ledger: Ledger) -> None:
    """What a parent must not hang on."""

    @app.workflow(name="child")
    async def child() -> str:
        return await recv(go)

    @app.step(name="act")
    async def act() -> str:
        ledger.note("act")
        if len(ledger) == 1:
            raise ValueError("bad")
        return "act"

    @app.workflow(name="parent")
    async def parent() -> list[str]:
        started = await child.options(id="kid", on_parent_close="abandon").start()
        return [await act(), await started.result()]

    async with app:
        handle = await parent.options(id="p").start()
        with pytest.raises(ValueError, match="bad"):
            await handle.result(timeout=15)
        kid = app.client.handle("kid")
        await kid.send("done", go)
        assert await kid.result(timeout=15) == "done"
        await handle.reset("act")
        assert await handle.result(timeout=15) == ["act", "done"]


async def test_a_child_cancelled_by_its_parents_end_goes_on_with_it(app: App, ledger: Ledger) -> None:
    @app.workflow(name="child")
    async def child() -> str:
        return await recv(go)

    @app.step(name="act")
    async def act() -> None:
        ledger.note("act")
        if len(ledger) == 1:
            raise ValueError("bad")

    @app.workflow(name="parent")
    async def parent() -> str:
        started = await child.options(id="kid").start()
        await act()
        return await started.result()

    async with app:
        handle = await parent.options(id="p").start()
        with pytest.raises(ValueError, match="bad"):
            await handle.result(timeout=15)
        await is_(app, "kid", "cancelled")
        await handle.reset("act", children="reset")
        await app.client.handle("kid").send("done", go)
        assert await handle.result(timeout=15) == "done"


async def test_a_parent_that_waits_for_a_child_waits_for_its_next_run(app: App, ledger: Ledger) -> None:
    """And what it had recorded of an earlier end stays."""

    @app.workflow(name="child")
    async def child() -> str:
        await recv(go)
        ledger.note("child")
        return f"run {current().run}"

    @app.workflow(name="parent")
    async def parent() -> list[str]:
        kid = await child.options(id="kid").start()
        await recv("look")
        return [await kid.result()]

    async with app:
        handle = await parent.options(id="p").start()
        await at_rest(app, "p")
        kid = app.client.handle("kid")
        await kid.send("on", go)
        assert await kid.result(timeout=15) == "run 1"
        await kid.reset("first", exclude="messages")
        await handle.send(True, "look")
        await at_rest(app, "p")
        await kid.send("again", go)
        assert await handle.result(timeout=15) == ["run 2"]
        await kid.reset("first")
        assert await kid.result(timeout=15) == "run 3"
        assert await handle.result(timeout=15) == ["run 2"]


# -- runs


async def test_after_continue_as_new_the_latest_run_is_reset_and_those_before_are_untouched(
    app: App, ledger: Ledger
) -> None:
    @app.workflow(name="rounds")
    async def rounds(left: int) -> str:
        ledger.note(f"{left} {current().run}")
        if left:
            rounds.continue_as_new(left - 1)
        return f"run {current().run}"

    async with app:
        handle = await rounds.options(id="r").start(2)
        assert await handle.result(timeout=15) == "run 3"
        before = [await run_of(app, "r", n) for n in (1, 2)]
        await handle.reset("first")
        assert await handle.result(timeout=15) == "run 4"
        assert [await run_of(app, "r", n) for n in (1, 2)] == before
    assert ledger == ["2 1", "1 2", "0 3", "0 4"]


async def test_the_same_order_about_a_run_that_has_continued_since_is_done_already(app: App) -> None:
    @app.workflow(name="rounds")
    async def rounds(left: int) -> str:
        await recv(go)
        if left:
            rounds.continue_as_new(left - 1)
        return f"run {current().run}"

    async with app:
        handle = await rounds.options(id="r").start(1)
        await handle.send("on", go)

        async def second() -> bool:
            return (await row(app, "r")).run == 2

        await until(second)
        await handle.reset("first", key="fix")
        assert (await row(app, "r")).run == 3
        await handle.send("on", go)
        assert await handle.result(timeout=15) == "run 3"


async def test_what_has_not_begun_is_moved_rather_than_reset(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app.connect():
        handle = await workflow.options(id="a").start("ann")
        assert await handle.reset("first", move_to="v9", force=True) == "queued"
        now = await row(app, "a")
        assert (now.run, now.version) == (1, "v9")
        assert await handle.reset("first") == "queued"
        assert (await row(app, "a")).run == 1


async def test_a_paused_workflow_is_reset_and_stays_paused(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app:
        handle = await workflow.options(id="a").start("ann")
        await until(lambda: len(ledger) == 2)
        await at_rest(app, "a")
        await handle.pause(reason="a look")
        await handle.reset("3")

        async def paused() -> bool:
            now = await row(app, "a")
            return (now.run, now.reason) == (2, Reason.PAUSED)

        await until(paused)
        assert names(ledger) == ["flight", "hotel"]
        await handle.unpause()
        await handle.send("on", go)
        assert (await handle.result(timeout=15))[3] == "on"
    assert names(ledger) == ["flight", "hotel", "hotel", "taxi"]


async def test_what_is_not_possible_is_refused(app: App, ledger: Ledger) -> None:
    async with app:
        handle = await done(app, ledger)
        with pytest.raises(WorkflowRefused, match=r"'a': run 1 of workflow 'a' has no step 'ship'; it has: book"):
            await handle.reset("ship")
        with pytest.raises(WorkflowNotFound):
            await app.client.handle("nobody").reset("first")


async def test_timers_of_the_dropped_part_are_waited_for_again(app: App, ledger: Ledger) -> None:
    @app.workflow
    async def body() -> str:
        await sleep(0.05)
        ledger.note("slept")
        return "done"

    async with app:
        handle = await body.options(id="a").start()
        await handle.result(timeout=15)
        await handle.reset("first")
        await handle.result(timeout=15)
        kinds = [r.kind for r in (await store_of(app).histories([RunKey("a", 2)]))[RunKey("a", 2)]]
        assert kinds == [Kind.CUT, Kind.TIMER]
    assert ledger == ["slept", "slept"]


async def test_reset_without_a_move_it_is_of_the_version_that_it_had(replica: Replica) -> None:
    """That nobody runs any more: it waits for it, and may be moved."""
    old = await replica("v1", "pinned")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    await let_go(old)
    await old.close()
    new = await replica("v2", "pinned")
    handle = new.client.handle("w")
    assert await handle.reset("first") == "queued"
    assert (await row(new, "w")).version == "v1"
    await handle.move("v2")
    assert await handle.result(timeout=15) == ["v2", "v2"]


async def test_a_lost_claim_of_the_next_run_is_found_while_the_old_one_is_in_memory(
    app: App, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_GRACE", "600")  # the old one does not leave by itself
    monkeypatch.setattr(runtime_executor, "LOST_EVERY", 2)  # looks
    workflow = trip(app, ledger)
    async with app:
        handle = await workflow.options(id="a").start("ann")
        await until(lambda: len(ledger) == 2)
        await at_rest(app, "a")
        store, me = store_of(app), executor(app).me.id
        async with executor(app).taking:  # it claims nothing meanwhile
            await handle.reset("3")
            request = ClaimRequest(owner=me, token=b"t" * 16, version=(await row(app, "a")).version, limit=1)
            [lost] = await store.claim(request)  # whose answer never came
            assert lost.row.key == RunKey("a", 2)
            assert in_memory(app, "a")
        await until(lambda: len(ledger) == 3)  # before anything wakes the old one
        await handle.send("on", go)
        assert (await handle.result(timeout=15))[3] == "on"
    assert names(ledger) == ["flight", "hotel", "hotel", "taxi"]
