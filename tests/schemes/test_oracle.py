"""Random charts, run by python-statemachine's engine and walked by our form: the same states, the same callbacks.

The oracle knows nothing of ours; what it does is the meaning of the notation.
"""

from __future__ import annotations

import asyncio
from typing import Any

import statemachine as theirs
from hypothesis import assume, event, given, note, settings
from hypothesis import strategies as st
from statemachine.exceptions import InvalidDefinition

from perdure.errors import SchemeError
from perdure.schemes.declared import Declared
from perdure.schemes.reading import read
from tests.effort import by_effort
from tests.schemes.walk import Walk

FLAT = ("a", "b", "c", "d")
INSIDE = ("p", "q", "r")  # of the group g; r is final there
DEEP = ("s", "t")  # of the group h in it
FLAGS = ("x", "y")
EVENTS = ("one", "two", "three")

edges = st.tuples(
    st.sampled_from(("a", "b", "p", "q", "g", "s", "t", "h", "s", "t")),
    st.sampled_from((*FLAT, *INSIDE, *DEEP, "g", "h")),
    st.sampled_from(EVENTS),
    st.sampled_from((None, *FLAGS, "not x", "x and y")),
    st.booleans(),
)
ORDER = ("a", "p", "s", "t", "q", "r", "b", "c", "d")
autos = st.tuples(st.sampled_from(ORDER[:-1]), st.sampled_from(ORDER), st.sampled_from(FLAGS))


def chart(wanted: list[Any], free: list[Any], flags: dict[str, bool]) -> Any:
    """A class of theirs. Every state is reached from ``a`` and leads to ``d``: neither side refuses it for that."""
    states = {name: theirs.State(initial=name == "a", final=name == "d") for name in FLAT}
    deep = {name: theirs.State(initial=name == "s") for name in DEEP}
    inner = type(theirs.State.Compound)("h", (theirs.State.Compound,), dict(deep))
    children = {name: theirs.State(initial=name == "p", final=name == "r") for name in INSIDE}
    group = type(theirs.State.Compound)("g", (theirs.State.Compound,), {**children, "h": inner})
    every = {**states, **children, **deep, "g": group, "h": inner}
    namespace: dict[str, Any] = {**states, "g": group}
    joined: dict[str, Any] = {}

    def add(event: str, made: Any) -> None:
        joined[event] = joined[event] | made if event in joined else made

    for source, target, name, cond, internal in wanted:
        stays = internal and source == target and source in FLAT  # in a group they enter the group again, unleft
        add(name, every[source].to(every[target], internal=stays, **({"cond": cond} if cond else {})))
    for source, target, cond in free:
        every[source].to(every[target], cond=cond)
    for name in ("b", "c", "q", "r", "g", "t", "h"):
        add(f"to_{name}", states["a"].to(every[name]))
    add("to_h", children["p"].to(inner))
    for name in ("b", "c", "g"):
        add("leave", every[name].to(states["d"]))
    add("leave", states["a"].to(states["d"]))
    namespace |= joined
    namespace["done_state_g"] = group.to(states["c"])
    for name in every:
        for moment in ("enter", "exit"):
            namespace[f"on_{moment}_{name}"] = _log(f"{moment} {name}")
    for name in FLAGS:
        namespace[name] = _flag(flags[name])
    # Else that library enters a state again on an internal transition to itself, without having left it.
    namespace["enable_self_transition_entries"] = False
    return type(theirs.StateChart)("Chart", (theirs.StateChart,), namespace)


def _log(text: str) -> Any:
    def log(self: Any) -> None:
        self.model.log.append(text)

    return log


def _flag(value: bool) -> Any:
    def holds(self: Any) -> bool:
        return value

    return holds


class Model:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.state: Any = None


def ordered(names: list[tuple[str, str]]) -> bool:
    """Automatic edges only lead on: otherwise neither engine would come to rest."""
    return all(ORDER.index(source) < ORDER.index(target) for source, target in names)


@settings(max_examples=by_effort(60, 250, 2500), deadline=None)
@given(
    st.lists(edges, min_size=3, max_size=8),
    st.lists(autos, max_size=2),
    st.fixed_dictionaries({name: st.booleans() for name in FLAGS}),
    st.sampled_from(("to_g", "to_h", "to_t", "to_q", "to_r", "to_b")),
    st.lists(st.sampled_from((*EVENTS, *EVENTS, "to_h", "leave")), min_size=2, max_size=6),
)
def test_the_form_does_what_their_engine_does(
    wanted: list[Any], free: list[Any], flags: dict[str, bool], first: str, sent: list[str]
) -> None:
    assume(ordered([(source, target) for source, target, _ in free]))
    try:
        cls = chart(wanted, free, flags)
    except InvalidDefinition:
        event("refused by their library")
        assume(False)
    try:

        class Ours(Declared, scheme=read(cls)):
            log: list[str]

    except SchemeError as refused:
        # We refuse what can never be taken; they do not.
        other = [problem for problem in refused.problems if "is never taken" not in problem]
        if other:
            raise
        event("refused by us")
        assume(False)
    event("run")
    model = Model()
    machine = cls(model)
    walk = Walk(Ours.__perdure__, log=[])

    async def go() -> None:
        await walk.start()
        for name in ("start", first, *sent):
            if name != "start" and walk.at != "d":
                machine.send(name)
                await walk.order(name)
            leaves = [state.id for state in machine.configuration if not state.is_compound]
            note(f"{name}: {leaves} {walk.at}")
            assert leaves == [walk.at]
            assert [one for one in model.log if one != "exit d"] == walk.instance.log

    asyncio.run(go())
