"""How much of the tests is run on a slow machine: what fits, by chance, and it is said."""

from __future__ import annotations

import os
from typing import Any, cast

import pytest

from tests import pace
from tests.pace import LEAST, Budget

ITEMS = cast("list[pytest.Item]", [f"test {n}" for n in range(400)])


def test_all_of_them_where_they_fit_and_a_part_where_they_do_not() -> None:
    budget = Budget(seconds=600, always=100, chosen=400)
    assert budget.share(0.5) == budget.share(1) == 1
    assert budget.share(2) == 0.5  # 200 for what is always done, and 400 of the others' 800
    assert budget.share(2.4) == round(360 / 960, 2)
    assert budget.share(20) == LEAST  # the promise is not kept there


@pytest.mark.parametrize(("share", "kept"), [("1", 400), ("0.25", 100), ("0.1", 40)])
def test_so_many_are_kept_the_same_by_one_seed(monkeypatch: pytest.MonkeyPatch, share: str, kept: int) -> None:
    monkeypatch.setenv(pace.SHARE, share)
    left = pace.beyond(ITEMS, "7")
    assert len(ITEMS) - len(left) == kept
    assert pace.beyond(ITEMS, "7") == left
    assert share == "1" or pace.beyond(ITEMS, "8") != left


def test_who_asks_for_a_share_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> Any:
        raise AssertionError("it was measured")

    monkeypatch.setattr(pace, "slowness", never)
    monkeypatch.setattr(pace, "EFFORT", "some")
    monkeypatch.setenv(pace.SHARE, "1")
    pace.measure()
    assert pace.share() == 1
    monkeypatch.delenv(pace.SHARE)
    monkeypatch.setattr(pace, "EFFORT", "all")
    pace.measure()
    assert pace.SHARE not in os.environ
    assert pace.share() == 1


def test_a_machine_that_is_measured_says_so_to_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "EFFORT", "some")
    monkeypatch.setattr(pace, "BUDGETS", {"some": Budget(600, 100, 400)})
    monkeypatch.setattr(pace, "slowness", lambda: 2.0)
    monkeypatch.setenv(pace.SHARE, "")  # so that what is there now comes back
    monkeypatch.delenv(pace.SHARE)
    pace.measure()
    assert pace.share() == 0.5


@pytest.mark.slow
def test_the_machine_is_measured_by_the_engine() -> None:
    assert 0.2 < pace.slowness() < 50
