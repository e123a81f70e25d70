"""The same scheme in each notation is the same scheme, and does the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import statemachine as theirs

from tests.schemes.notations import Chart, InPython, classes
from tests.schemes.walk import Walk

NOTATIONS = ("python", "yaml", "json", "scxml", "transitions", "python-statemachine")


@pytest.mark.parametrize("notation", NOTATIONS)
def test_the_form_is_equal(notation: str, tmp_path: Path) -> None:
    assert classes(tmp_path)[notation].__perdure__.scheme == InPython.__perdure__.scheme


@pytest.mark.parametrize("notation", NOTATIONS)
def test_the_text_for_fingerprints_is_equal(notation: str, tmp_path: Path) -> None:
    assert classes(tmp_path)[notation].__perdure__.scheme.text() == InPython.__perdure__.scheme.text()


@pytest.mark.parametrize("notation", NOTATIONS)
async def test_it_does_the_same(notation: str, tmp_path: Path) -> None:
    walk = Walk(classes(tmp_path)[notation].__perdure__, ledger=[])
    await walk.start()
    assert not await walk.order("approve", actor="bob")  # not offered in Draft
    assert await walk.order("submit")
    assert await walk.order("reject")
    assert await walk.order("submit")
    assert not await walk.order("approve", actor="bob")  # offered, to others
    assert await walk.fire("overdue")
    assert await walk.order("approve", actor="Review", comment="ok")  # the ledger holds who may
    assert walk.at == "Done"
    assert walk.instance.ledger == [
        *("Draft", "Check", "Review", "Draft", "Check", "Review"),
        *("approve", "Booking ok", "Done"),
    ]
    assert walk.path[-3:] == [
        ("Review", "Escalated", "timer", "overdue"),
        ("Escalated", "Booking", "command", "approve"),
        ("Booking", "Done", "auto", ""),
    ]


def test_a_change_is_a_difference(tmp_path: Path) -> None:
    """The comparison can fail."""
    scheme = InPython.__perdure__.scheme
    assert scheme.text() != InPython.__perdure__.named(name="T").scheme.text()
    assert scheme != InPython.__perdure__.named(on_crash="resume").scheme


async def test_the_chart_runs_in_its_own_library_too() -> None:
    """What we read is not a mere copy of their syntax: their engine takes the same way."""
    chart = Chart()
    chart.send("submit")
    assert [state.id for state in chart.configuration] == ["Review"]
    assert isinstance(chart, theirs.StateChart)
