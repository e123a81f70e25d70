"""One thing found in a body, where it is, and what to write instead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A line of a workflow's body (or of a helper that it calls) that a replay may see differently."""

    path: str
    line: int
    column: int  # from 1
    rule: str
    said: str  # what is wrong, with the code's own words
    fix: str  # what to write instead
    workflow: str
    chain: tuple[str, ...] = ()  # the helpers on the way there, outermost first

    def __str__(self) -> str:
        way = "".join(f" -> {name}()" for name in self.chain)
        return f"{self.path}:{self.line}:{self.column}: {self.rule}: {self.said} [{self.workflow}{way}]"
