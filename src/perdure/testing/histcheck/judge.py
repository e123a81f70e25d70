"""Judging: each invariant is one small function; a verdict is what all of them found.

Promises: a violation comes with the fewest lines of evidence that show it, in the order in which they happened; an
invariant that looked at nothing is told apart from one that held.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, cast

from perdure.testing.histcheck.evidence import Change, Evidence

Judge = Callable[["Evidence", "Findings"], None]


class Violation(NamedTuple):
    """An invariant that does not hold, and the lines that show it."""

    invariant: str
    what: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.invariant} violated: {self.what}", *(f"    {line}" for line in self.lines)])


class Findings:
    """What one invariant saw."""

    def __init__(self, invariant: str) -> None:
        self._invariant = invariant
        self.looked = 0
        self.violations: list[Violation] = []

    def look(self) -> None:
        """One more case to which the invariant applies."""
        self.looked += 1

    def violated(self, what: str, *lines: Any) -> None:
        """The case does not hold; ``lines``: audit changes, or lines of the other streams."""
        self.violations.append(Violation(self._invariant, what, tuple(_line(one) for one in lines)))


class Invariant(NamedTuple):
    """A numbered statement, and the function that judges it."""

    number: str
    judge: Judge

    @property
    def states(self) -> str:
        """The statement: the first line of the function's docstring."""
        return (self.judge.__doc__ or "").strip().partition("\n")[0]


INVARIANTS: dict[str, Invariant] = {}


def invariant(number: str) -> Callable[[Judge], Judge]:
    """Register a function ``(evidence, findings)`` as the judge of an invariant."""

    def register(judge: Judge) -> Judge:
        assert number not in INVARIANTS, f"{number} is judged twice"
        INVARIANTS[number] = Invariant(number, judge)
        return judge

    return register


class Verdict(NamedTuple):
    """What all invariants found."""

    violations: list[Violation]
    looked: dict[str, int]  # cases that each invariant applied to

    @property
    def good(self) -> bool:
        return not self.violations

    @property
    def broken(self) -> set[str]:
        """The numbers of the invariants that do not hold."""
        return {violation.invariant for violation in self.violations}

    @property
    def shown(self) -> str:
        """The violations alone: the first of each invariant."""
        first: dict[str, Violation] = {}
        for violation in self.violations:
            first.setdefault(violation.invariant, violation)
        return "\n".join(f"{one}\n" for one in first.values())

    def __str__(self) -> str:
        """The violations (of one invariant the first), then a line for each invariant."""
        counts = {number: sum(v.invariant == number for v in self.violations) for number in self.looked}
        table = [
            f"{number:>5}  {'holds' if not counts[number] else f'{counts[number]} violations':<14} "
            f"{cases:>7} cases  {INVARIANTS[number].states}"
            for number, cases in self.looked.items()
        ]
        return "\n".join([self.shown, *table])


def check(evidence: Evidence, only: Collection[str] = ()) -> Verdict:
    """Judge all invariants (or ``only`` these)."""
    violations: list[Violation] = []
    looked: dict[str, int] = {}
    for number, one in INVARIANTS.items():
        if only and number not in only:
            continue
        findings = Findings(number)
        one.judge(evidence, findings)
        looked[number] = findings.looked
        violations += findings.violations
    return Verdict(violations, looked)


def _line(one: Any) -> str:
    if isinstance(one, Change):
        return f"audit {one.n}  at {one.at / 1e6:.6f}  tx {one.tx}  {one}"
    if isinstance(one, dict):
        row = cast("dict[str, Any]", one)
        return "  ".join(f"{key}={value}" for key, value in row.items() if value not in (None, "", False))
    return str(one)
