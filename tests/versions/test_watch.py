"""What a ramp that watches itself is told, and when that has come, as tables."""

from __future__ import annotations

import pytest

from perdure.errors import DefinitionError
from perdure.model.versions import Bound, Sample, Watch
from perdure.versions.watch import SAMPLES_MIN, passed, read_bounds, shown

FAILURES, PROBLEMS = Bound("failure_rate", 2.0), Bound("problem_rate", 5.0)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], ()),
        (["failure_rate > 2%"], (FAILURES,)),
        (["  failure_rate>2.0 % "], (FAILURES,)),
        (["problem_rate > 5%", "failure_rate > 2%"], (FAILURES, PROBLEMS)),
        (["failure_rate > 9%", "failure_rate > 2%"], (FAILURES,)),
        (["problem_rate > 0%"], (Bound("problem_rate", 0.0),)),
    ],
)
def test_bounds_are_read(texts: list[str], expected: tuple[Bound, ...]) -> None:
    assert read_bounds(texts) == expected
    assert read_bounds([shown(bound) for bound in expected]) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("failure_rate", "'failure_rate' is no bound of a ramp: give such as 'failure_rate > 2%', below 100 %"),
        ("failure_rate > 2", "is no bound"),
        ("failure_rate < 2%", "is no bound"),
        ("failure_rate > -2%", "is no bound"),
        ("failure_rate > 100%", "below 100 %"),
        ("failure_rate > 2% or 1", "is no bound"),
        ("fail_rate > 2%", r"'fail_rate' is none of failure_rate, problem_rate \(did you mean 'failure_rate'"),
        ("", "'' is no bound"),
    ],
)
def test_what_is_no_bound_is_shown(text: str, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        read_bounds([text])


@pytest.mark.parametrize(
    ("bound", "sample", "expected"),
    [
        (FAILURES, Sample(0, 0, 0, 0), False),
        (FAILURES, Sample(19, 19, 19, 0), False),  # too few, however bad
        (FAILURES, Sample(20, 20, 1, 0), True),
        (FAILURES, Sample(500, 19, 19, 0), False),  # many began, few have ended
        (FAILURES, Sample(100, 50, 1, 0), False),  # 2 % are not more than 2 %
        (FAILURES, Sample(100, 49, 1, 0), True),
        (FAILURES, Sample(100, 100, 0, 100), False),
        (PROBLEMS, Sample(20, 0, 0, 1), False),
        (PROBLEMS, Sample(20, 0, 0, 2), True),
        (PROBLEMS, Sample(19, 0, 0, 19), False),
        (PROBLEMS, Sample(100, 100, 100, 0), False),
        (Bound("failure_rate", 0.0), Sample(20, 20, 0, 0), False),
        (Bound("failure_rate", 0.0), Sample(20, 20, 1, 0), True),
    ],
)
def test_when_a_bound_is_passed(bound: Bound, sample: Sample, expected: bool) -> None:
    watch = Watch(version="v2", since=1, back="v1", bounds=(bound,))
    assert (passed(watch, sample) is not None) is expected


def test_the_evidence_says_what_was_seen() -> None:
    watch = Watch(version="v2", since=1, back="v1", bounds=(FAILURES, PROBLEMS))
    assert passed(watch, Sample(80, 40, 5, 0)) == (
        "failure_rate > 2%: 5 of 40 that ended have failed or timed out since the ramp began (12.5 %)"
    )
    assert passed(watch, Sample(30, 0, 0, 3)) == (
        "problem_rate > 5%: 3 of 30 that it began have a problem since the ramp began (10 %)"
    )
    assert SAMPLES_MIN == 20
