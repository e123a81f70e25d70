"""What is wrong with a scheme is said when it is made, all at once, with the value and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure.errors import DefinitionError, SchemeError, StateNotFound
from perdure.schemes.declared import Declared, Temporary
from perdure.schemes.grammar import HistoryState, State


def no_initial() -> None:
    class X(Declared):
        a = State()
        b = State(final=True)
        go = a.to(b)


def two_initial() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(initial=True)
        go = a.to(b)
        back = b.to(a)


def unreachable() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        lost = State()
        go = a.to(b)
        leave = lost.to(b)


def dead_end() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State()
        go = a.to(b)


def final_exit() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b)
        back = b.to(a)


def two_automatic() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        c = State(final=True)
        a.to(b)
        a.to(c)


def automatic_behind_otherwise() -> None:
    class X(Declared):
        ready: bool = False
        a = State(initial=True)
        b = State(final=True)
        c = State(final=True)
        a.to(b)
        a.to(c, cond="ready")


def automatic_with_one_condition() -> None:
    class X(Declared):
        ready: bool = False
        a = State(initial=True)
        b = State(final=True)
        c = State(final=True)
        a.to(b, cond="ready")
        a.to(c, cond=" ( ready ) ")
        go = a.to(c)


def command_never_taken() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        c = State(final=True)
        go = a.to(b) | a.to(c, cond="1 > 2")


def round_and_round() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State()
        c = State(final=True)
        go = a.to(c)
        a.to(b)
        b.to(a)


def unknown_actor() -> None:
    class X(Declared):
        author: str
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, by="auther")


def actor_of_automatic() -> None:
    class X(Declared):
        author: str
        a = State(initial=True)
        b = State(final=True)
        a.to(b, by="author")


def unknown_condition() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, cond="reday")


def unknown_action() -> None:
    class X(Declared):
        a = State(initial=True, enter="notify")
        b = State(final=True)
        go = a.to(b)


def action_asks_for_what_nobody_gives() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b)

        def on_enter_b(self, amount: int) -> None: ...


def reserved() -> None:
    class X(Declared):
        id: str
        perdure_at: int = 0
        actor: str = ""
        a = State(initial=True)
        b = State(final=True)
        start = a.to(b)


def command_and_timer() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b) | a.to(b, after=3)


def timer_of_two_times() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, cond="1 > 2", after=3) | a.to(b, after=4)


def timer_with_two_times() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, after=3, every=4)


def timer_without_end() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, every=0)


def bad_zone() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, at="09:30", tz="Europe/Berlni")


def bad_time() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, at="2026-13-01")


def time_of_nothing() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, at="deadline")


def keep_without_clock() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, keep=True)


def automatic_timer() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, auto=True, after=3)


def a_call_in_a_condition() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, cond="open('/etc/passwd')")


def parallel() -> None:
    class X(Declared):
        a = State(initial=True)

        class war(State.Parallel):
            one = State(initial=True)


def history() -> None:
    class X(Declared):
        a = State(initial=True)
        before = HistoryState()


def group_without_initial() -> None:
    class X(Declared):
        class a(State.Compound, initial=True):
            one = State()
            two = State(final=True)
            go = one.to(two)


def settable_group() -> None:
    class X(Declared):
        class a(State.Compound, initial=True, settable=True):
            one = State(initial=True)
            two = State(final=True)
            go = one.to(two)

        done_state_a = a.to(a)


def handler_to_nowhere() -> None:
    class X(Declared):
        a = State(initial=True, on_error={"*": "nowhere"})
        b = State(final=True)
        go = a.to(b)


def shared_default() -> None:
    class X(Declared):
        seen: list[str] = []  # noqa: RUF012
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b)


def temporary_without_default() -> None:
    class X(Declared):
        note: Temporary[str]
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b)


def parameter_and_function() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b)
        ready: Any

        def ready(self) -> bool:  # type: ignore[no-redef]
            return True


CASES: list[tuple[Callable[[], None], list[str]]] = [
    (no_initial, ["no state is initial in the scheme; mark one: a = State(initial=True)"]),
    (two_initial, ["2 states are initial in the scheme: a, b; leave one"]),
    (unreachable, ["nothing reaches the state 'lost'; add a transition to it, or mark it settable=True"]),
    (dead_end, ["nothing leaves the state 'b' and it is not final; mark it final=True"]),
    (final_exit, ["back (b → a) leaves 'b', which is final"]),
    (two_automatic, ["'a' has two automatic exits, to 'b' and 'c', and the second is never taken"]),
    (automatic_behind_otherwise, ["the one to 'b' always holds", "put the one without condition last"]),
    (automatic_with_one_condition, ["two automatic exits", "both hold when (ready)"]),
    (command_never_taken, ["two command 'go' exits", "the one to 'b' always holds"]),
    (round_and_round, ["automatic exits without a condition go round and never end: a → b → a"]),
    (unknown_actor, ["for the actor 'auther'", "did you mean 'author'?", "async def auther(self, actor: str)"]),
    (actor_of_automatic, ["has an actor (author), but nobody orders it; use cond="]),
    (unknown_condition, ["has the condition 'reday', and 'reday' is nothing that it knows"]),
    (unknown_action, ["the state 'a' names the action 'notify', which nobody has defined"]),
    (action_asks_for_what_nobody_gives, ["the action 'on_enter_b' asks for 'amount', which nobody gives"]),
    (
        reserved,
        [
            "the parameter 'id' has a name that the process itself answers to; call it id_",
            "'start'",
            "'perdure_at' begins",
            "call it actor_",
        ],
    ),
    (command_and_timer, ["'go' is a command and a timer; give one of them another name"]),
    (timer_of_two_times, ["the timer 'go' of 'a' is set to two times"]),
    (timer_with_two_times, ["it has after and every; give exactly one"]),
    (timer_without_end, ["every=0 seconds would fire without end"]),
    (bad_zone, ["'Europe/Berlni' is no time zone"]),
    (bad_time, ["at='2026-13-01': month must be in 1..12"]),
    (time_of_nothing, ["the time of go (a → b) names 'deadline', and 'deadline' is nothing that it knows"]),
    (keep_without_clock, ["keep=True keeps a clock, and there is none; give after=, every= or at="]),
    (automatic_timer, ["has auto= and a time; leave one of them"]),
    (a_call_in_a_condition, ["which a scheme's expression may not; write a method and name it"]),
    (parallel, ["the state 'war' has parallel regions, which are not durable yet", "Start a child process"]),
    (history, ["is a history state, which is not durable yet", "Keep the last state in a parameter"]),
    (group_without_initial, ["no state is initial among the sub-states of 'a'"]),
    (settable_group, ["'a' has sub-states and is settable; mark one of its sub-states instead"]),
    (handler_to_nowhere, ["the state 'a' goes to 'nowhere' after *, which is no state"]),
    (shared_default, ["the default of seen is one list for all processes", "field(default_factory=list)"]),
    (temporary_without_default, ["the temporary parameter 'note' needs a default"]),
    (parameter_and_function, ["'ready' is a parameter and a function; give one of them another name"]),
]


@pytest.mark.parametrize(("declare", "said"), CASES, ids=lambda one: getattr(one, "__name__", ""))
def test_refused(declare: Callable[[], None], said: list[str]) -> None:
    with pytest.raises(SchemeError) as refused:
        declare()
    for part in said:
        assert part in str(refused.value)
    assert isinstance(refused.value, DefinitionError)


def test_everything_is_said_at_once() -> None:
    with pytest.raises(SchemeError) as refused:

        class X(Declared):
            boss: str = ""
            a = State(initial=True)
            b = State(final=True)
            lost = State()
            go = a.to(b, by="bos", cond="redy")

    assert len(refused.value.problems) == 3
    assert all(f"\n  - {problem}" in str(refused.value) for problem in refused.value.problems)
    assert "test_checks.py:" in str(refused.value)


def test_a_class_that_is_refused_says_where_it_stands() -> None:
    with pytest.raises(SchemeError, match=r"the scheme 'X' \(.*test_checks\.py:\d+\) cannot be run"):
        no_initial()


def test_a_state_that_is_none() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b)

    with pytest.raises(StateNotFound, match=r"the scheme '.*X' has no state 'c'; it has: a, b"):
        X.__perdure__.scheme.state("c")
