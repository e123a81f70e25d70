"""The parts of a batch in trouble, alone: which is tried next, and what each unit comes to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from perdure.client import parts as module
from perdure.client.parts import RETRY_SECONDS_MAX, TRIES_WHOLE, WITHDRAWN, Parts
from perdure.errors import DatabaseTrouble, LostAnswer
from perdure.model.ids import RunKey
from perdure.model.writes import Unit, Verdict

TROUBLE = DatabaseTrouble("it does not answer")
BUG = ValueError("a bug")
YES = Verdict(applied=True)


def units(count: int) -> list[Unit]:
    return [Unit(key=RunKey(str(nth), 1), woken=[b"w"]) for nth in range(count)]


def ids(part: Sequence[Unit]) -> str:
    return " ".join(unit.key.id for unit in part)


def run(
    parts: Parts, troubled: str = "", refused: str = "", *, others_wait: bool = False, tries: int = 1000
) -> tuple[list[str], list[str]]:
    """Try them against a database that fails or refuses these units; what was tried, and whose own trouble it was."""
    tried, own = list[str](), list[str]()
    while len(tried) < tries and (part := parts.pop()):
        tried.append(ids(part))
        names = {unit.key.id for unit in part}
        if names & set(troubled.split()):
            if parts.failed(part, TROUBLE, others_wait=others_wait):
                own.append(ids(part))
        elif names & set(refused.split()):
            parts.refused(part, BUG)
        else:
            parts.written(part, [YES] * len(part))
    return tried, own


def test_the_whole_some_times_then_halves_in_turn_until_the_one_stands_alone() -> None:
    batch = units(4)
    parts = Parts(batch, set())
    tried, own = run(parts, troubled="1")
    assert tried == ["0 1 2 3"] * TRIES_WHOLE + ["0 1", "2 3", "0", "1"]
    assert own == ["1"]
    assert parts.verdicts == {id(unit): YES for unit in batch if unit.key.id != "1"}


def test_in_an_outage_all_are_tried_for_ever_in_turn() -> None:
    parts = Parts(units(2), set())
    tried, own = run(parts, troubled="0 1", others_wait=True, tries=TRIES_WHOLE + 6)
    assert tried[TRIES_WHOLE:] == ["0", "1"] * 3
    assert (own, parts.verdicts) == ([], {})


@pytest.mark.parametrize("others_wait", [False, True])
def test_a_lone_unit_lets_others_show_whether_it_is_an_outage(others_wait: bool) -> None:
    tried, own = run(Parts(units(1), set()), troubled="0", others_wait=others_wait, tries=50)
    assert len(tried) == (TRIES_WHOLE if others_wait else 50)
    assert own == [], "nothing is known of the others yet"


def test_an_error_of_a_unit_is_halved_down_to_it_at_once() -> None:
    batch = units(5)
    parts = Parts(batch, set())
    tried, _ = run(parts, refused="3")
    assert tried == ["0 1 2 3 4", "0 1 2", "3 4", "3", "4"]
    assert parts.verdicts == {id(unit): BUG if unit.key.id == "3" else YES for unit in batch}


def test_what_is_withdrawn_meanwhile_is_not_tried_again() -> None:
    batch, withdrawn = units(3), set[int]()
    parts = Parts(batch, withdrawn)
    parts.failed(parts.pop(), TROUBLE, others_wait=False)
    withdrawn.add(id(batch[1]))
    assert run(parts)[0] == ["0 2"]
    assert parts.verdicts == {id(batch[0]): YES, id(batch[1]): WITHDRAWN, id(batch[2]): YES}
    all_of_it = Parts(batch, {id(unit) for unit in batch})
    assert not all_of_it.pop()


def test_what_no_database_takes_at_once_has_its_error_after_the_first_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MESSAGE_BYTES_MAX", -1)
    [unit] = units(1)
    parts = Parts([unit], set())
    parts.failed(parts.pop(), TROUBLE, others_wait=False)
    parts.failed(parts.pop(), LostAnswer("the connection broke"), others_wait=False)
    assert not parts.pop()
    assert isinstance(parts.verdicts[id(unit)], ValueError)


def test_the_first_retry_is_at_once_and_each_later_one_after_longer_until_something_is_written() -> None:
    parts = Parts(units(1), set())
    pauses = [parts.pause() for _ in range(12)]
    assert pauses[:4] == [0.0, 0.01, 0.02, 0.04]
    assert pauses[-1] == RETRY_SECONDS_MAX
    parts.written(parts.pop(), [YES])
    assert parts.pause() == 0.0
