"""Failures: what arrives of every kind of exception, live and replayed alike, and that no user code runs to make it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import msgspec
import pydantic
import pytest
import sqlalchemy as sa
import sqlalchemy.exc
import sqlalchemy.orm
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import StepFailed, StepTimeout, Unserializable, WorkflowFailed
from perdure.serde import Secret, Shape, decode_failure, describe_failure, encode_failure
from perdure.serde.difference import difference
from tests.serde import errors as e
from tests.serde import kinds as k


def raised(fn: Callable[[], object]) -> BaseException:
    try:
        fn()
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def throw(error: BaseException) -> Callable[[], object]:
    def fn() -> object:
        raise error

    return fn


def status_error() -> None:
    response = httpx.Response(404, request=httpx.Request("GET", "https://example.org/a"))
    response.raise_for_status()


REQUEST = httpx.Request("GET", "https://example.org")


def integrity() -> None:
    engine = sa.create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("create table t (id integer primary key, note text)"))
            connection.execute(sa.text("insert into t values (:id, :note)"), {"id": 1, "note": "a"})
            connection.execute(sa.text("insert into t values (:id, :note)"), {"id": 1, "note": "b"})
    finally:
        engine.dispose()


def operational() -> None:
    engine = sa.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("select * from nowhere"))
    finally:
        engine.dispose()


def no_result() -> None:
    engine = sa.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("select 1 where 0")).one()
    finally:
        engine.dispose()


def unique() -> None:
    raise asyncpg.exceptions.PostgresError.new(
        {"S": "ERROR", "C": "23505", "M": "duplicate key", "D": "Key (id)=(1) exists.", "n": "t_pkey", "t": "t"}
    )


def group() -> None:
    raise ExceptionGroup("several", [ValueError(1), ExceptionGroup("inner", [KeyError("a"), TypeError("b")])])


SAME_CLASS: dict[str, Callable[[], object]] = {
    "KeyError": lambda: {}["k"],
    "IndexError": [].pop,
    "AttributeError": lambda: None.x,  # type: ignore[attr-defined]
    "NameError": lambda: nowhere,  # type: ignore[name-defined]  # noqa: F821
    "ZeroDivisionError": lambda: 1 // 0,
    "RecursionError": throw(RecursionError("deep")),
    "AssertionError": throw(AssertionError()),
    "NotImplementedError": throw(NotImplementedError),
    "OSError": lambda: open("/nonexistent/file"),  # noqa: SIM115, PTH123
    "OSError2": lambda: __import__("os").rename("/nonexistent/a", "/nonexistent/b"),
    "ConnectionRefusedError": throw(ConnectionRefusedError(111, "refused")),
    "OSErrorPlain": throw(OSError("text only")),
    "TimeoutError": throw(TimeoutError("late")),
    "asyncio.TimeoutError": throw(TimeoutError()),
    "CancelledError": throw(asyncio.CancelledError("stop")),
    "UnicodeDecodeError": b"\xff".decode,
    "UnicodeEncodeError": lambda: "\xff".encode("ascii"),
    "UnicodeTranslateError": throw(UnicodeTranslateError("abc", 0, 1, "why")),
    "StopIteration": throw(StopIteration(5)),
    "StopAsyncIteration": throw(StopAsyncIteration()),
    "ImportError": lambda: __import__("no_such_module_at_all"),
    "SyntaxError": lambda: compile("a b", "<text>", "exec"),
    "IncompleteReadError": throw(asyncio.IncompleteReadError(b"ab", 5)),
    "JSONDecodeError": lambda: json.loads("{" * 2),
    "CalledProcessError": lambda: subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], check=True),
    "TimeoutExpired": throw(subprocess.TimeoutExpired(["a", "b"], 5.0, b"out")),
    "ExceptionGroup": group,
    "httpx.HTTPStatusError": status_error,
    "httpx.ConnectError": throw(httpx.ConnectError("refused", request=REQUEST)),
    "httpx.ReadTimeout": throw(httpx.ReadTimeout("late", request=REQUEST)),
    "httpx.InvalidURL": throw(httpx.InvalidURL("bad")),
    "IntegrityError": integrity,
    "OperationalError": operational,
    "NoResultFound": no_result,
    "DBAPIError": throw(sa.exc.DBAPIError("select 1", {"a": 1}, ValueError("orig"))),
    "StatementError": throw(sa.exc.StatementError("m", "select 1", None, None)),
    "MultipleResultsFound": throw(sa.exc.MultipleResultsFound("two")),
    "StaleDataError": throw(sqlalchemy.orm.exc.StaleDataError("stale")),
    "UniqueViolationError": unique,
    "InterfaceError": throw(asyncpg.InterfaceError("closed")),
    "msgspec.ValidationError": lambda: msgspec.json.decode(b"1", type=str),
    "Unserializable": lambda: Shape.of(int).encode("x", "args[0]"),
    "WorkflowFailed": throw(WorkflowFailed("no", id="a", status="failed")),
    "StepTimeout": throw(StepTimeout("late")),
    "StepFailed": throw(StepFailed("a.B", "text", "trace")),
    "Simple": throw(e.Simple("a", 1, (2,))),
    "TwoArguments": throw(e.TwoArguments("42", 1999)),
    "NoSuper": throw(e.NoSuper("42", 1999)),
    "KeywordOnly": throw(e.KeywordOnly(code=7)),
    "Slotted": throw(e.Slotted(7)),
    "WithProperty": throw(e.WithProperty(404)),
    "Inner": throw(e.Outer.Inner("x")),
    "Both": throw(e.Both("k")),
    "OwnOSError": throw(e.OwnOSError("/a")),
    "OwnGroup": throw(e.OwnGroup("g", [e.TwoArguments("1", 2)])),
    "Decorated": throw(e.Decorated(3, "d")),
    "HoldsClient": throw(e.HoldsClient("down", e.Client())),
    "SecondFace": throw(e.SecondFace("x")),
    "values": throw(ValueError(k.Line("a"), k.Color.RED, {1: (2,)}, b"x", 1.5)),
    "empty": throw(ValueError()),
}

# Attributes that cannot be stored: they are missing from the copy, and named on screens.
LOST: dict[str, set[str]] = {
    "httpx.HTTPStatusError": {"_request", "response"},
    "httpx.ConnectError": {"_request"},
    "httpx.ReadTimeout": {"_request"},
    "HoldsClient": {"client"},
}


def same(a: BaseException, b: BaseException) -> None:
    """Both copies are alike in all that anyone can see."""
    assert type(a) is type(b)
    assert str(a) == str(b)
    assert repr(a) == repr(b)
    assert difference(a.args, b.args) is None
    assert a.__dict__.keys() == b.__dict__.keys()
    for name, value in a.__dict__.items():
        assert difference(value, b.__dict__[name]) is None, name
    assert getattr(a, "__notes__", []) == getattr(b, "__notes__", [])
    assert a.__suppress_context__ == b.__suppress_context__
    for left, right in ((a.__cause__, b.__cause__), (a.__context__, b.__context__)):
        assert (left is None) == (right is None)
        if left is not None and right is not None:
            same(left, right)
    if isinstance(a, BaseExceptionGroup) and isinstance(b, BaseExceptionGroup):
        assert len(a.exceptions) == len(b.exceptions)
        for left, right in zip(a.exceptions, b.exceptions, strict=True):
            same(left, right)


@pytest.mark.parametrize("name", SAME_CLASS)
def test_the_copy_has_class_text_args_and_attributes(name: str) -> None:
    error = raised(SAME_CLASS[name])
    e.CALLED.clear()
    data = encode_failure(error)
    live, replayed = decode_failure(data), decode_failure(data)
    assert e.CALLED == [], "no constructor and no setter of the user's runs"
    same(live, replayed)
    assert type(live) is type(error)
    assert str(live) == str(error)
    assert live.args == error.args or difference(live.args, error.args) is None
    shown = describe_failure(data)
    assert set(shown.lost) == LOST.get(name, set())
    for key, value in error.__dict__.items():
        if key not in shown.lost:
            assert difference(value, live.__dict__[key]) is None, key
    with pytest.raises(type(error)) as caught:
        raise live
    assert caught.value is live
    assert "".join(traceback.format_exception(live))
    assert live.__traceback__ is not None
    again = decode_failure(encode_failure(replayed, traceback=False))
    assert type(again) is type(error)
    assert str(again) == str(error)


ARRIVES_AS_STEP_FAILED: dict[str, tuple[Callable[[], object], str]] = {
    "pydantic.ValidationError": (lambda: k.Team.model_validate({}), "pydantic_core._pydantic_core.ValidationError"),
    "local": (throw(e.local()), "tests.serde.errors.local.<locals>.Local"),
    "NeedsClient": (throw(e.NeedsClient(e.Client())), "tests.serde.errors.NeedsClient"),
    "Mute": (throw(e.Mute()), "tests.serde.errors.Mute"),
}


@pytest.mark.parametrize("name", ARRIVES_AS_STEP_FAILED)
def test_what_cannot_be_made_without_its_constructor_arrives_as_step_failed(name: str) -> None:
    fn, type_name = ARRIVES_AS_STEP_FAILED[name]
    error = raised(fn)
    data = encode_failure(error)
    live, replayed = decode_failure(data), decode_failure(data)
    same(live, replayed)
    assert type(live) is StepFailed
    assert live.type_name == type_name
    if name != "Mute":
        assert live.message == str(error)
        assert str(live) == f"{type_name}: {error}"
    assert "Traceback (most recent call last):" in live.traceback
    if name == "NeedsClient":
        assert live.__notes__ == ["not stored with the error, because they cannot be encoded: client"]


def test_members_of_built_in_exceptions_are_kept() -> None:
    def copied(name: str) -> Any:
        return decode_failure(encode_failure(raised(SAME_CLASS[name])))

    assert copied("OSError").errno == 2
    assert copied("OSError").filename == "/nonexistent/file"
    assert copied("OSError").strerror == "No such file or directory"
    assert copied("OSError2").filename2 == "/nonexistent/b"
    assert copied("OwnOSError").filename == "/a"
    assert copied("OwnOSError").extra == "/A"
    assert copied("StopIteration").value == 5
    assert copied("UnicodeDecodeError").object == b"\xff"
    assert copied("UnicodeDecodeError").start == 0
    assert copied("UnicodeDecodeError").reason == "invalid start byte"
    assert copied("UnicodeEncodeError").encoding == "ascii"
    assert copied("ImportError").name == "no_such_module_at_all"
    assert copied("SyntaxError").lineno == 1
    assert copied("JSONDecodeError").pos == 1
    assert copied("CalledProcessError").returncode == 3
    assert copied("Slotted").code == 7
    assert copied("WithProperty").status == 404
    assert copied("KeywordOnly").code == 7
    assert copied("IntegrityError").statement == "insert into t values (?, ?)"
    assert copied("IntegrityError").orig.sqlite_errorname == "SQLITE_CONSTRAINT_PRIMARYKEY"
    assert copied("UniqueViolationError").sqlstate == "23505"
    assert copied("UniqueViolationError").constraint_name == "t_pkey"
    assert copied("HoldsClient").region == "eu"
    assert not hasattr(copied("HoldsClient"), "client")
    with pytest.raises(AttributeError):
        _ = copied("Slotted").unset


def test_a_constructor_in_new_is_not_called() -> None:
    error = e.OwnNew("x")
    e.CALLED.clear()
    live = decode_failure(encode_failure(error))
    assert e.CALLED == []
    assert type(live) is e.OwnNew
    assert live.args == error.args


def test_groups_keep_their_members() -> None:
    live = decode_failure(encode_failure(raised(group)))
    assert isinstance(live, ExceptionGroup)
    caught: list[str] = []
    try:
        raise live
    except* KeyError as found:
        caught.append(repr(found.exceptions[0]))
    except* (ValueError, TypeError) as found:
        caught.append(repr(found))
    assert caught == [
        "ExceptionGroup('inner', [KeyError('a')])",
        "ExceptionGroup('several', [ValueError(1), ExceptionGroup('inner', [TypeError('b')])])",
    ]


def test_notes_cause_and_context() -> None:
    def fn() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise e.TwoArguments("1", 2)  # noqa: B904
        except e.TwoArguments as error:
            error.add_note("a note")
            raise ValueError("last") from error

    error = raised(fn)
    live = decode_failure(encode_failure(error))
    assert isinstance(live.__cause__, e.TwoArguments)
    assert live.__cause__.__notes__ == ["a note"]
    assert isinstance(live.__cause__.__context__, KeyError)
    assert live.__suppress_context__
    shown = describe_failure(encode_failure(error))
    assert shown.cause is not None
    assert shown.cause.notes == ("a note",)
    assert shown.cause.context is not None
    assert shown.cause.context.type_name == "KeyError"
    assert "raise KeyError" in shown.cause.context.traceback


def test_suppressed_context_is_not_kept() -> None:
    def fn() -> None:
        try:
            raise KeyError("secret")
        except KeyError:
            raise ValueError("v") from None

    data = encode_failure(raised(fn))
    assert b"secret" not in data
    assert decode_failure(data).__suppress_context__


def test_chains_are_bounded_and_circles_end() -> None:
    first: BaseException = ValueError(0)
    for number in range(1, 100):
        error = ValueError(number)
        error.__cause__ = first
        first = error
    live: BaseException | None = decode_failure(encode_failure(first))
    length = 0
    while live is not None:
        live, length = live.__cause__, length + 1
    assert length == 8
    a, b = ValueError("a"), ValueError("b")
    a.__cause__, b.__context__ = b, a
    a.other = b  # type: ignore[attr-defined]
    same(decode_failure(encode_failure(a)), decode_failure(encode_failure(a)))


def test_an_exit_as_context_is_only_described() -> None:
    def fn() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ValueError("v")  # noqa: B904

    live = decode_failure(encode_failure(raised(fn)))
    assert isinstance(live.__context__, StepFailed)
    assert live.__context__.type_name == "KeyboardInterrupt"


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), BaseExceptionGroup("g", [KeyboardInterrupt()])]
)
def test_exits_are_never_recorded(error: BaseException) -> None:
    with pytest.raises(TypeError, match="never recorded"):
        encode_failure(error)


def test_a_row_never_imports_and_makes_only_exceptions() -> None:
    for name in ("wsgiref.util:FileWrapper", "nowhere:Error", "os:system", "builtins:SystemExit", "builtins:dict"):
        data = msgspec.json.encode({"type": name, "message": "m", "args": ["m"]})
        live = decode_failure(data)
        assert isinstance(live, StepFailed)
        assert live.message == "m"
    assert "wsgiref.util" not in sys.modules


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"message":"m"}', b"\xff"])
def test_garbage_is_undecodable(data: bytes) -> None:
    with pytest.raises(Unserializable):
        decode_failure(data)
    with pytest.raises(Unserializable):
        describe_failure(data)


def test_arguments_that_cannot_be_stored_keep_their_text() -> None:
    live = decode_failure(encode_failure(ValueError("a", e.Client)))
    assert type(live) is ValueError
    assert str(live) == str(ValueError("a", e.Client))
    assert str(decode_failure(encode_failure(ValueError(e.Client)))) == str(e.Client)
    same(live, decode_failure(encode_failure(live)))


def test_long_messages_that_are_cut_keep_their_class() -> None:
    error = e.Simple("\0" * 9_000 + "x" * 9_000)
    data = encode_failure(error)
    assert type(decode_failure(data)) is e.Simple
    assert len(describe_failure(data).message) < 4 * 9_000


def test_the_object_without_the_attribute_is_not_stored() -> None:
    data = encode_failure(raised(lambda: k.Line("hunter2").nothing), traceback=False)  # type: ignore[attr-defined]
    assert b"hunter2" not in data
    assert type(decode_failure(data)) is AttributeError


def test_sizes_are_bounded() -> None:
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError("x" * 100_000 + "\0\ud800", "y" * 100_000)

    error = raised(lambda: deep(500))
    error.huge = "z" * 1_000_000  # type: ignore[attr-defined]
    for number in range(100):
        error.add_note(f"{number} " + "n" * 10_000)
    data = encode_failure(error)
    assert len(data) < 400_000
    shown = describe_failure(data)
    assert len(shown.traceback.encode()) <= 16_384
    assert len(shown.message) <= 8_192
    assert len(shown.notes) == 32
    assert shown.lost == ("huge",)
    same(decode_failure(data), decode_failure(data))
    many = ExceptionGroup("many", [raised(lambda: deep(50)) for _ in range(300)])  # type: ignore[list-item]
    data = encode_failure(many)
    assert len(data) <= 1_000_000
    live = decode_failure(data)
    assert isinstance(live, ExceptionGroup)
    assert describe_failure(data).message == "many (300 sub-exceptions)"
    assert any("more errors of this group" in note for note in live.__notes__)


def test_traceback_is_text_of_the_step_and_grows_when_raised_again() -> None:
    data = encode_failure(raised(SAME_CLASS["KeyError"]))
    assert "in <lambda>" in describe_failure(data).traceback
    assert describe_failure(encode_failure(raised(SAME_CLASS["KeyError"]), traceback=False)).traceback == ""

    def body() -> None:
        raise decode_failure(data)

    again = describe_failure(encode_failure(raised(body))).traceback
    assert "in <lambda>" in again
    assert "in body" in again


def test_secrets_do_not_show() -> None:
    error = ValueError("denied")
    error.password = Secret("hunter2")  # type: ignore[attr-defined]
    data = encode_failure(error)
    assert "hunter2" not in repr(describe_failure(data))
    live: Any = decode_failure(data)
    assert live.password.reveal() == "hunter2"


def test_exceptions_are_values_too() -> None:
    shape = Shape.of(Any)
    data = shape.encode({"results": [1, e.TwoArguments("1", 2)]})
    live = shape.decode(data)["results"][1]
    assert isinstance(live, e.TwoArguments)
    assert live.cents == 2
    typed = Shape.of(list[int | Exception])
    assert repr(typed.decode(typed.encode([1, ValueError("x")]))) == "[1, ValueError('x')]"
    with pytest.raises(Unserializable, match="is no value"):
        shape.encode(SystemExit(1))


def test_pydantic_error_inside_a_chain() -> None:
    def fn() -> None:
        try:
            pydantic.TypeAdapter(int).validate_python("x")
        except pydantic.ValidationError as error:
            raise ValueError("bad input") from error

    live = decode_failure(encode_failure(raised(fn)))
    assert isinstance(live, ValueError)
    assert isinstance(live.__cause__, StepFailed)
    assert "unable to parse string as an integer" in str(live.__cause__)


def test_golden() -> None:
    data = encode_failure(e.TwoArguments("42", 1999), traceback=False)
    assert data == (
        b'{"type":"tests.serde.errors:TwoArguments","message":"order 42 costs 1999",'
        b'"args":["order 42 costs 1999"],"attributes":{"order":"42","cents":1999}}'
    )


@given(st.lists(st.one_of(st.integers(), st.text(), st.binary(), st.none(), st.floats()), max_size=4), st.text())
def test_any_arguments_and_notes(args: list[Any], note: str) -> None:
    error = ValueError(*args)
    error.add_note(note)
    data = encode_failure(error)
    live = decode_failure(data)
    same(live, decode_failure(data))
    assert "\0" not in str(describe_failure(data).notes)
