"""Drawings against golden texts; where a change of them is wanted: PERDURE_GOLDEN=write."""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from perdure.errors import StateNotFound
from perdure.schemes.declared import Declared
from perdure.schemes.drawn import TIMES
from perdure.schemes.form import Scheme
from perdure.schemes.grammar import State
from perdure.schemes.layout import BOX, layout
from perdure.schemes.mermaid import mermaid
from perdure.schemes.svg import svg
from tests.schemes.notations import InPython

GOLDEN = Path(__file__).with_name("golden")
S: Scheme = InPython.__perdure__.scheme
COUNTS = {("Draft", "Check", "submit"): 3, ("Check", "Review", ""): 3, ("Review", "Draft", "reject"): 1}


class Grouped(Declared, name="grouped"):
    """Sub-states, titles, names that Mermaid keeps for itself."""

    ready: bool = False
    new = State('Brand "new"; #1', initial=True)

    class work(State.Compound):
        one = State(initial=True)

        class deep(State.Compound):
            two = State(initial=True)
            three = State()
            inner = two.to(three)

        end = State("The end", final=True)
        step = one.to(deep)
        finish = deep.to(end, cond="ready")

    gone = State(final=True)
    go = new.to(work, by="ready")
    cancel = work.to(gone, after=90.5)
    again = new.to(new, every=3600)
    at_nine = new.to(gone, at="09:00")
    done_state_work = work.to(gone)


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("PERDURE_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_mermaid() -> None:
    golden("s.mmd", mermaid(S))
    golden("s_current.mmd", mermaid(S, current="Review", counts=COUNTS))
    golden("grouped.mmd", mermaid(Grouped.__perdure__.scheme, current="work"))


def test_svg() -> None:
    golden("s.svg", svg(S))
    golden("s_current.svg", svg(S, current="Review", counts=COUNTS))
    golden("grouped.svg", svg(Grouped.__perdure__.scheme, current="three"))


def test_the_current_state_is_lit_and_no_other() -> None:
    picture = svg(S, current="Review")
    root = ET.fromstring(picture)
    assert len([element for element in root.iter() if element.get("class") == "lit"]) == 1
    assert re.search(r'class="lit-text"[^>]*>Review<', picture)
    assert "class Review current\n" in mermaid(S, current="Review")
    with pytest.raises(StateNotFound):
        svg(S, current="Nowhere")
    with pytest.raises(StateNotFound):
        mermaid(S, current="Nowhere")


def test_counts_stand_on_the_edges() -> None:
    for text in (mermaid(S, counts=COUNTS), svg(S, counts=COUNTS)):
        assert f"submit {TIMES}3" in text
        assert f"reject {TIMES}1" in text
        assert f"overdue after 2s {TIMES}0" in text


@pytest.mark.parametrize("scheme", [S, Grouped.__perdure__.scheme], ids=["s", "grouped"])
def test_boxes_do_not_touch_and_everything_is_on_the_page(scheme: Scheme) -> None:
    plan = layout(scheme)
    for one in plan.boxes:
        assert one.width / 2 < one.x < plan.width - one.width / 2
        assert BOX / 2 < one.y < plan.height - BOX / 2
        for other in plan.boxes:
            apart = abs(one.x - other.x) >= (one.width + other.width) / 2 or abs(one.y - other.y) >= BOX
            assert one is other or apart
    for arrow in plan.arrows:
        ys = [float(y) for _, y in re.findall(r"([\d.-]+),([\d.-]+)", arrow.path)]
        assert min(ys) > 0
        assert max(ys) < plan.height
        assert 0 < arrow.x < plan.width
        assert 0 < arrow.y < plan.height


def test_what_is_written_is_escaped() -> None:
    class X(Declared, name="<x>"):
        a = State("<b>&", initial=True)
        b = State(final=True)
        go = a.to(b, cond="1 < 2")

    root = ET.fromstring(svg(X.__perdure__.scheme))
    assert {"<b>&", "go [1 < 2]", "<x>"} <= {element.text for element in root.iter()}
