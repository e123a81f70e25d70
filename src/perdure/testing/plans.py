"""Plans of bodies that nobody wrote: each a tree of what asyncio lets a body combine, drawn from a seed."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

LEAVES = (
    "step", "step", "step", "step", "flaky", "nap", "nap", "yield_", "raise_", "receive", "chance", "child", "beside",
)  # fmt: skip
BRANCHES = (
    "row", "row", "gather", "gather_all", "group", "first", "first_failed", "all_by_then", "left_running", "within",
    "wait_for", "shielded", "as_completed", "cancelled", "cleanup", "caught", "queue", "locked", "gated", "condition",
    "generator", "later", "twice", "nested_group", "mail", "gone",
)  # fmt: skip
WAITS = (0.0, 0.001, 0.005, 0.02, 0.2, 1.0)  # seconds: those of effects, too, so that both come at once


class Plan(NamedTuple):
    """One node: what it does, by whose name it is logged, and what it is made of."""

    kind: str
    name: str
    seconds: float
    parts: tuple[Plan, ...]

    @property
    def size(self) -> int:
        return 1 + sum(part.size for part in self.parts)

    def __str__(self) -> str:
        inside = f"({', '.join(map(str, self.parts))})" if self.parts else ""
        return f"{self.kind}{inside}"


def draw(seed: int, depth: int = 4) -> Plan:
    """The plan of a seed. The same in every process."""
    return _draw(random.Random(f"plan {seed}"), "", depth)


def _draw(chance: Any, name: str, depth: int) -> Plan:
    leaf = depth == 0 or (name and chance.random() < 0.35)
    kind = chance.choice(LEAVES if leaf else BRANCHES)
    parts = () if leaf else tuple(_draw(chance, f"{name}{n}", depth - 1) for n in range(chance.choice((1, 2, 2, 3))))
    return Plan(kind, name or "root", chance.choice(WAITS), parts)
