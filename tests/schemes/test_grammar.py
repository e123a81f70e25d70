"""Schemes as classes: what each form of the grammar means."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, time, timedelta
from typing import Any, ClassVar

import pytest

from perdure.errors import SchemeError
from perdure.schemes.declared import Declared, Temporary, declaration_of
from perdure.schemes.form import Handler, Moves, Scheme, Timer
from perdure.schemes.grammar import Command, Order, State
from tests.schemes.walk import Walk


class Vacation(Declared):
    kind: ClassVar[str] = "not a parameter"
    author: str
    days: int = 0
    tags: list[str] = dataclasses.field(default_factory=list)
    note: Temporary[str] = "-"
    draft = State("A draft", initial=True, settable=True)
    review = State(settable=True)
    booking = State(on_error={ConnectionError: 3, "ValueError": None, "*": "review"})
    approved = State(final=True)
    refused = State(final=True)
    submit = draft.to(review, by="author")
    refuse = review.to(refused, by=["manager", "author"], unless="urgent")
    stale = review.to(review, after=timedelta(days=3), keep=True)
    booked = booking.to(approved, cond="days > 0", auto=True) | booking.to(refused, auto=True)

    @review.to(booking, by="manager", cond=["urgent", "days"])
    async def approve(self, comment: str = "", *, rush: bool = False, actor: str = "") -> None:
        self.note = f"{comment} {rush} {actor}"

    async def manager(self, actor: str) -> bool:
        return actor == "bob"

    @property
    def urgent(self) -> bool:
        return self.days > 1

    @staticmethod
    def on_exit_draft(event: str, target: str) -> None:
        assert (event, target) == ("submit", "review")


SCHEME: Scheme = Vacation.__perdure__.scheme


def edge(name: str, trigger: str = "command") -> Any:
    return next(one for one in SCHEME.transitions if (one.name, one.trigger) == (name, trigger))


def test_states() -> None:
    assert [state.name for state in SCHEME.states] == ["draft", "review", "booking", "approved", "refused"]
    assert SCHEME.initial == "draft"
    assert SCHEME.state("draft").title == "A draft"
    assert [state.name for state in SCHEME.states if state.settable] == ["draft", "review"]
    assert [state.name for state in SCHEME.states if state.final] == ["approved", "refused"]
    assert SCHEME.state("booking").on_error == (
        Handler(error="ConnectionError", retry=3),
        Handler(error="ValueError", ignore=True),
        Handler(error="*", to="review"),
    )


def test_parameters_are_the_annotated_attributes() -> None:
    assert [parameter.name for parameter in SCHEME.parameters] == ["author", "days", "tags", "note"]
    author, days, tags, note = SCHEME.parameters
    assert (author.required, author.hint) == (True, str)
    assert (days.required, days.default) == (False, 0)
    assert tags.value() == []
    assert tags.value() is not tags.value()
    assert (note.temporary, note.hint, note.default) == (True, str, "-")


def test_an_instance_holds_parameters_and_gives_the_persistent_ones() -> None:
    one = Vacation(author="ann")
    assert (one.author, one.days, one.tags, one.note) == ("ann", 0, [], "-")
    one.note = "gone after the burst"
    assert Vacation.__perdure__.values(one) == {"author": "ann", "days": 0, "tags": []}
    assert one == Vacation(author="ann", note="gone after the burst") != Vacation(author="bob")
    with pytest.raises(TypeError, match="needs the parameter 'author'; give author="):
        Vacation(days=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="has no parameter 'day'; it has: author, days, note, tags"):
        Vacation(author="ann", day=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_what_a_transition_says() -> None:
    assert (edge("submit").by, edge("submit").cond) == ("author", "")
    assert edge("refuse").by == "manager or author"
    assert edge("refuse").cond == "not urgent"
    assert edge("approve").cond == "urgent and days"
    assert edge("stale", "timer").timer == Timer(after=3 * 86_400_000_000, keep=True)
    assert [(one.cond, one.target) for one in SCHEME.autos("booking")] == [("days > 0", "approved"), ("", "refused")]


def test_commands_have_the_parameters_of_their_function() -> None:
    command = SCHEME.command("approve")
    assert command is not None
    assert [(p.name, p.hint, p.default) for p in command.parameters] == [("comment", str, ""), ("rush", bool, False)]
    assert SCHEME.command("stale") is None
    assert list(SCHEME.offers("review")) == ["refuse", "approve"]
    assert SCHEME.offers("approved") == {}


def test_an_order_is_a_command_with_parameters() -> None:
    order = Vacation.approve("ok", rush=True)
    assert isinstance(order, Order)
    assert (order.name, order.parameters) == ("approve", {"comment": "ok", "rush": True})
    assert repr(order) == "approve(comment='ok', rush=True)"
    assert Vacation.approve().parameters == {}
    assert Vacation.approve.parameters == Vacation.__perdure__.scheme.commands[-1].parameters
    assert (Vacation.submit.name, Vacation.approve.name, Vacation.draft.name) == ("submit", "approve", "draft")
    with pytest.raises(TypeError, match="the command approve: got an unexpected keyword argument 'komment'"):
        Vacation.approve(komment="ok")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_a_walk() -> None:
    walk = Walk(Vacation.__perdure__, author="ann", days=2)
    await walk.start()
    assert not await walk.order("submit", actor="bob")
    assert await walk.order("submit", actor="ann")
    assert not await walk.order("refuse", actor="ann")  # urgent
    assert await walk.order("approve", actor="bob", comment="ok", rush=True)
    assert walk.at == "approved"
    assert walk.instance.note == "ok True bob"


def test_after_a_crash_it_answers_where_a_command_or_timer_leads_on() -> None:
    assert [state.name for state in SCHEME.states if SCHEME.answers(state.name)] == ["draft", "review"]


def test_clocks() -> None:
    assert SCHEME.clocks("review").arm == (("stale", Timer(after=259_200_000_000, keep=True)),)
    kept = SCHEME.clocks("review", frozenset({"stale", "other"}))
    assert (kept.keep, kept.arm, kept.drop) == (("stale",), (), ("other",))
    assert SCHEME.clocks("booking", frozenset({"stale"})).drop == ("stale",)


def test_decorators_of_the_grammar() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, on="ring")

        @go.before
        def first(self) -> None: ...

        @go.on
        def second(self) -> None: ...

        @go.after
        def third(self) -> None: ...

        @go.cond
        def ready(self) -> bool:
            return True

        @go.unless
        def tired(self) -> bool:
            return False

        @a.exit
        def leave(self) -> None: ...

        @b.enter
        def arrive(self) -> None: ...

        def ring(self) -> None: ...
        def on_go(self) -> None: ...
        def before_transition(self) -> None: ...
        def after_transition(self) -> None: ...
        def on_enter_state(self) -> None: ...
        def on_enter_b(self) -> None: ...

    scheme = X.__perdure__.scheme
    (go,) = scheme.transitions
    assert go.cond == "ready and (not tired)"
    assert scheme.moves(go) == Moves(
        leave=("before_transition", "first", "leave"),
        on=("ring", "second", "on_go"),
        enter=("on_enter_state", "arrive", "on_enter_b", "third", "after_transition"),
    )
    assert scheme.entering("a") == ("on_enter_state",)


def test_functions_without_names_get_one() -> None:
    class X(Declared):
        days: int = 0
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b, cond=lambda self: self.days > 3)

    (go,) = X.__perdure__.scheme.transitions
    assert go.cond == "go_cond"
    assert X.__perdure__.call(X(days=4), "go_cond", {}) is True


def test_more_ways_to_write_transitions() -> None:
    class X(Declared):
        a = State(initial=True)
        b = State()
        c = State(final=True)
        one = a.to(b)
        back = b.to(a, event="undo revert")
        again = b.to.itself()
        quiet = b.to.itself(internal=True)
        finish = c.from_(b)
        either = one | finish

    scheme = X.__perdure__.scheme
    assert list(scheme.offers("a")) == ["one", "either"]
    assert list(scheme.offers("b")) == ["undo", "revert", "back", "again", "quiet", "finish", "either"]
    (quiet,) = scheme.offers("b")["quiet"]
    assert quiet.internal
    assert not scheme.offers("b")["again"][0].internal


def test_sub_states_are_flat() -> None:
    class X(Declared):
        ok: bool = False
        start_ = State(initial=True)

        class work(State.Compound):
            class inner(State.Compound, initial=True):
                one = State(initial=True)
                two = State()
                next = one.to(two)

            done = State(final=True)
            finish = inner.to(done)
            skip = inner.to.itself(internal=True)

            def on_enter_inner(self) -> None: ...

        end = State(final=True)
        go = start_.to(work)
        abort = work.to(end, by="ok") | start_.to(end)
        done_state_work = work.to(end, cond="ok") | work.to(start_)

        def on_enter_work(self) -> None: ...
        def on_exit_work(self) -> None: ...
        def on_exit_inner(self) -> None: ...
        def on_enter_one(self) -> None: ...
        def on_exit_one(self) -> None: ...

    scheme = X.__perdure__.scheme
    assert [(state.name, state.groups, state.final) for state in scheme.states] == [
        ("start_", (), False),
        ("one", ("work", "inner"), False),
        ("two", ("work", "inner"), False),
        ("done", ("work",), False),
        ("end", (), True),
    ]
    assert scheme.state("work").name == "one"
    assert [(edge.name, edge.target) for edge in scheme.exits("one")] == [
        ("next", "two"), ("finish", "done"), ("skip", "one"), ("abort", "end"),
    ]  # fmt: skip
    assert [(edge.cond, edge.target) for edge in scheme.autos("done")] == [("ok", "end"), ("", "start_")]
    assert scheme.autos("two") == ()
    (go,) = scheme.offers("start_")["go"]
    assert scheme.moves(go).enter == ("on_enter_work", "on_enter_inner", "on_enter_one")
    assert scheme.entering("one") == ("on_enter_work", "on_enter_inner", "on_enter_one")
    (next_,) = scheme.offers("one")["next"]
    assert scheme.moves(next_).all == ("on_exit_one",)
    (abort,) = scheme.offers("one")["abort"]
    assert scheme.moves(abort).all == ("on_exit_one", "on_exit_inner", "on_exit_work")
    (finish,) = scheme.offers("two")["finish"]
    assert scheme.moves(finish).all == ("on_exit_inner",)


def test_an_inner_transition_goes_before_one_of_the_group_and_hides_it_if_it_is_always_taken() -> None:
    class X(Declared):
        ok: bool = False

        class work(State.Compound, initial=True):
            one = State(initial=True)
            two = State()
            three = State()
            step = one.to(two, cond="ok") | two.to(three)

        end = State(final=True)
        step = work.to(end)

    scheme = X.__perdure__.scheme
    assert [edge.target for edge in scheme.offers("one")["step"]] == ["two", "end"]
    assert [edge.target for edge in scheme.offers("two")["step"]] == ["three"]
    assert [edge.target for edge in scheme.offers("three")["step"]] == ["end"]


def test_a_class_takes_over_what_its_base_has() -> None:
    class Base(Declared):
        author: str
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b)

        def on_enter_b(self) -> None: ...

    class Longer(Base):
        reason: str = ""
        c = State(final=True)
        leave = Base.a.to(c)

    class Other(Base):
        pass

    assert list(Longer.__perdure__.scheme.offers("a")) == ["go", "leave"]
    assert [parameter.name for parameter in Longer.__perdure__.scheme.parameters] == ["author", "reason"]
    assert Longer.__perdure__.scheme.state("b").enter == ("on_enter_b",)
    assert list(Other.__perdure__.scheme.offers("a")) == ["go"]  # what another subclass added is not its own
    assert list(Base.__perdure__.scheme.offers("a")) == ["go"]


def test_times() -> None:
    class X(Declared):
        deadline: datetime | None = None
        a = State(initial=True)
        b = State(final=True)
        one = a.to(b, every=90)
        two = a.to(b, at=datetime(2026, 12, 24, 18, tzinfo=UTC))
        three = a.to(b, at=time(9, 30), tz="Europe/Berlin")
        four = a.to(b, at="deadline", keep=True)

    assert [edge.timer for edge in X.__perdure__.scheme.timers("a")] == [
        Timer(every=90_000_000),
        Timer(at="2026-12-24T18:00:00+00:00"),
        Timer(at="09:30:00", tz="Europe/Berlin"),
        Timer(at="deadline", keep=True),
    ]


def test_what_is_no_process_is_refused() -> None:
    class Nothing(Declared):
        author: str

    with pytest.raises(SchemeError, match="has no states; write for example"):
        declaration_of(Nothing)
    with pytest.raises(SchemeError, match=r"is no process; write class int\(Process\)"):
        declaration_of(int)
    with pytest.raises(TypeError, match="Nothing has no states"):
        Nothing(author="ann")
    with pytest.raises(SchemeError, match=r"a\.to\('b'\): give a State"):

        class X(Declared):
            a = State("a", initial=True)
            a.__set_name__(None, "a")
            go = a.to("b")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_name_that_only_the_type_checker_knows_is_said() -> None:
    with pytest.raises(SchemeError, match=r"'Unknown' is not defined.*import what they name"):

        class X(Declared):
            author: Unknown  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
            a = State(initial=True)
            b = State(final=True)
            go = a.to(b)


def test_the_name_is_the_class_or_as_said() -> None:
    class X(Declared, name="vacation"):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b)

        @a.to(b)
        def order(self) -> None: ...

    assert X.__perdure__.scheme.name == "vacation"
    assert Vacation.__perdure__.scheme.name == "Vacation"
    assert isinstance(X.order, Command)
