"""What the drawings of a scheme have in common: which lines there are, and what stands on them.

A line is drawn once for all transitions between two states. What every sub-state of a group does alike is drawn as the
group's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Protocol

import msgspec

from perdure.schemes.declared import declaration_of
from perdure.schemes.form import Group, Scheme, Timer, Transition

TIMES = "\N{MULTIPLICATION SIGN}"

Counts = Mapping[tuple[str, str, str], int]
"""How often each transition was taken: by source, target and name (of the command or timer; "" if automatic)."""


def counted(history: Iterable[Taken]) -> dict[tuple[str, str, str], int]:
    """Count the transitions in the histories of processes, for the edges of a drawing.

    Steps without a transition are left out: a start, a state set by hand, what a recovery decided::

        mermaid(Vacation, current=await p.state(), counts=counted(await p.history()))
    """
    moves = (step for step in history if step.trigger in ("command", "timer", "auto"))
    return dict(Counter((step.source, step.target, step.name) for step in moves))


class Taken(Protocol):
    """A step of a history, as far as a drawing needs it."""

    @property
    def source(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def trigger(self) -> str: ...


def scheme_of(drawn: Scheme | type) -> Scheme:
    """The scheme of a class, or itself."""
    return drawn if isinstance(drawn, Scheme) else declaration_of(drawn).scheme


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """An arrow between two states or groups, with one label for each transition."""

    source: str
    target: str
    labels: tuple[str, ...]
    reverse: bool
    taken: int | None  # None: nobody counted


def lines(scheme: Scheme, counts: Counts | None = None, *, groups: bool = True) -> list[Line]:
    """The arrows of a scheme, in the order of its transitions."""
    found: dict[tuple[str, str], list[tuple[Transition, int]]] = {}
    for edge, source, taken in _edges(scheme, counts or {}, groups=groups):
        found.setdefault((source, edge.target), []).append((edge, taken))
    return [
        Line(
            source=source,
            target=target,
            labels=tuple(text for edge, number in edges if (text := _label(edge, number if counts else None))),
            reverse=all(edge.reverse for edge, _ in edges),
            taken=sum(number for _, number in edges) if counts else None,
        )
        for (source, target), edges in found.items()
    ]


def _edges(scheme: Scheme, counts: Counts, *, groups: bool) -> Iterator[tuple[Transition, str, int]]:
    """Each edge with where it is drawn from and how often it was taken."""
    drawn: set[tuple[str, Transition]] = set()
    for edge in scheme.transitions:
        taken = counts.get((edge.source, edge.target, edge.name), 0)
        group = _common(scheme, edge) if groups else None
        if group is None:
            yield edge, edge.source, taken
            continue
        plain = msgspec.structs.replace(edge, source=group.name)
        if (group.name, plain) not in drawn:
            drawn.add((group.name, plain))
            leaves = [state.name for state in scheme.states if group.name in state.groups]
            yield edge, group.name, sum(counts.get((leaf, edge.target, edge.name), 0) for leaf in leaves)


def _common(scheme: Scheme, edge: Transition) -> Group | None:
    """The outermost group all of whose leaves have this edge, out of the group."""
    inside = scheme.state(edge.source).groups
    for group in scheme.groups:
        if group.name not in inside or group.name in scheme.state(edge.target).groups:
            continue
        leaves = [state.name for state in scheme.states if group.name in state.groups]
        if len(leaves) > 1 and all(msgspec.structs.replace(edge, source=leaf) in scheme.exits(leaf) for leaf in leaves):
            return group
    return None


def _label(edge: Transition, taken: int | None) -> str:
    """``approve [ready] by manager``, and how often."""
    parts = [edge.name] if edge.trigger == "command" else []
    if edge.timer is not None:
        parts.append(f"{edge.name} {when(edge.timer)}")
    if edge.cond:
        parts.append(f"[{edge.cond}]")
    if edge.by:
        parts.append(f"by {edge.by}")
    if taken is not None:
        parts.append(f"{TIMES}{taken}")
    return " ".join(parts)


def when(timer: Timer) -> str:
    """``after 3d``, ``every 1h``, ``at 09:30``."""
    if timer.after is not None:
        return f"after {_span(timer.after)}"
    if timer.every is not None:
        return f"every {_span(timer.every)}"
    return f"at {timer.at}"


def _span(microseconds: int) -> str:
    """``1d 2h``, ``90ms``."""
    whole = timedelta(microseconds=microseconds)
    rest = whole.seconds
    parts = {"d": whole.days, "h": rest // 3600, "m": rest // 60 % 60, "s": rest % 60, "ms": whole.microseconds // 1000}
    return " ".join(f"{number}{unit}" for unit, number in parts.items() if number) or "0s"
