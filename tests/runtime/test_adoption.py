"""A deploy strands nothing in silence: what replays on the new code goes on there, the rest is told with its reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from perdure import App, patched, recv, sleep
from perdure.errors import ConfigError
from perdure.model.info import to_datetime
from perdure.model.records import without_cleanup
from perdure.model.states import Cause, Status, Versioning
from perdure.model.trials import Trial
from perdure.model.writes import Park, Unit
from perdure.runtime import adoption
from perdure.runtime.pasts import Past
from perdure.store.rollcall import RollCall
from perdure.testing.crash import CrashStore, Mode, Plan
from tests.runtime.deploys import Body, Fleet, Round, begun, build, comment, finish, first, is_of, version_of
from tests.runtime.support import Ledger, crash, executor, history, row, until


async def added_after(s: dict[str, Any]) -> list[str]:
    done = [await s["reserve"]("sku", 1), await s["charge"](5), await recv("go")]
    await s["charge"]("again")
    return [*done, await s["ship"]()]


async def added_before(s: dict[str, Any]) -> list[str]:
    await s["charge"]("first")
    return [await s["reserve"]("sku", 1), await s["charge"](5), await recv("go"), await s["ship"]()]


async def argument(s: dict[str, Any]) -> list[str]:
    return [await s["reserve"]("sku", 1), await s["charge"](6), await recv("go"), await s["ship"]()]


async def removed(s: dict[str, Any]) -> list[str]:
    return [await s["reserve"]("sku", 1), await recv("go"), await s["ship"]()]


def price() -> int:
    return 6


async def helper(s: dict[str, Any]) -> list[str]:
    return [await s["reserve"]("sku", 1), await s["charge"](price()), await recv("go"), await s["ship"]()]


def same() -> int:
    return 2 + 3


async def harmless_helper(s: dict[str, Any]) -> list[str]:
    return [await s["reserve"]("sku", 1), await s["charge"](same()), await recv("go"), await s["ship"]()]


async def patched_before(s: dict[str, Any]) -> list[str]:
    if patched("charge first"):
        await s["charge"]("first")
    return await first(s)


EDITS: dict[str, tuple[Body, str, str, str]] = {  # body, name, reason ("" for adopted), words
    "comment": (comment, "order", "", ""),
    "added after the cut": (added_after, "order", "", ""),
    "added before the cut": (
        added_before, "order", "nondeterminism",
        "at 1: history has step reserve('sku', 1); the code has step charge('first') (",
    ),
    "changed argument": (
        argument, "order", "nondeterminism", "at 2: history has step charge(5); the code has step charge(6) (",
    ),
    "removed step": (removed, "order", "nondeterminism", "at 2: history has step charge(5); the code has recv go ("),
    "renamed workflow": (first, "orders", "no_code", "the code has no workflow 'order' (it has: orders)"),
    "changed helper": (helper, "order", "nondeterminism", "history has step charge(5); the code has step charge(6) ("),
    "helper that gives the same": (harmless_helper, "order", "", ""),
    "patched": (patched_before, "order", "", ""),
}  # fmt: skip


async def trial_of(app: App, id: str = "a") -> Trial | None:
    found: dict[str, Trial] = await app._home.engine().line.store.trials([id])
    return found.get(id)


@pytest.mark.parametrize("killed", [False, True], ids=["drained", "killed"])
@pytest.mark.parametrize("edit", EDITS)
async def test_an_edit_is_adopted_or_stranded_with_its_message(
    database: str, ledger: Ledger, said: pytest.LogCaptureFixture, edit: str, killed: bool
) -> None:
    body, name, reason, words = EDITS[edit]
    app = build(database, ledger, first, "v1")
    await app.open()
    await begun(app, "a")
    await (crash(app) if killed else app.close())
    before = list(ledger)
    changed = build(database, ledger, body, "v2", name)
    async with changed:
        if not reason:
            await until(lambda: is_of(changed, "v2"))
            assert await finish(changed) == ["reserve", "charge", "went", "ship"]
            assert await trial_of(changed) is None
            assert "adopted 1 unfinished workflow of version v1, which replayed on version v2" in said.text
            assert ledger[2:] == (["charge('again',)"] if edit.startswith("added") else []) + ["ship()"]
            return
        trial = await until(lambda: trial_of(changed))
        assert (trial.reason, trial.version, trial.run, trial.last_seq) == (reason, "v2", 1, 2)
        assert words in trial.detail
        stranded = await row(changed, "a")
        assert (stranded.version, stranded.status, stranded.owner) == ("v1", "queued", None)
        await until(lambda: "would break on version" in said.text)
        assert "1 unfinished workflow of versions that nobody runs would break on version v2 and stay" in said.text
        assert f"({reason.replace('no_code', '1 no_code').replace('nondet', '1 nondet')}); for example a: " in said.text
        began = to_datetime(stranded.created).isoformat(timespec="seconds")
        assert f". The oldest is of {began}. See: perdure workflow list --stranded" in said.text
        if killed:
            assert (stranded.attempts, stranded.cause) == (1, Cause.CRASH)
    assert ledger == before, "no effect"
    again = build(database, ledger, first, "v1")  # the edit is undone
    async with again:
        assert await finish(again) == ["reserve", "charge", "went", "ship"]
    assert ledger == [*before, "ship()"]


@dataclass
class Before:
    id: str


@dataclass
class Gained(Before):
    currency: str = "EUR"


@dataclass
class NotCompared(Before):
    currency: str = field(default="EUR", compare=False)


def passing(model: Callable[[], Any]) -> Body:
    async def body(s: dict[str, Any]) -> list[str]:
        return [await s["reserve"](model()), await s["charge"](5), await recv("go"), await s["ship"]()]

    return body


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        (lambda: Gained("42"), False),
        (lambda: (patched("currency"), Gained("42"))[1], False),
        (lambda: Gained("42") if patched("currency") else Before("42"), True),
        (lambda: NotCompared("42"), True),
    ],
    ids=["default", "patched around", "patched, the old shape", "not compared"],
)
async def test_a_field_that_a_passed_model_gains_is_compared(
    database: str, ledger: Ledger, model: Callable[[], Any], *, fits: bool
) -> None:
    async with build(database, ledger, passing(lambda: Before("42")), "v1") as app:
        await begun(app, "a")
    changed = build(database, ledger, passing(model), "v2")
    async with changed:
        if fits:
            assert await finish(changed) == ["reserve", "charge", "went", "ship"]
        else:
            trial = await until(lambda: trial_of(changed))
            assert (
                "history has step reserve(Before(id='42')); the code has step reserve(Gained(id='42', cur"
                in trial.detail
            )


async def test_an_undone_edit_as_a_third_deploy(database: str, ledger: Ledger) -> None:
    """v1, then v2 that does not fit, then v1's code under another name: adopted from there."""
    async with build(database, ledger, first, "v1") as app:
        await begun(app, "a", "b")
    async with build(database, ledger, argument, "v2") as app:
        await until(lambda: trial_of(app, "b"))
        await until(lambda: trial_of(app, "a"))
    async with build(database, ledger, first, "v3") as app:
        assert await finish(app, "a") == await finish(app, "b") == ["reserve", "charge", "went", "ship"]
        assert await trial_of(app) is None


async def test_it_is_not_tried_again_until_its_history_or_the_code_changes(
    database: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    async with build(database, ledger, first, "v1") as app:
        await begun(app, "a")
    async with build(database, ledger, argument, "v2") as app:
        tried_at = (await until(lambda: trial_of(app))).at
    tried: list[str] = []
    check_all = adoption.Replayer.check_all

    async def counted(self: Any, pasts: Sequence[Past]) -> Any:
        tried.extend(past.row.id for past in pasts)
        return await check_all(self, pasts)

    monkeypatch.setattr(adoption.Replayer, "check_all", counted)
    said.clear()
    async with build(database, ledger, argument, "v2") as app:
        await until(lambda: "stranded (1 nondeterminism); for example a: at 2" in said.text)  # told at each launch
        await executor(app).adopter.round()
        await executor(app).adopter.round()
        assert tried == []
        trial = await trial_of(app)
        assert trial is not None
        assert trial.at == tried_at
    async with build(database, ledger, argument, "v3") as app:
        await until(lambda: _tried_for(app, "v3"))
        assert tried == ["a"]


async def _tried_for(app: App, version: str) -> bool:
    trial = await trial_of(app)
    return trial is not None and trial.version == version


@pytest.mark.parametrize("killed", [False, True], ids=["drained", "killed"])
async def test_a_patch_behind_the_recorded_part_is_for_new_runs_alone(
    database: str, ledger: Ledger, killed: bool
) -> None:
    """The old run waits behind the change without a record of that: whose code was handed the last outcome tells."""

    async def late(s: dict[str, Any]) -> list[str]:
        done = [await s["reserve"]("sku", 1), await s["charge"](5)]
        if patched("late"):
            done.append(await s["charge"]("late"))
        return [*done, await recv("go"), await s["ship"]()]

    app = build(database, ledger, first, "v1")
    await app.open()
    await begun(app, "old")
    await (crash(app) if killed else app.close())
    app = build(database, ledger, late, "v2")
    await app.open()
    await until(lambda: is_of(app, "v2", "old"))
    await begun(app, "new")
    await until(lambda: _has_patch(app, "new"))
    await (crash(app) if killed else app.close())
    async with build(database, ledger, late, "v2") as app:
        assert await finish(app, "old") == ["reserve", "charge", "went", "ship"]
        assert await finish(app, "new") == ["reserve", "charge", "charge", "went", "ship"]
        assert not await _has_patch(app, "old")
    assert ledger.counts["charge('late',)"] == 1


async def _has_patch(app: App, id: str) -> bool:
    return any(r.name == "late" for r in await history(app, id)) and len(await history(app, id)) >= 4


# -- who, and when


async def test_nothing_is_adopted_while_an_executor_of_its_version_lives(database: str, ledger: Ledger) -> None:
    async with build(database, ledger, first, "v1") as old:
        await begun(old, "a")
        async with build(database, ledger, first, "v2") as new:
            execution = executor(old).executions["a"]
            execution.park(Park(None, "waits"))
            await until(lambda: _status(old, "waiting"))
            await executor(new).adopter.round()
            assert await version_of(new) == "v1"
            assert await finish(new) == ["reserve", "charge", "went", "ship"]
            assert await version_of(new) == "v1"


async def _status(app: App, status: str, id: str = "a") -> bool:
    return (await row(app, id)).status == status


async def test_beside_another_executor_a_version_is_left_alone_for_a_lease(
    database: str, ledger: Ledger, a_round: Round
) -> None:
    async with build(database, ledger, first, "v1") as app:
        await begun(app, "a")
    async with build(database, ledger, comment, "v2", lease=600) as app:
        await Fleet(app).put("another", "v9")
        me = executor(app)
        adopter = adoption.Adopter(me)
        await a_round(adopter)
        assert await version_of(app) == "v1"
        adopter._unserved_since["v1"] -= 300_000_000
        await a_round(adopter)
        assert await version_of(app) == "v1"
        adopter._unserved_since["v1"] -= 300_000_000  # the lease is ten minutes
        await a_round(adopter)
        assert await version_of(app) == "v2"


async def test_a_lease_that_ran_out_counts_for_another_one(database: str, ledger: Ledger, a_round: Round) -> None:
    """After an outage every lease has run out, and most of their holders come back."""
    async with build(database, ledger, first, "v1") as app:
        await begun(app, "a")
    async with build(database, ledger, comment, "v2", recovery="own") as app:  # whose reaper leaves others alone
        me = executor(app)
        adopter = adoption.Adopter(me)
        now = me.line.clock.now()
        other = await Fleet(app).put("another", "v1", lease=60_000_000, now=now - 90_000_000)
        await a_round(adopter)
        assert await version_of(app) == "v1"
        await me.line.store.bury([other], expired_only=False)
        await a_round(adopter)
        assert await version_of(app) == "v2"


async def test_one_executor_of_the_version_tries_the_first_that_lives(
    database: str, ledger: Ledger, a_round: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with build(database, ledger, first, "v1") as app:
        await begun(app, "a")
    async with build(database, ledger, comment, "v2") as app:
        fleet = Fleet(app)
        me = executor(app)
        adopter = adoption.Adopter(me)
        adopter._unserved_since["v1"] = 0
        later = await fleet.put("later", "v2")
        elder = {who.id: who for who in await me.line.store.incarnations()}[later]
        real = me.line.store.roll_call

        async def turned(**given: Any) -> RollCall:  # the other one was there before us
            roll = await real(**given)
            known = [replace(who, started=1) if who.id == elder.id else who for who in roll.known]
            return replace(roll, known=known)

        monkeypatch.setattr(me.line.store, "roll_call", turned)
        await a_round(adopter)
        assert await version_of(app) == "v1", "the other one's part"
        await me.line.store.bury([later], expired_only=False)
        await a_round(adopter)
        assert await version_of(app) == "v2"


async def test_adoption_follows_the_routing(
    database: str, ledger: Ledger, a_round: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with build(database, ledger, first, "v1") as app:
        await begun(app, "a", "b", "c")
    monkeypatch.setattr(adoption, "BATCH", 1)
    async with build(database, ledger, comment, "v2") as app:
        me = executor(app)

        async def target() -> adoption.Target:
            return {"a": "v3", "b": "v2", "c": "v3"}.__getitem__

        monkeypatch.setattr(me, "target", target)
        await a_round(adoption.Adopter(me))
        assert [await version_of(app, id) for id in "abc"] == ["v1", "v2", "v1"]


async def test_never_means_never(
    database: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    async with build(database, ledger, first, "v1") as app:
        await begun(app, "a")
    monkeypatch.setenv("PERDURE_ADOPT", "never")
    async with build(database, ledger, first, "v2") as app:
        await executor(app).adopter.round()
        assert await version_of(app) == "v1"
        assert await trial_of(app) is None
        assert "adopted" not in said.text
    monkeypatch.setenv("PERDURE_ADOPT", "perhaps")
    with pytest.raises(ConfigError, match=r"adopt='perhaps' \(from PERDURE_ADOPT\) is none of replay_safe, never"):
        await build(database, ledger, first, "v2").open()


async def test_in_manual_mode_nothing_is_touched(database: str, ledger: Ledger) -> None:
    app = build(database, ledger, first, "v1")
    await app.open()
    await begun(app, "a")
    await crash(app)
    async with build(database, ledger, first, "v2", recovery="manual") as app:
        await executor(app).adopter.round()
        found = await row(app, "a")
        assert (found.version, found.status) == ("v1", "running")


async def test_pinned_work_stays(database: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    async with build(database, ledger, first, "v1") as app:
        store = app._home.engine().line.store
        commit = store.commit

        async def pinned(batch: list[Unit], **more: Any) -> Any:
            for unit in batch:
                if unit.start is not None:
                    fields = {f: getattr(unit.start, f) for f in unit.start.__struct_fields__}
                    unit.start = type(unit.start)(**{**fields, "versioning": Versioning.PINNED})
            return await commit(batch, **more)

        monkeypatch.setattr(store, "commit", pinned)
        await begun(app, "a")
    async with build(database, ledger, first, "v2") as app:
        await executor(app).adopter.round()
        assert (await row(app, "a")).versioning is Versioning.PINNED
        assert await version_of(app) == "v1"


async def test_held_for_the_codes_sake_is_tried_and_queued(database: str, ledger: Ledger) -> None:
    async with build(database, ledger, first, "v1") as app:
        await begun(app, "a")
    async with build(database, ledger, argument, "v1") as app:  # other code under the same name, as may happen
        await until(lambda: _status(app, "held"))
    async with build(database, ledger, comment, "v2") as app:
        assert await finish(app) == ["reserve", "charge", "went", "ship"]
        assert await version_of(app) == "v2"


async def test_a_parked_sleeper_goes_on_with_what_the_new_code_does_there(database: str, ledger: Ledger) -> None:
    async def sleeps(s: dict[str, Any]) -> list[str]:
        await s["reserve"]("sku", 1)
        await s["charge"](5)
        await sleep(3600)
        return []

    async def wakes(s: dict[str, Any]) -> list[str]:
        await s["reserve"]("sku", 1)
        await s["charge"](5)
        return [await s["ship"]()]

    async with build(database, ledger, sleeps, "v1") as app:
        await begun(app, "a")
        executor(app).executions["a"].park(Park(app._home.engine().line.clock.now() + 3_600_000_000, "waits"))
        await until(lambda: _status(app, "waiting"))
    async with build(database, ledger, wakes, "v2") as app:
        assert await app.client.handle("a").result(timeout=20) == ["ship"]


@pytest.mark.parametrize(("body", "word"), [(comment, "adopted"), (argument, "stranded")])
async def test_many_are_tried_in_batches(
    database: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture,
    a_round: Round, body: Body, word: str,
) -> None:  # fmt: skip
    """Each read goes past all that was tried in vain before: not one for each batch, nor one in each round."""
    monkeypatch.setattr(adoption, "BATCH", 1)
    async with build(database, ledger, first, "v1") as app:
        await begun(app, *(f"a{n}" for n in range(9)))
    async with build(database, ledger, body, "v2") as app:
        adopter, store, asked = executor(app).adopter, executor(app).line.store, 0
        strays = store.strays

        async def counted(versions: Sequence[str], untried: str | None, limit: int) -> Any:
            nonlocal asked
            asked += untried is not None
            return await strays(versions, untried, limit)

        monkeypatch.setattr(store, "strays", counted)
        monkeypatch.setattr(adoption, "LONG_SECONDS", -1.0)
        monkeypatch.setattr(adoption, "RESTS", 1_000_000)
        await a_round(adopter)
        assert asked == 5  # 1, 2, 4 and the last two of them, and nothing
        assert word in said.text
        assert [await version_of(app, f"a{n}") for n in range(9)] == ["v2" if word == "adopted" else "v1"] * 9
        for _ in range(3):
            await a_round(adopter)
        assert asked == (5 if word == "adopted" else 6)


# -- cancelling what is stranded


@pytest.mark.parametrize("adopt", ["replay_safe", "never"])
async def test_a_cancel_of_stranded_work_is_answered(
    database: str, ledger: Ledger, adopt: str, said: pytest.LogCaptureFixture
) -> None:
    async with build(database, ledger, first, "v1") as app:
        await begun(app, "a")
        executor(app).executions["a"].park(Park(None, "waits"))
        await until(lambda: _status(app, "waiting"))
    async with build(database, ledger, argument, "v2", adopt=adopt) as app:
        await executor(app).adopter.round()
        task = asyncio.create_task(app.client.handle("a").cancel(reason="enough"))
        await until(lambda: app._home.engine().line.store.strays_told_to_cancel(["v1"]))
        await executor(app).adopter.round()
        assert await task is Status.CANCELLED
        found = await row(app, "a")
        assert (found.detail, found.cancel) == (without_cleanup("v1"), "enough")
        assert f"workflow a was {without_cleanup('v1')}" in said.text


async def test_a_cancel_of_what_can_be_adopted_runs_its_cleanup(database: str, ledger: Ledger) -> None:
    def body_of(version: str) -> Body:
        async def body(s: dict[str, Any]) -> list[str]:
            try:
                return await first(s)
            finally:
                await s["ship"](f"cleanup of {version}")

        return body

    async with build(database, ledger, body_of("v1"), "v1") as app:
        await begun(app, "a")
        executor(app).executions["a"].park(Park(None, "waits"))
        await until(lambda: _status(app, "waiting"))
    async with build(database, ledger, body_of("v2"), "v2") as app:
        assert await app.client.handle("a").cancel() is Status.CANCELLED
    assert ledger[-1] == "ship('cleanup of v2',)"


# -- crashes


@pytest.mark.parametrize("mode", [Mode.BEFORE, Mode.UNANSWERED, Mode.LOST, Mode.TROUBLE])
@pytest.mark.parametrize("call", ["adopt_strays", "note_trials", "release_orphans"])
async def test_a_crash_in_the_middle_of_adoption_loses_nothing(
    database: str, ledger: Ledger, call: str, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "BATCH", 2)
    app = build(database, ledger, first, "v1")
    await app.open()
    await begun(app, "a", "b", "c")
    await crash(app)
    body = argument if call == "note_trials" else comment
    app = build(database, ledger, body, "v2")
    plan = Plan({1: mode}, numbered={call})
    plan.counting = True
    struck = asyncio.Event()
    make_store = app._home.make_store

    def die() -> None:
        struck.set()
        app._home.engine().crash()

    def make(*args: Any) -> Any:
        made = CrashStore(make_store(*args), plan, die, mortal=False)
        made.on_trouble = struck.set
        return made

    app._home.make_store = make  # type: ignore[assignment]
    await app.open()
    await until(lambda: plan.struck)
    if mode in (Mode.BEFORE, Mode.UNANSWERED):
        await struck.wait()
        me = executor(app).me.id if app._home.is_open else b""
        store = app._home.engine().line.store
        await store.bury([me], expired_only=False)
        app._home.opened(None)
        await store.close()
    else:
        await executor(app).adopter.round()
        await app.close()
    if call == "note_trials":
        async with build(database, ledger, argument, "v2") as again:
            for id in "abc":
                await until(partial(trial_of, again, id))
    async with build(database, ledger, first, "v3") as last:
        for id in "abc":
            assert await finish(last, id) == ["reserve", "charge", "went", "ship"]
    assert ledger.counts == {"reserve('sku', 1)": 3, "charge(5,)": 3, "ship()": 3}
