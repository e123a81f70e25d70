"""Files, mappings and classes of others: what is read, and what is refused by name."""

from __future__ import annotations

import json
import sys
import types
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import statemachine as theirs

from perdure.errors import SchemeError
from perdure.schemes.declared import Declared
from perdure.schemes.draft import Draft
from perdure.schemes.form import Handler, Scheme, Timer
from perdure.schemes.reading import read


def scheme_of(draft: Draft) -> Scheme:
    class X(Declared, scheme=draft):
        ready: bool = False
        manager: str = ""

        def ring(self) -> None: ...

    return X.__perdure__.scheme


def file(tmp_path: Path, text: str, name: str = "x.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def scxml(tmp_path: Path, inside: str, head: str = "") -> Path:
    text = f'<scxml xmlns="http://www.w3.org/2005/07/scxml" xmlns:p="urn:perdure:scheme" {head}>{inside}</scxml>'
    return file(tmp_path, text, "x.scxml")


FULL = """
name: full
on_crash: resume
parameters:
  author: str
  days: {type: int, default: 3}
  since: {type: date | None, default: 2026-01-31}
  tags: {type: "list[str]", default: [a]}
  note: {type: str, default: "", temporary: true}
commands:
  go: {by: [author, manager], reverse: yes, parameters: {comment: {type: str, default: ok}}}
timers:
  stale: {after: 1d 2h, keep: true}
  daily: {at: 10:30, tz: Europe/Berlin}
  hourly: {every: 3600}
on_error: {a: {ConnectionError: 3, ValueError: null, "*": c}}
states:
  a:
    initial: true
    title: The first
    enter: ring
    exit: [ring]
    transitions:
      - {event: go, target: b, cond: "!ready ^ days > 2", unless: [ready], before: ring, on: [ring], after: ring}
      - {event: stale daily hourly, target: c}
  b:
    transitions:
      - {event: done.state.b, target: c}
      - {event: nag, internal: true, on: ring}
    states:
      b1: {initial: true, transitions: [{target: b2, cond: ready}, {event: on, target: b2}]}
      b2: {final: true}
  c: {final: true}
"""


def test_a_document(tmp_path: Path) -> None:
    scheme = scheme_of(read(file(tmp_path, FULL)))
    assert (scheme.name, scheme.on_crash) == ("full", "resume")
    first = scheme.state("a")
    assert (first.title, first.enter, first.exit) == ("The first", ("ring",), ("ring",))
    assert first.on_error == (
        Handler(error="ConnectionError", retry=3),
        Handler(error="ValueError", ignore=True),
        Handler(error="*", to="c"),
    )
    (go,) = scheme.offers("a")["go"]
    assert (go.by, go.reverse, go.cond) == ("author or manager", True, "(not ready and days > 2) and (not ready)")
    assert (go.before, go.on, go.after) == (("ring",), ("ring",), ("ring",))
    assert {edge.name: edge.timer for edge in scheme.timers("a")} == {
        "stale": Timer(after=93_600_000_000, keep=True),
        "daily": Timer(at="10:30", tz="Europe/Berlin"),
        "hourly": Timer(every=3_600_000_000),
    }
    command = scheme.command("go")
    assert command is not None
    assert [(p.name, p.hint, p.default) for p in command.parameters] == [("comment", str, "ok")]
    author, days, since, tags, note, *_ = scheme.parameters
    assert (author.hint, author.required, days.default, note.temporary) == (str, True, 3, True)
    assert (since.hint, since.default) == (date | None, date(2026, 1, 31))
    assert (tags.hint, tags.value()) == (list[str], ["a"])
    assert tags.value() is not tags.value()
    assert [(edge.target, edge.cond) for edge in scheme.autos("b1")] == [("b2", "ready")]
    assert [edge.target for edge in scheme.autos("b2")] == ["c"]
    assert list(scheme.offers("b1")) == ["on", "nag"]  # a word, not a truth value
    assert scheme.offers("b1")["nag"][0].internal


def test_a_document_of_another_tool_stands_under_machine_unchanged(tmp_path: Path) -> None:
    theirs_ = {
        "name": "order",
        "description": "as it is",
        "datamodel": {"amount": 0},
        "states": {
            "new": {
                "initial": True,
                "enter": [{"send": {"event": "late", "delay": "3s"}}],
                "exit": {"cancel": {"sendid": "x"}},
                "transitions": [
                    {"event": "pay", "target": "paid", "cond": ["amount"]},
                    {"event": "late", "target": "gone"},
                ],
            },
            "paid": {"final": True},
            "gone": {"final": True},
        },
    }
    path = file(tmp_path, json.dumps({"machine": theirs_, "settable": ["new"], "timers": {}}), "x.json")
    scheme = scheme_of(read(path))
    assert scheme.state("new").settable
    assert scheme.name == "order"
    assert [edge.timer for edge in scheme.timers("new")] == [Timer(after=3_000_000)]
    assert [(p.name, p.hint, p.default) for p in scheme.parameters][:1] == [("amount", int, 0)]


GO = "states: {a: {initial: true, transitions: [{event: go, target: b}]}, b: {final: true}}\n"

REFUSED = [
    ("- a\n", "holds list, not a mapping"),
    ("{", "is not YAML"),
    ("states: {a: {parallel: true}}", "the state 'a' has parallel regions"),
    ("states: {a: {initial: true, history: {h: {}}}}", "'h' of the state 'a' is a history state"),
    ("states: {a: {initial: true, invoke: {src: x}}}", "the state 'a' invokes something"),
    ("states: {a: {initial: true, donedata: {content: x}}}", "has donedata, which nobody would read"),
    ("states: {a: {initial: true, enter: {script: x}}}", "write the name of a function"),
    ("states: {a: {initial: true, entry: x}}", "the state 'a' has 'entry', which means nothing there"),
    ("states: {a: {initial: maybe}}", "initial of the state 'a' is 'maybe'; write true or false"),
    ("states: {a: {initial: true, transitions: [{event: '*', target: a}]}}", "is for '*'; name the event"),
    ("states: {a: {initial: true, transitions: [{event: go, target: b c}]}}", "(to b c) has parallel regions"),
    ("states: {a: {initial: true, transitions: [{event: done.state.x, target: a}]}}", "only 'a' itself can say"),
    (GO + "settable: [c]", "settable speaks of 'c', which is no state"),
    (GO + "timers: {late: 3d}", "timers speaks of 'late', which is no event"),
    (GO + "timers: {go: 3 days}", "'3 days' is not a duration; write '3d'"),
    (GO + "timers: {go: {in: 3d}}", "the timer 'go' has 'in', which means nothing there"),
    (GO + "commands: {go: {for: x}}", "the command 'go' has 'for', which means nothing there"),
    (GO + "commands: {go: {parameters: {actor: str}}}", "has a parameter 'actor', which is what execute() calls"),
    (GO + "parameters: {x: {type: os.system}}", "the type of 'x' is 'os.system', which is none that a file may name"),
    (GO + "parameters: {x: {type: int, default: three}}", "the default of 'x' is 'three': Expected `int`, got `str`"),
    (GO + "on_error: {a: {ValueError: 1.5}}", "give a number of retries, the name of a state, or null"),
    (GO + "colour: red", "has 'colour', which means nothing there"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_a_document_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SchemeError) as refused:
        scheme_of(read(file(tmp_path, text)))
    assert said in str(refused.value)


def test_yaml_makes_nothing_but_values(tmp_path: Path) -> None:
    with pytest.raises(SchemeError, match="is not YAML"):
        read(file(tmp_path, "states: !!python/object/apply:os.system [echo]"))


def test_yaml_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(SchemeError, match=r"pip install 'perdure\[yaml\]', or write JSON"):
        read(file(tmp_path, GO))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SchemeError, match="cannot be read"):
        read(tmp_path / "no.yaml")
    with pytest.raises(SchemeError, match=r"ends in '\.txt'; a scheme is \.yaml"):
        read(file(tmp_path, "", "x.txt"))
    with pytest.raises(SchemeError, match="is not JSON"):
        read(file(tmp_path, "{", "x.json"))


def test_functions_from_a_module(tmp_path: Path) -> None:
    module = types.ModuleType("deeds")
    exec("async def on_enter_b(self): self.seen = True\ndef _hidden(self): ...", module.__dict__)

    class X(Declared, scheme=read(file(tmp_path, GO), actions=module)):
        seen: bool = False

    assert X.__perdure__.scheme.state("b").enter == ("on_enter_b",)
    assert X.__perdure__.scheme.name == "X"
    assert X.__perdure__.is_async("on_enter_b")
    with pytest.raises(SchemeError, match=r"has states of its own \(c, …\) and scheme=; leave one"):

        class Y(Declared, scheme=read(file(tmp_path, GO))):
            from perdure.schemes.grammar import State

            c = State(initial=True)


def test_scxml(tmp_path: Path) -> None:
    inside = """
      <datamodel><data id="days" expr="3"/><data id="who" expr="'ann'"/></datamodel>
      <final id="end"/>
      <state id="work">
        <initial><transition target="two"/></initial>
        <onentry><p:action name="ring"/><send event="late" delay="2s" p:keep="true"/></onentry>
        <onexit><cancel sendid="x"/></onexit>
        <state id="one"><transition event="a b" target="two" cond="days &gt; 2 &amp;&amp; !ready"/></state>
        <state id="two"><transition event="c" target="one" type="internal"/><transition event="d" p:by="who"/></state>
        <final id="three"/>
        <transition event="late" target="end"/>
        <transition event="inner" target="three" type="internal"/>
        <transition event="done.state.work" target="end"/>
      </state>
    """
    scheme = scheme_of(read(scxml(tmp_path, inside, 'initial="work"')))
    assert scheme.initial == "two"
    assert [(p.name, p.default) for p in scheme.parameters][:2] == [("days", 3), ("who", "ann")]
    assert list(scheme.offers("one")) == ["a", "b", "inner"]
    assert scheme.offers("one")["a"][0].cond == "days > 2 and (not ready)"
    (stay,) = scheme.offers("two")["d"]
    assert (stay.internal, stay.by) == (True, "who")
    assert [edge.timer for edge in scheme.timers("two")] == [Timer(after=2_000_000, keep=True)]
    assert [edge.target for edge in scheme.autos("three")] == ["end"]
    assert scheme.entering("two") == ("ring",)
    (inner,) = scheme.offers("one")["inner"]
    assert scheme.moves(inner).all == ()  # the group is not left


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("<parallel id='a'/>", "the state 'a' has parallel regions"),
        ("<state id='a'><history id='h'/></state>", "'h' is a history state"),
        ("<state id='a'><invoke src='x'/></state>", "the state 'a' invokes something"),
        ("<state id='a'><onentry><script>x</script></onentry></state>", "has <script>; what it does belongs in code"),
        ("<state id='a'><donedata/></state>", "has <donedata>, which a scheme has no use for"),
        ("<state id='a'><transition event='*' target='a'/></state>", "is for '*'; name the event"),
        ("<state id='a'><transition event='x' target='a b'/></state>", "has parallel regions"),
        ("<datamodel><data id='x' expr='f()'/></datamodel>", "'x' begins as 'f()', which is no constant"),
    ],
)
def test_scxml_is_refused(inside: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SchemeError) as refused:
        read(scxml(tmp_path, inside))
    assert said in str(refused.value)


def test_xml_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SchemeError, match="is not XML"):
        read(file(tmp_path, "<scxml", "x.scxml"))
    with pytest.raises(SchemeError, match="begins with <html>; an SCXML document begins with <scxml>"):
        read(file(tmp_path, "<html/>", "x.xml"))
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><scxml name="&b;"/>'
    with pytest.raises(SchemeError, match="declares a document type or entities"):
        read(file(tmp_path, bomb, "x.scxml"))


def test_a_configuration_of_transitions() -> None:
    config: dict[str, Any] = {
        "states": [
            {"name": "a", "on_enter": "ring", "on_exit": ["ring"], "label": "The first"},
            {
                "name": "w",
                "initial": "one",
                "children": ["one", {"name": "two", "final": True}],
                "transitions": [["step", "one", "two"]],
            },
            {"name": "z", "final": True},
        ],
        "initial": "a",
        "after_state_change": "ring",
        "auto_transitions": False,
        "transitions": [
            {"trigger": "go", "source": "a", "dest": "w", "conditions": ["ready", "manager"], "unless": "ready"},
            {"trigger": "again", "source": ["a", "w_one"], "dest": "="},
            {"trigger": "quiet", "source": "a", "dest": None, "before": "ring"},
            {"trigger": "stop", "source": "w", "dest": "z"},
        ],
    }
    scheme = scheme_of(read(config))
    assert [state.name for state in scheme.states] == ["a", "w_one", "w_two", "z"]
    assert (scheme.state("a").title, scheme.state("a").enter, scheme.state("a").exit) == (
        "The first",
        ("ring",),
        ("ring",),
    )
    (go,) = scheme.offers("a")["go"]
    assert (go.target, go.cond, go.after) == ("w_one", "ready and manager and (not ready)", ("ring",))
    assert scheme.offers("a")["quiet"][0].internal
    assert not scheme.offers("a")["again"][0].internal
    assert [edge.target for edge in scheme.offers("w_one")["step"]] == ["w_two"]
    assert [edge.target for edge in scheme.offers("w_two")["stop"]] == ["z"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"states": [{"name": "a", "parallel": ["x"]}]}, "the state 'a' has parallel regions"),
        ({"states": [{"name": "a", "initial": ["x", "y"], "children": ["x", "y"]}]}, "has parallel regions"),
        ({"states": [{"name": "a", "timeout": 3}]}, "the state 'a' has 'timeout', which means nothing there"),
        ({"states": ["a"], "transitions": [["go", "a"]]}, "the transition 'go' has no dest"),
        (
            {"states": ["a"], "transitions": [{"trigger": "go", "source": "a", "dest": "a", "prepare": "x"}]},
            "'prepare'",
        ),
    ],
)
def test_a_configuration_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemeError) as refused:
        read(config)
    assert said in str(refused.value)


class Chart(theirs.StateChart):
    """Written for that library."""

    amount: int = 3
    limit = 10

    class work(theirs.State.Compound):
        one = theirs.State("Number one", initial=True)
        two = theirs.State(final=True)
        step = one.to(two, cond="small ^ !late", unless="late", on="ring")

    a = theirs.State(initial=True)
    z = theirs.State(final=True)
    go = a.to(work)
    done_state_work = work.to(z)
    a.to(z, cond="late")

    @a.to(z)
    def leave(self, comment: str = "") -> None:
        self.model.amount += 1

    @property
    def small(self) -> bool:
        return self.amount < self.limit

    def late(self) -> bool:
        return False

    def ring(self) -> None: ...

    @go.before
    def first(self) -> None: ...

    @z.enter
    def arrive(self) -> None: ...


def test_a_class_of_python_statemachine() -> None:
    class X(Declared, scheme=read(Chart, settable=["a"], timers={"go": timedelta(days=1)})):
        pass

    declaration = X.__perdure__
    scheme = declaration.scheme
    assert scheme.name == "Chart"
    assert [(p.name, p.hint, p.default) for p in scheme.parameters] == [("amount", int, 3)]
    assert scheme.state("one").title == "Number one"
    assert scheme.state("two").title == ""
    (step,) = scheme.offers("one")["step"]
    assert (step.cond, step.on) == ("(small and (not late)) and (not late)", ("ring",))
    (leave,) = scheme.offers("a")["leave"]
    assert leave.on == ("on_leave",)
    command = scheme.command("leave")
    assert command is not None
    assert [p.name for p in command.parameters] == ["comment"]
    assert [edge.target for edge in scheme.autos("two")] == ["z"]
    (go,) = scheme.timers("a")
    assert (go.timer, go.before) == (Timer(after=86_400_000_000), ("first",))
    assert scheme.state("z").enter == ("arrive",)
    one = declaration.make({})
    assert declaration.call(one, "small", {}) is True
    declaration.call(one, "on_leave", {"comment": "", "actor": None})
    assert one.amount == 4


def test_charts_that_cannot_be_durable() -> None:
    class Parallel(theirs.StateChart):
        class war(theirs.State.Parallel):
            class one(theirs.State.Compound):
                a = theirs.State(initial=True)
                b = theirs.State(final=True)
                go = a.to(b)

            class two(theirs.State.Compound):
                c = theirs.State(initial=True)
                d = theirs.State(final=True)
                stop = c.to(d)

    class Validated(theirs.StateChart):
        a = theirs.State(initial=True)
        b = theirs.State(final=True)
        go = a.to(b, validators="check")

        def check(self) -> None: ...

    with pytest.raises(SchemeError, match="the state 'war' has parallel regions"):
        read(Parallel)
    with pytest.raises(SchemeError, match="has validators, which refuse by raising"):
        read(Validated)
    with pytest.raises(SchemeError, match=r"is no class of python-statemachine; write class int\(Process\)"):
        read(int)
