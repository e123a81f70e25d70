"""What a process has begun is treated by its ``on_parent_close``, whichever burst began it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import App, recv
from perdure.api.process import Process
from perdure.errors import Busy, Interrupted, WorkflowNotFound
from perdure.recovery import Decision, Delete, Incident, Resume
from perdure.schemes.grammar import State
from perdure.testing import Harness, harness
from perdure.testing.crash import Mode

POLICIES = ("cancel", "abandon", "wait")


class Family:
    """A process that begins one child of each policy in its first state, and ends three bursts later."""

    def __init__(self, app: App, policies: tuple[str, ...] = POLICIES) -> None:
        self.app = app
        self.gate = asyncio.Event()
        self.inside = asyncio.Event()
        self.fails: list[BaseException] = []
        family = self

        @app.step(name="hold")
        async def hold() -> None:
            family.inside.set()
            if family.fails:
                raise family.fails.pop()
            await family.gate.wait()

        @app.workflow(name="child")
        async def child() -> str:
            return str(await recv("end"))

        @app.workflow(name="middle")
        async def middle() -> None:
            await child.options(id="grandchild").start()
            await recv("end")

        @app.process(name="Parent")
        class Parent(Process):
            a = State(initial=True)
            b = State()
            c = State()
            end = State(final=True)
            on = a.to(b)
            more = b.to(c) | c.to(c)
            ends = c.to(end) | b.to(end)

            async def on_enter_a(self) -> None:
                for policy in policies:
                    await child.options(id=policy, on_parent_close=policy).start()  # type: ignore[typeddict-item]

            async def on_enter_c(self) -> None:
                await middle.options(id="middle").start()
                await hold()

        self.Parent, self.child = Parent, child
        self.gate.set()

    async def in_b(self, h: Harness) -> Any:
        p: Any = await self.Parent.options(id="p").start()
        await h.settle()
        await p.execute("on")
        return p

    def shut(self) -> None:
        self.gate.clear()
        self.inside.clear()

    async def killed_in_c(self, h: Harness, p: Any, meanwhile: Any = None) -> None:
        """Crash in the action that has begun one more."""
        self.shut()
        call = asyncio.ensure_future(p.execute("more"))
        await asyncio.wait_for(self.inside.wait(), 10)
        if meanwhile is not None:
            meanwhile()
        await h.crash()
        self.gate.set()
        await h.settle()
        with pytest.raises((Interrupted, WorkflowNotFound)):
            await call


async def stands(h: Harness) -> dict[str, str]:
    await h.settle()
    rows = await h.store.rows([*POLICIES, "p", "middle", "grandchild"])
    return {id: "open" if row.status.open else str(row.status) for id, row in sorted(rows.items())}


async def test_a_burst_comes_to_rest_though_the_end_will_have_to_wait(app: App, database: str) -> None:
    family = Family(app)
    async with harness(app, database=database) as h:
        p = await family.in_b(h)
        assert (await p.status(), await p.state()) == ("Idled", "b")
        family.fails = [ValueError("no")]
        with pytest.raises(ValueError, match="no"):
            await p.execute("more")
        assert await p.status() == "Error"


@pytest.mark.parametrize("crash", [False, True])
async def test_the_end_treats_those_of_earlier_bursts(app: App, database: str, crash: bool) -> None:
    family = Family(app)
    async with harness(app, database=database) as h:
        p = await family.in_b(h)
        if crash:
            await family.killed_in_c(h, p)  # which had begun one more
            assert (await p.status(), await p.state()) == ("Error", "b")
        else:
            await p.execute("more")
        ending = asyncio.ensure_future(p.execute("ends"))
        assert await stands(h) == {
            "abandon": "open", "cancel": "open", "grandchild": "open", "middle": "open", "p": "open",
            "wait": "open",
        }  # fmt: skip
        assert not ending.done()  # the end waits
        if crash:
            await h.crash()
        await family.app.client.handle("wait").send("now", "end")
        await h.settle()
        [told] = await asyncio.gather(ending, return_exceptions=True)
        if crash:
            assert told is None or isinstance(told, Interrupted)
            if await p.status() != "Finalized":
                await p.execute("ends")
        assert await p.status() == "Finalized"
        assert await stands(h) == {
            "abandon": "open", "cancel": "cancelled", "grandchild": "cancelled", "middle": "cancelled",
            "p": "completed", "wait": "completed",
        }  # fmt: skip


async def test_who_is_cancelled_at_rest_takes_those_of_all_bursts_along(app: App, database: str) -> None:
    family = Family(app, ("cancel", "abandon"))
    async with harness(app, database=database) as h:
        p = await family.in_b(h)
        await p.execute("more")
        await h.crash()
        await family.app.client.handle("p").cancel(reason="no use")
        assert await stands(h) == {
            "abandon": "open", "cancel": "cancelled", "grandchild": "cancelled", "middle": "cancelled",
            "p": "cancelled",
        }  # fmt: skip


async def test_what_a_failed_action_had_begun_is_treated_too(app: App, database: str) -> None:
    family = Family(app, ())
    async with harness(app, database=database) as h:
        p = await family.in_b(h)
        family.fails = [ValueError("no")]
        with pytest.raises(ValueError, match="no"):
            await p.execute("more")
        await p.execute("ends")
        assert await stands(h) == {"grandchild": "cancelled", "middle": "cancelled", "p": "completed"}


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.name.lower())
async def test_a_policy_deletes_it_with_its_family_in_one_commit(app: App, database: str, mode: Mode) -> None:
    """Struck at each write of the decision: all of it is there, or nothing."""
    family = Family(app, ("cancel", "abandon"))

    @app.recovery_policy(family.Parent)
    async def gone(incident: Incident) -> Decision:
        return Delete(because="no use")

    async with harness(app, database=database) as h:
        for after in range(4):
            await h.renew()
            p = await family.in_b(h)

            def strike(after: int = after) -> None:
                if after:
                    h.plan.orders[len(h.plan.points) + after] = mode

            await family.killed_in_c(h, p, strike)
            h.plan.orders.clear()
            assert await stands(h) == {"abandon": "open"}, f"{mode} at {after}"


async def test_a_policy_deletes_nothing_whose_end_has_to_wait(app: App, database: str) -> None:
    family = Family(app)

    @app.recovery_policy(family.Parent)
    async def gone(incident: Incident) -> Decision:
        return Delete()

    async with harness(app, database=database) as h:
        p = await family.in_b(h)
        await family.killed_in_c(h, p)
        assert (await p.status(), await p.state()) == ("Error", "b")
        assert (await stands(h))["wait"] == "open"
        [row] = [row for row in await h.store.decisions(["p"]) if row.policy]
        assert "its end has to wait for wait" in row.because


async def test_deleted_by_hand_and_cut_off_in_the_middle_it_may_be_done_again(
    app: App, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family(app)
    async with harness(app, database=database) as h:
        p = await family.in_b(h)
        await p.execute("more")
        with pytest.raises(Busy, match="'wait' is running, and the end of 'p' has to wait for it"):
            await p.delete()
        assert set((await stands(h)).values()) == {"open"}
        await family.app.client.handle("wait").send("now", "end")
        await h.settle()
        forget, left = type(p)._forget, [3]

        async def cut(self: Any, id: str) -> None:
            left[0] -= 1
            if not left[0]:
                raise ConnectionError("cut off")
            await forget(self, id)

        monkeypatch.setattr(type(p), "_forget", cut)
        with pytest.raises(ConnectionError):
            await p.delete()
        await h.crash()
        assert (await stands(h))["p"] == "terminated"
        monkeypatch.undo()
        await p.delete()
        assert await stands(h) == {"abandon": "open"}


async def test_the_list_does_not_grow_with_those_that_have_ended(
    app: App, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.runtime.process_children.MANY", 4)

    @app.workflow(name="quick")
    async def quick() -> None: ...

    @app.workflow(name="slow")
    async def slow() -> None:
        await recv()

    @app.process(name="Parent")
    class Parent(Process):
        times: int = 0
        a = State(initial=True)
        end = State(final=True)
        again = a.to(a)
        ends = a.to(end)

        async def on_enter_a(self) -> None:
            self.times += 1
            await (slow if self.times == 1 else quick).options(id=f"c{self.times}").start()

    @app.recovery_policy(Parent)
    async def goes_on(incident: Incident) -> Decision:
        return Resume()

    async with harness(app, database=database) as h:
        p: Any = await Parent.options(id="p").start()
        await h.settle()
        longest = 0
        for n in range(14):
            await p.execute("again")
            longest = max(longest, len((await p._at_rest()).at.children))
            if n == 6:
                await h.crash()
        assert longest <= 5
        assert "c1" in (await p._at_rest()).at.children
        await p.execute("ends")
        await h.settle()
        assert str((await h.store.rows(["c1"]))["c1"].status) == "cancelled"
