"""The table: medians of a sitting, ratios, targets, and which of them are met.

``python -m bench.table FILE.jsonl…`` makes it again from the results of a sitting, without measuring.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.workloads import LINES, Line

CONTENDERS = ("perdure", "dbos", "restate", "absurd", "bound")
TITLES = {"perdure": "Perdure", "dbos": "DBOS", "restate": "Restate", "absurd": "Absurd", "bound": "bound"}
Results = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]  # (line, contender): its runs


def median(line: Line, who: str, results: Results) -> float | None:
    runs = results.get((line.of or line.name, who), ())
    values = [run[line.metric] for run in runs if run.get(line.metric) is not None]
    return statistics.median(values) if values else None


def shown(line: Line, who: str, results: Results) -> str:
    """The median, with the spread of its runs, and ``~`` if the machine was never quiet."""
    value = median(line, who, results)
    if value is None:
        return "–"
    runs = results[(line.of or line.name, who)]
    values = sorted(run[line.metric] for run in runs if run.get(line.metric) is not None)
    spread = f" [{number(values[0])}..{number(values[-1])}]" if len(values) > 1 else ""
    return f"{'~' if any(run['noisy'] for run in runs) else ''}{number(value)}{spread}"


def number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def judged(line: Line, lines: Mapping[str, Line], results: Results) -> tuple[list[str], list[str], str]:
    """Ratios, targets, and the verdict over all that could be compared."""
    ours = median(line, "perdure", results)
    if ours is None:
        return [], [], "not run"
    ratios, targets, met, missing = [], [], [], False
    if line.at_most is not None:
        targets.append(f"≤ {number(line.at_most)} {line.unit}")
        met.append(ours <= line.at_most)
    for target in line.targets:
        other = lines.get(target.against)
        name = TITLES.get(target.against, target.against)
        theirs = median(other, "perdure", results) if other else median(line, target.against, results)
        sign = "≤" if line.better == "less" else "≥"
        targets.append(f"{sign} {number(target.ratio)} × {name}")
        if not theirs:
            missing = True
            continue
        ratio = ours / theirs
        ratios.append(f"{number(ratio)} × {name}")
        met.append(ratio <= target.ratio if line.better == "less" else ratio >= target.ratio)
    for who in ("dbos", "restate", "bound"):
        theirs = median(line, who, results)
        if theirs and all(target.against != who for target in line.targets):
            ratios.append(f"{number(ours / theirs)} × {TITLES[who]}")
    if not all(met):
        return ratios, targets, "missed"
    return ratios, targets, ("met" if met and not missing else "–")


def rows(lines: Sequence[Line], results: Results) -> Iterable[list[str]]:
    by_name = {line.name: line for line in lines}
    yield ["workload", "", *(TITLES[who] for who in CONTENDERS), "Perdure is", "target", ""]
    for line in lines:
        ratios, targets, verdict = judged(line, by_name, results)
        figures = [shown(line, who, results) for who in CONTENDERS]
        yield [line.title, line.unit, *figures, ", ".join(ratios), ", ".join(targets), verdict]


def markdown(lines: Sequence[Line], results: Results) -> str:
    """The table as Markdown, columns aligned, for eyes and for the documentation alike."""
    table = list(rows(lines, results))
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def read(files: Iterable[str]) -> Results:
    """The results in these files; of a run that was repeated, the last try."""
    last: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for file in files:
        for text in Path(file).read_text().splitlines():
            result = json.loads(text)
            last[file, result["line"], result["who"], result["run"]] = result
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for (_, line, who, _), result in last.items():
        found[line, who].append(result)
    # A disturbed run says nothing where there is a quiet one.
    return {key: [run for run in runs if not run["noisy"]] or runs for key, runs in found.items()}


if __name__ == "__main__":
    results = read(sys.argv[1:])
    print(markdown([line for line in LINES if (line.of or line.name) in {name for name, _ in results}], results))
