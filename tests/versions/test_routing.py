"""The rules of routing as a table: which version a start takes, and what a launch changes."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest

from perdure.model.versions import Routing
from perdure.versions.routing import (
    FIRST_EVER,
    FIRST_LAUNCH,
    RELAUNCH,
    after_launch,
    ramps,
    share,
    target,
    version_for,
)

HALF = Routing(current="v1", ramping="v2", percentage=50.0)
PLAIN = Routing(current="v1")
STOPPED = Routing(current="v1", ramping="v2", percentage=0.0)  # as it once was
IN, OUT = "w2", "w0"  # by the ramp of HALF


def test_the_ids_of_these_tests_are_on_both_sides_of_the_ramp() -> None:
    assert [ramps("shop", id, 50.0) for id in (IN, OUT)] == [True, False]


# asked, pinned parent, own, routing, id: auto, manual
STARTS = [
    ("v9", "v3", "v1", HALF, IN, "v9", "v9"),
    (None, "v3", "v1", HALF, IN, "v3", "v3"),
    (None, None, "v1", PLAIN, IN, "v1", "v1"),
    (None, None, "v7", PLAIN, IN, "v7", "v1"),
    (None, None, "v7", HALF, IN, "v2", "v2"),
    (None, None, "v7", HALF, OUT, "v1", "v1"),
    (None, None, "v7", STOPPED, IN, "v7", "v1"),
    (None, None, None, PLAIN, IN, "", "v1"),
    (None, None, None, HALF, IN, "v2", "v2"),
    (None, None, None, HALF, OUT, "v1", "v1"),
    (None, None, None, None, IN, "", ""),
    (None, None, "v7", None, IN, "v7", "v7"),
]


@pytest.mark.parametrize(("asked", "parent", "own", "routing", "id", "auto", "manual"), STARTS)
def test_the_version_of_a_start(
    asked: str | None, parent: str | None, own: str | None, routing: Routing | None, id: str, auto: str, manual: str
) -> None:
    for rollout, expected in (("auto", auto), ("manual", manual)):
        took = version_for(rollout, "shop", id, asked=asked, pinned_parent=parent, own=own, routing=routing)
        assert took == expected, rollout


@pytest.mark.parametrize("rollout", ["auto", "manual"])
def test_an_executor_that_an_operator_took_traffic_from_starts_for_others(rollout: str) -> None:
    assert version_for(rollout, "shop", IN, own="v7", routing=PLAIN, left=True) == "v1"
    assert version_for(rollout, "shop", IN, own="v7", routing=HALF, left=True) == "v2"
    assert version_for(rollout, "shop", IN, own="v7", left=True) == "v7", "nothing was launched"


# version, auto, first, withdrawn, served: what becomes current
LAUNCHES = [
    ("v1", True, False, False, True, "v1"),
    ("v2", True, True, False, True, "v2"),  # a deploy
    ("v2", True, True, False, False, "v2"),
    ("v2", True, False, False, True, "v1"),  # to drain; in mid-deploy
    ("v2", True, False, False, False, "v2"),  # an undone edit
    ("v2", True, False, True, True, "v1"),  # after a rollback
    ("v2", True, False, True, False, "v1"),
    ("v2", True, True, True, False, "v1"),  # withdrawn before it was ever launched
    ("v2", False, True, False, False, "v1"),  # manual
    ("v2", False, False, False, False, "v1"),
]


@pytest.mark.parametrize(("version", "auto", "first", "withdrawn", "served", "expected"), LAUNCHES)
def test_what_a_launch_makes_current(
    version: str, auto: bool, first: bool, withdrawn: bool, served: bool, expected: str
) -> None:
    before = Routing(current="v1", ramping="v5", percentage=5.0, revision=7, changed=1, because="before")
    after = after_launch(before, version, auto=auto, first=first, withdrawn=withdrawn, served=served, now=9)
    if expected == "v1":
        assert after is None
    else:
        assert after == Routing(
            current=expected,
            ramping="v5",
            percentage=5.0,
            revision=8,
            changed=9,
            because=FIRST_LAUNCH if first else RELAUNCH,
        )


@pytest.mark.parametrize("auto", [True, False])
def test_the_first_version_of_an_app_is_current_at_once(auto: bool) -> None:
    after = after_launch(None, "v1", auto=auto, first=True, withdrawn=False, served=False, now=9)
    assert after == Routing(current="v1", changed=9, because=FIRST_EVER)


def test_a_ramping_version_that_becomes_current_ramps_no_longer() -> None:
    after = after_launch(HALF, "v2", auto=True, first=False, withdrawn=False, served=False, now=9)
    assert after is not None
    assert (after.current, after.ramping, after.percentage) == ("v2", None, 0.0)


def test_a_ramp_gets_its_share_and_a_larger_one_only_adds_to_it() -> None:
    ids = [f"w{n}" for n in range(4_000)]
    chosen = [{id for id in ids if ramps("shop", id, share)} for share in (0, 1, 10, 50, 99, 100)]
    assert [len(c) for c in (chosen[0], chosen[-1])] == [0, 4_000]
    for smaller, larger in pairwise(chosen):
        assert smaller < larger
    assert 1_850 < len(chosen[3]) < 2_150
    assert chosen[3] != {id for id in ids if ramps("other", id, 50)}


def test_a_ramp_is_the_same_for_every_process() -> None:
    """Written down: another hash would send running ramps elsewhere."""
    assert [id for id in (f"w{n}" for n in range(20)) if target(HALF, "shop", id) == "v2"] == [
        "w2",
        "w4",
        "w5",
        "w8",
        "w9",
        "w14",
        "w15",
        "w17",
    ]


def test_what_sql_compares_with_is_the_same_ramp() -> None:
    """To the last bit: an id on one side here and on the other there would go to and fro for ever."""
    ids = [f"w{n}" for n in range(2_000)]
    points = {id: hashlib.sha256(f"shop{id}".encode()).digest()[:8] for id in ids}
    exact = [int.from_bytes(points[id]) / 2**64 * 100 for id in ids[:50]]  # a share that ends exactly at an id
    for percentage in (0.0, 1e-9, 0.5, 12.5, 33.3, 50.0, 99.999, 100.0, *exact):
        bound = share(percentage)
        for id in ids:
            assert (points[id] < bound) is ramps("shop", id, percentage), (id, percentage)


@pytest.mark.parametrize("percentage", [0.0, 100.0])
def test_the_ends_of_a_ramp_are_exact(percentage: float) -> None:
    ends = [b"\0" * 8, b"\xff" * 8]
    assert [end < share(percentage) for end in ends] == [percentage == 100.0] * 2


@pytest.mark.parametrize(("served", "expected"), [(True, None), (False, "v2")])
def test_a_first_launch_does_not_go_over_the_share_that_an_operator_gave_it(served: bool, expected: str | None) -> None:
    after = after_launch(HALF, "v2", auto=True, first=True, withdrawn=False, served=served, now=9)
    assert (None if after is None else after.current) == expected
