"""One test, run again and again: once for each write that its workflows make, and each thing that can go wrong there.

The test runs twice in peace; then with a crash (or lost answer, or trouble) at the first write, at the second, and so
on. Each time on a fresh store, and each time the same must come out: the same returned value, the same ends of the
same workflows, and whatever the test itself asserts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple

from perdure.model.records import Outcome
from perdure.model.states import Status
from perdure.query.conditions import Query
from perdure.testing.crash import Mode, Plan
from perdure.testing.environment import Harness


class Ending(NamedTuple):
    """What came out of one run of a test."""

    returned: Any
    workflows: list[tuple[str, str]]
    values: list[tuple[str, bytes]]

    def differs(self, other: Ending, *, values: bool) -> str:
        """What is not the same; "" if all is."""
        if self.returned != other.returned and values:
            return f"the test returned {other.returned!r}, without the crash {self.returned!r}"
        if self.workflows != other.workflows:
            return f"the workflows ended as {other.workflows}, without the crash as {self.workflows}"
        if self.values != other.values and values:
            return f"the workflows returned {other.values}, without the crash {self.values}"
        return ""


class Tried(NamedTuple):
    """What was tried: so many writes, and so many runs in which something went wrong at one of them."""

    points: int
    runs: int


async def crash_everywhere(
    test: Callable[[], Awaitable[Any]], harness: Harness, modes: Collection[Mode] = tuple(Mode)
) -> Tried:
    """Run ``test``, which uses ``harness``, with a crash of each mode at every write. The harness is new each time.

    What the test raises is raised, with a note that tells what was done to it.
    """
    first = await _run(test, harness, Plan())
    second = await _run(test, harness, Plan())
    # Values that differ in peace (an id drawn at random) are no sign of a crash.
    same = not first.differs(second, values=True)
    points = len(harness.plan.points)
    runs = 0
    for point in range(1, points + 1):
        for mode in modes:
            plan = Plan({point: mode})
            try:
                ending = await _run(test, harness, plan)
            except Exception as error:
                error.add_note(f"with a {plan!r}" if plan.struck else "without any crash, on a repeated run")
                raise
            runs += bool(plan.struck)
            difference = first.differs(ending, values=same)
            assert not difference, f"{difference}; with: {plan!r}"
    return Tried(points, runs)


def _at_rest(status: Status) -> Status:
    """When nothing is left to do, what runs only waits: in memory still, or put away, which is no difference."""
    return Status.WAITING if status is Status.RUNNING else status


async def _run(test: Callable[[], Awaitable[Any]], harness: Harness, plan: Plan) -> Ending:
    await harness.renew(plan)
    returned = await test()
    await harness.settle()
    plan.orders.clear()
    found = await harness.store.list(Query(), limit=10_000)
    ended = await harness.store.ended([row.id for row in found.rows if not row.status.open])
    return Ending(
        returned,
        sorted((row.name, str(_at_rest(row.status))) for row in found.rows),
        sorted((end.row.name, end.data or b"") for end in ended.values() if end.outcome is Outcome.VALUE),
    )
