"""A ramp that watches itself: what it is told to look out for, and when that has come. Pure functions.

Every executor judges in its round, from the same rows; the order that follows compares the revision, so one is enough.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from perdure.errors import DefinitionError, did_you_mean
from perdure.model.versions import Bound, Sample, Watch

SAMPLES_MIN = 20  # workflows that the new version began, and (for failures) that have ended: fewer prove nothing
MEASURES = ("failure_rate", "problem_rate")
_BOUND = re.compile(r"\s*(\w+)\s*>\s*(\d+(?:\.\d+)?)\s*%\s*")


def read_bounds(texts: Sequence[str]) -> tuple[Bound, ...]:
    """Bounds such as ``failure_rate > 2%``, each measure once. Raises ``DefinitionError`` showing what is none.

    >>> read_bounds(["problem_rate > 0.5 %"])
    (Bound(measure='problem_rate', above=0.5),)
    """
    found: dict[str, Bound] = {}
    for text in texts:
        match = _BOUND.fullmatch(text)
        if match is None or not float(match[2]) < 100:
            raise DefinitionError(f"{text!r} is no bound of a ramp: give such as 'failure_rate > 2%', below 100 %")
        if match[1] not in MEASURES:
            raise DefinitionError(f"{match[1]!r} is none of {', '.join(MEASURES)}{did_you_mean(match[1], MEASURES)}")
        found[match[1]] = Bound(match[1], float(match[2]))
    return tuple(found[name] for name in sorted(found))


def shown(bound: Bound) -> str:
    """A bound as it is given."""
    return f"{bound.measure} > {bound.above:g}%"


def passed(watch: Watch, sample: Sample) -> str | None:
    """The evidence that a bound is passed; None as long as none is, or too little has happened."""
    for bound in watch.bounds:
        count, of, what = _share(bound, sample)
        if of >= SAMPLES_MIN and count * 100 > bound.above * of:
            return f"{shown(bound)}: {count} of {of} {what} since the ramp began ({count * 100 / of:.3g} %)"
    return None


def _share(bound: Bound, sample: Sample) -> tuple[int, int, str]:
    if bound.measure == "failure_rate":
        return sample.failed, sample.ended, "that ended have failed or timed out"
    return sample.problems, sample.begun, "that it began have a problem"
