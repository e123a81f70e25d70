"""The scheme of the acceptance cases: each action writes to a ledger outside the database, then waits at a gate.

Draft --submit--> Check --auto--> Review --approve--> Booking --auto--> Done
Review --reject--> Draft      Review --2 s--> Escalated --approve--> Booking
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

from perdure import App
from perdure.api.process import Process, ProcessHandle
from perdure.recovery import Decision, Incident
from perdure.schemes.declared import Temporary
from perdure.schemes.grammar import State
from perdure.testing import Harness


class World:
    """An app with the scheme, the ledger, and a gate for each state."""

    def __init__(self, app: App, *, undo: bool = False, late: bool = False, **more: Any) -> None:
        self.app = app
        self.ledger: list[str] = []
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(_opened)
        self.inside: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.fails: dict[str, list[BaseException]] = defaultdict(list)
        self.seen: list[dict[str, Any]] = []
        world = self

        @app.step(name="enter")
        async def enter(state: str) -> str:
            world.ledger.append(state)
            world.inside[state].set()
            if world.fails[state]:
                raise world.fails[state].pop(0)
            await world.gates[state].wait()
            return state

        @app.process(name="S", **more)
        class S(Process):
            note: str = ""
            was_failed: bool = False
            lets: bool = True
            for_now: Temporary[str] = "fresh"
            Draft = State(initial=True, settable=True)
            Check = State()
            Review = State(settable=True)
            Escalated = State()
            Booking = State()
            Done = State(final=True)
            submit = Draft.to(Check)
            checked = Check.to(Review, auto=True)
            approve = Review.to(Booking) | Escalated.to(Booking)
            reject = Review.to(Draft)
            stale = Review.to(Escalated, after=timedelta(seconds=2))
            booked = Booking.to(Done, auto=True, cond="lets")
            if undo:
                undone = Booking.to(Draft)
            if late:
                overdue = Booking.to(Escalated, after=timedelta(seconds=60))

            async def on_enter_state(self, target: str) -> None:
                world.seen.append({"state": target, "was_failed": self.was_failed, "for_now": self.for_now})
                self.note = f"{self.note}{target[0]}"
                self.for_now = target
                await enter(target)

        self.S = S

    def shut(self, state: str) -> None:
        """Actions of this state wait until it is opened."""
        self.gates[state] = asyncio.Event()
        self.inside[state].clear()

    def open(self, state: str) -> None:
        self.gates[state].set()

    async def in_action(self, state: str) -> None:
        """Return when an action of this state has written to the ledger."""
        await asyncio.wait_for(self.inside[state].wait(), 10)

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(self.ledger))

    async def start(self, h: Harness, id: str = "a", **values: Any) -> ProcessHandle[Any]:
        """A process that stands in Draft."""
        p: ProcessHandle[Any] = await self.S.options(id=id).start(**values)
        await h.settle()
        return p

    async def killed_in(self, h: Harness, state: str, order: Any, id: str = "a") -> BaseException | None:
        """Give an order, and crash while the action of ``state`` is under way; what the caller is told."""
        self.shut(state)
        call = asyncio.ensure_future(order)
        await self.in_action(state)
        await h.crash()
        self.open(state)
        await h.settle()
        [told] = await asyncio.gather(call, return_exceptions=True)
        return told if isinstance(told, BaseException) else None

    def policy(self, answer: Any, **more: Any) -> list[Incident]:
        """Declare a policy that answers so; what it is told."""
        told: list[Incident] = []

        @self.app.recovery_policy(self.S, **more)
        async def policy(incident: Incident) -> Decision:
            told.append(incident)
            decision: Decision = answer(incident) if callable(answer) else answer
            return decision

        return told


def _opened() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


async def moves(p: ProcessHandle[Any]) -> list[str]:
    """The history in short."""
    found: list[str] = []
    for step in await p.history():
        where = f"={step.target}" if step.source == step.target else f"{step.source}>{step.target}"
        found.append(f"{where} {step.trigger}")
    return found


async def names(p: ProcessHandle[Any], actor: str | None = None) -> list[str]:
    return sorted(command.name for command in await p.commands(actor=actor))
