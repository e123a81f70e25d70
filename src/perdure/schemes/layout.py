"""Where the boxes and arrows of a drawn scheme stand: columns by distance from the initial state.

An arrow to the next column is a curve through the gap, one within a column goes straight or in a bow; one that goes
further, back or to itself has a lane of its own above or below the boxes. Pure arithmetic: the same scheme has the same
drawing on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from perdure.schemes.drawn import Counts, Line, lines
from perdure.schemes.form import Scheme

CHARACTER = 7.0  # width of one, as drawn
LINE = 16.0  # height of a line of text
BOX = 40.0  # height of a box
ROW = 44.0  # between boxes of a column
MARGIN = 24.0


class Box(msgspec.Struct, kw_only=True):
    """A state: its middle and its width."""

    name: str
    text: tuple[str, ...]
    x: float
    y: float
    width: float


class Arrow(msgspec.Struct, frozen=True, kw_only=True):
    """A path with its label in the middle of ``x``, ``y``."""

    line: Line
    path: str
    x: float
    y: float


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """All that is drawn, and how large the picture is."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    width: float
    height: float
    start: tuple[float, float]


def layout(scheme: Scheme, counts: Counts | None = None) -> Layout:
    """Place everything."""
    every = lines(scheme, counts, groups=False)
    columns = _columns(scheme, every)
    rank = {name: number for number, column in enumerate(columns) for name in column}
    near = [line for line in every if rank[line.target] == rank[line.source] + 1]
    beside = [line for line in every if rank[line.target] == rank[line.source] and line.source != line.target]
    far = [line for line in every if line not in near and line not in beside]
    above = [line for line in far if _goes_over(line, columns, rank)]
    over, under = _lanes(above, rank), _lanes([line for line in far if line not in above], rank)
    height = max(len(column) for column in columns) * (BOX + ROW) - ROW
    top = MARGIN + _depth(over)
    boxes = _boxes(scheme, columns, every, rank, top, height)
    bottom = top + height
    arrows = [_near(line, boxes, near) for line in near]
    arrows += [_beside(line, boxes) for line in beside]
    arrows += _far(over, boxes, top, -1.0)
    arrows += _far(under, boxes, bottom, 1.0)
    first = boxes[scheme.initial]
    widest = max((_width(line) / 2 + arrow.x for arrow in arrows for line in [arrow.line]), default=0.0)
    return Layout(
        boxes=tuple(boxes.values()),
        arrows=tuple(arrows),
        width=max(widest, *(box.x + box.width / 2 for box in boxes.values())) + MARGIN,
        height=bottom + _depth(under) + MARGIN,
        start=(first.x - first.width / 2, first.y),
    )


def _columns(scheme: Scheme, every: Sequence[Line]) -> list[list[str]]:
    """States by their distance from the initial one; those set by hand only come first. Near ones stand near."""
    rank: dict[str, int] = {}
    roots = [
        scheme.initial,
        *(state.name for state in scheme.states if state.settable),
        *(s.name for s in scheme.states),
    ]
    for root in roots:
        todo = [] if root in rank else [root]
        rank.setdefault(root, 0)
        while todo:
            name = todo.pop(0)
            for line in every:
                if line.source == name and line.target not in rank and not line.reverse:
                    rank[line.target] = rank[name] + 1
                    todo.append(line.target)
    columns: list[list[str]] = [[] for _ in range(max(rank.values()) + 1)]
    for state in scheme.states:
        columns[rank[state.name]].append(state.name)
    for before, column in pairwise(columns):
        at = {name: number for number, name in enumerate(before)}
        pull = {
            name: [at[line.source] for line in every if line.target == name and line.source in at] for name in column
        }
        column.sort(key=lambda name: sum(pull[name]) / len(pull[name]) if pull[name] else 0.0)
    return columns


def _width(line: Line) -> float:
    return max((len(label) for label in line.labels), default=0) * CHARACTER


def _boxes(
    scheme: Scheme, columns: list[list[str]], every: Sequence[Line], rank: dict[str, int], top: float, height: float
) -> dict[str, Box]:
    boxes: dict[str, Box] = {}
    x = MARGIN + 34.0
    for number, column in enumerate(columns):
        texts = {name: _text(scheme, name) for name in column}
        width = max(max(len(part) for part in text) for text in texts.values()) * CHARACTER + 28.0
        own = [line for line in every if rank[line.source] == number and line.source != line.target]
        gap = max((_width(line) for line in own if rank[line.target] == number + 1), default=0.0) + 56.0
        room = max([width, *(_width(line) for line in own if rank[line.target] == number)])
        used = len(column) * (BOX + ROW) - ROW
        for row, name in enumerate(column):
            y = top + (height - used) / 2 + row * (BOX + ROW) + BOX / 2
            boxes[name] = Box(name=name, text=texts[name], x=x + room / 2, y=y, width=width)
        x += room + gap
    return boxes


def _text(scheme: Scheme, name: str) -> tuple[str, ...]:
    state = scheme.state(name)
    own = state.title or state.name
    return (" / ".join(state.groups), own) if state.groups else (own,)


def _lanes(every: Sequence[Line], rank: dict[str, int]) -> list[list[Line]]:
    """Arrows that would cross each other's way get lanes of their own; short ones stay near the boxes."""
    lanes: list[list[Line]] = []
    for line in sorted(every, key=lambda line: (abs(rank[line.source] - rank[line.target]), rank[line.source])):
        low, high = sorted((rank[line.source], rank[line.target]))
        for lane in lanes:
            spans = [sorted((rank[other.source], rank[other.target])) for other in lane]
            if all(high < a or b < low for a, b in spans):
                lane.append(line)
                break
        else:
            lanes.append([line])
    return lanes


def _depth(lanes: list[list[Line]]) -> float:
    return sum(_thickness(lane) for lane in lanes)


def _thickness(lane: list[Line]) -> float:
    return max(len(line.labels) for line in lane) * LINE + 18.0


def _near(line: Line, boxes: dict[str, Box], near: Sequence[Line]) -> Arrow:
    source, target = boxes[line.source], boxes[line.target]
    x1, x2 = source.x + source.width / 2, target.x - target.width / 2
    y1 = source.y + _port(line, [other for other in near if other.source == line.source], boxes)
    y2 = target.y + _port(line, [other for other in near if other.target == line.target], boxes)
    bend = (x2 - x1) / 2
    path = f"M{x1:.1f},{y1:.1f} C{x1 + bend:.1f},{y1:.1f} {x2 - bend:.1f},{y2:.1f} {x2:.1f},{y2:.1f}"
    return Arrow(line=line, path=path, x=(x1 + x2) / 2, y=(y1 + y2) / 2)


def _beside(line: Line, boxes: dict[str, Box]) -> Arrow:
    """Within a column: straight to the next box, in a bow to the right past others; up and down stand apart."""
    source, target = boxes[line.source], boxes[line.target]
    down = 1.0 if target.y > source.y else -1.0
    if abs(target.y - source.y) <= BOX + ROW:
        x = source.x + down * 14.0
        y1, y2 = source.y + down * BOX / 2, target.y - down * BOX / 2
        return Arrow(line=line, path=f"M{x:.1f},{y1:.1f} L{x:.1f},{y2:.1f}", x=x, y=(y1 + y2) / 2)
    x1, x2 = source.x + source.width / 2, target.x + target.width / 2
    x, y1, y2 = x1 + 36.0, source.y + down * 10.0, target.y - down * 10.0
    path = f"M{x1:.1f},{y1:.1f} C{x:.1f},{y1:.1f} {x:.1f},{y2:.1f} {x2:.1f},{y2:.1f}"
    return Arrow(line=line, path=path, x=x1 + 27.0, y=(y1 + y2) / 2)


def _port(line: Line, together: list[Line], boxes: dict[str, Box]) -> float:
    """Where along the side of a box an arrow begins: those that share it stand apart."""
    order = sorted(together, key=lambda other: (boxes[other.target].y, boxes[other.source].y))
    return (order.index(line) - (len(order) - 1) / 2) * min(12.0, (BOX - 10.0) / max(1, len(order)))


def _far(lanes: list[list[Line]], boxes: dict[str, Box], edge: float, side: float) -> list[Arrow]:
    """Out of the box, along the lane, into the other box; corners are round."""
    ports = _ports([line for lane in lanes for line in lane], boxes)
    arrows: list[Arrow] = []
    at = edge
    for lane in lanes:
        y = at + side * (_thickness(lane) - 8.0)
        for line in lane:
            (x1, x2), turn = ports[line], y - side * 8
            y1, y2 = boxes[line.source].y + side * BOX / 2, boxes[line.target].y + side * BOX / 2
            step = 8.0 if x2 > x1 else -8.0
            path = (
                f"M{x1:.1f},{y1:.1f} L{x1:.1f},{turn:.1f} Q{x1:.1f},{y:.1f} {x1 + step:.1f},{y:.1f} "
                f"L{x2 - step:.1f},{y:.1f} Q{x2:.1f},{y:.1f} {x2:.1f},{turn:.1f} L{x2:.1f},{y2:.1f}"
            )
            if abs(x2 - x1) < 20.0:
                path = f"M{x1:.1f},{y1:.1f} C{x1:.1f},{y:.1f} {x2:.1f},{y:.1f} {x2:.1f},{y2:.1f}"
            arrows.append(Arrow(line=line, path=path, x=(x1 + x2) / 2, y=y))
        at += side * _thickness(lane)
    return arrows


def _ports(every: Sequence[Line], boxes: dict[str, Box]) -> dict[Line, tuple[float, float]]:
    """Where arrows leave and enter, evenly along the boxes of a column, so that no two lie on one another."""
    ends: dict[tuple[float, float], list[tuple[float, int, Line]]] = {}  # by column: those of a box pass behind others
    for line in every:
        source, target = boxes[line.source], boxes[line.target]
        ends.setdefault((source.x, source.width), []).append((target.x, 1, line))
        ends.setdefault((target.x, target.width), []).append((source.x, 0, line))
    found: dict[tuple[Line, int], float] = {}
    for (middle, width), together in ends.items():
        together.sort(key=lambda end: (end[0], end[1], every.index(end[2])))
        for number, (_, which, line) in enumerate(together, 1):
            found[line, which] = middle + width * (number / (len(together) + 1) - 0.5)
    return {line: (found[line, 1], found[line, 0]) for line in every}


def _goes_over(line: Line, columns: list[list[str]], rank: dict[str, int]) -> bool:
    """The way that leads behind fewer boxes; forward over them and back under them if it is the same."""
    above = below = 0
    for name in (line.source, line.target):
        column = columns[rank[name]]
        above += column.index(name)
        below += len(column) - 1 - column.index(name)
    return above < below or (above == below and rank[line.target] > rank[line.source])
