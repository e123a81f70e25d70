"""One scheme, S, in each notation: of the acceptance cases.

    Draft --submit--> Check --auto--> Review --approve--> Booking --auto--> Done
    Review --reject (reverse)--> Draft;  Review --2 s--> Escalated --approve--> Booking

Each state but Escalated has an action on entry; what an action does is none of the scheme's business.
"""

from __future__ import annotations

import json
from typing import Any

import statemachine as theirs
import yaml

from perdure.schemes.declared import Declared
from perdure.schemes.draft import Draft
from perdure.schemes.grammar import State
from perdure.schemes.reading import read


class Actions:
    """What the names of S do: they write down that they ran."""

    ledger: list[str]

    async def on_enter_Draft(self) -> None:
        self.ledger.append("Draft")

    async def on_enter_Check(self) -> None:
        self.ledger.append("Check")

    async def on_enter_Review(self) -> None:
        self.ledger.append("Review")

    async def on_enter_Booking(self, comment: str = "") -> None:
        self.ledger.append(f"Booking {comment}".strip())

    async def on_enter_Done(self) -> None:
        self.ledger.append("Done")

    async def on_approve(self, comment: str = "") -> None:
        self.ledger.append("approve")


class _Actions(Actions, Declared):
    ledger: list[str]
    lets: bool = True


class InPython(_Actions, name="S"):
    """Our own class."""

    Draft = State(initial=True, settable=True)
    Check = State()
    Review = State(settable=True)
    Booking = State()
    Escalated = State()
    Done = State(final=True)
    submit = Draft.to(Check)
    checked = Check.to(Review, auto=True)
    approve = Review.to(Booking, by="ledger") | Escalated.to(Booking, by="ledger")
    booked = Booking.to(Done, auto=True, cond="lets")
    reject = Review.to(Draft, reverse=True)
    overdue = Review.to(Escalated, after=2)


YAML = """
name: S
on_crash: status
states:
  Draft:
    initial: true
    settable: true
    transitions: [{event: submit, target: Check}]
  Check:
    transitions: [{target: Review}]
  Review:
    settable: yes
    transitions:
      - {event: approve, target: Booking, by: ledger}
      - {event: reject, target: Draft, reverse: true}
      - {event: overdue, target: Escalated}
  Booking:
    transitions: [{target: Done, cond: lets}]
  Escalated:
    transitions: [{event: approve, target: Booking, by: ledger}]
  Done: {final: true}
timers: {overdue: 2s}
"""

SCXML = """
<scxml xmlns="http://www.w3.org/2005/07/scxml" xmlns:p="urn:perdure:scheme" version="1.0" initial="Draft" name="S">
  <state id="Draft" p:settable="true"><transition event="submit" target="Check"/></state>
  <state id="Check"><transition target="Review"/></state>
  <state id="Review" p:settable="true">
    <onentry><send event="overdue" delay="2s"/></onentry>
    <transition event="approve" target="Booking" p:by="ledger"/>
    <transition event="reject" target="Draft" p:reverse="true"/>
    <transition event="overdue" target="Escalated"/>
  </state>
  <state id="Booking"><transition target="Done" cond="lets"/></state>
  <state id="Escalated"><transition event="approve" target="Booking" p:by="ledger"/></state>
  <final id="Done"/>
</scxml>
"""

TRANSITIONS: dict[str, Any] = {
    "name": "S",
    "states": ["Draft", "Check", "Review", "Booking", "Escalated", {"name": "Done", "final": True}],
    "initial": "Draft",
    "transitions": [
        {"trigger": "submit", "source": "Draft", "dest": "Check"},
        {"trigger": "checked", "source": "Check", "dest": "Review"},
        {"trigger": "approve", "source": ["Review", "Escalated"], "dest": "Booking"},
        ["booked", "Booking", "Done", "lets"],
        ["reject", "Review", "Draft"],
        ["overdue", "Review", "Escalated"],
    ],
}


class Chart(theirs.StateChart):
    """A class of python-statemachine, which runs there too."""

    lets: bool = True

    Draft = theirs.State(initial=True)
    Check = theirs.State()
    Review = theirs.State()
    Booking = theirs.State()
    Escalated = theirs.State()
    Done = theirs.State(final=True)
    submit = Draft.to(Check)
    Check.to(Review)
    approve = Review.to(Booking) | Escalated.to(Booking)
    Booking.to(Done, cond="lets")
    reject = Review.to(Draft)
    overdue = Review.to(Escalated)


def of_text(tmp_path: Any, name: str, text: str) -> Draft:
    """The draft of a file."""
    path = tmp_path / name
    path.write_text(text)
    return read(path)


def drafts(tmp_path: Any) -> dict[str, Draft]:
    """S as it is read from everywhere but a class of ours."""
    says: Any = {"settable": ["Draft", "Review"], "timers": {"overdue": "2s"}}
    says["commands"] = {"approve": {"by": "ledger"}, "reject": {"reverse": True}}
    return {
        "yaml": of_text(tmp_path, "s.yaml", YAML),
        "json": of_text(tmp_path, "s.json", json.dumps(yaml.safe_load(YAML))),
        "scxml": of_text(tmp_path, "s.scxml", SCXML),
        "transitions": read(TRANSITIONS, auto=["checked", "booked"], **says),
        "python-statemachine": read(Chart, **says),
    }


def classes(tmp_path: Any) -> dict[str, type[Declared]]:
    """S in every notation, as a class with the same functions."""

    def taken(scheme: Draft) -> type[Declared]:
        class FromElsewhere(_Actions, scheme=scheme, name="S"):
            pass

        return FromElsewhere

    return {"python": InPython, **{name: taken(scheme) for name, scheme in drafts(tmp_path).items()}}
