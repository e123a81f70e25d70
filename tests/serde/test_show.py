"""What people see of values: bounded, redacted, and never a failure."""

from __future__ import annotations

import copy
import pickle
from typing import Annotated, Any, NamedTuple

import attrs
import msgspec
import pydantic
import pytest

from perdure.serde import Secret, show, show_call, show_stored
from tests.serde import kinds as k


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Endless:
    def __repr__(self) -> str:
        return "x" * 10_000_000


class Shy(NamedTuple):
    user: str
    pin: Annotated[int, Secret]


class ShyStruct(msgspec.Struct):
    pin: Annotated[int, Secret] | None


class ShyModel(pydantic.BaseModel):
    name: str
    pin: Annotated[int, Secret]
    quiet: str = pydantic.Field(default="quiet", repr=False)


@attrs.define
class ShyAttrs:
    name: str
    pin: Annotated[int, Secret] = 5
    quiet: str = attrs.field(default="quiet", repr=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        ("a'b", '"a\'b"'),
        ([1, (2,), {"a": {3}}], "[1, (2,), {'a': {3}}]"),
        (set(), "set()"),
        (frozenset([1]), "frozenset({1})"),
        (k.Line("a"), "Line(sku='a', qty=1)"),
        (k.Login("ada", "pw", Secret("t")), "Login(user='ada', password=********, token=********)"),
        ([Secret("pw"), {"k": Secret("pw")}], "[********, {'k': ********}]"),
        (Shy("ada", 5), "Shy(user='ada', pin=********)"),
        (ShyStruct(5), "ShyStruct(pin=********)"),
        (ShyModel(name="a", pin=5), "ShyModel(name='a', pin=********)"),
        (ShyAttrs("a"), "ShyAttrs(name='a', pin=********)"),
        (k.Custom("4242"), "Custom(****)"),
        (k.Guarded(key="pw"), "Guarded(key=SecretStr('**********'))"),
        (Broken(), "<Broken>"),
        ([Broken()], "[<Broken>]"),
        (k.Point(1), "Point(x=1, y=0.5)"),
    ],
)
def test_shown(value: Any, text: str) -> None:
    assert show(value) == text


@pytest.mark.parametrize("limit", [0, 1, 2, 10, 512])
@pytest.mark.parametrize(
    "value",
    ["x" * 10_000_000, list(range(1_000_000)), Endless(), b"x" * 10_000_000, 10**10_000, {"a": ["b" * 600]}, Broken()],
    ids=lambda value: type(value).__name__,
)
def test_never_longer_than_the_limit(value: Any, limit: int) -> None:
    assert len(show(value, limit)) <= limit
    assert len(show_call((value,), {"a": value}, limit)) <= limit
    assert len(show_call((value,), {}, limit)) <= limit


class Saying:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def test_what_no_store_keeps_is_written_out() -> None:
    """A repr of somebody's own may hold anything; so may the name of a keyword argument."""
    assert show(Saying("caf\udce9 \0 é")) == r"caf\udce9 \x00 é"
    assert show_call((Saying("\ud800"),), {"\ud800": 1}) == r"\ud800, \ud800=1"
    assert len(show(Saying("\ud800" * 600))) == 512


def test_cycles_end() -> None:
    value: list[Any] = []
    value.append(value)
    assert len(show(value)) <= 512
    tree = k.Tree(1)
    tree.children.append(tree)
    assert len(show(tree)) <= 512


def test_calls() -> None:
    assert show_call(("42", 1999), {"express": True}) == "'42', 1999, express=True"
    assert show_call(("42", 1999), {"pin": 1}, hidden=[0, "pin"]) == "********, 1999, pin=********"


def test_stored_json_is_shown_without_its_secrets() -> None:
    assert show_stored(b'["ada",{"$secret":{"a":"pw"}}]') == '["ada","********"]'
    assert show_stored(b'{"a":[{ "$secret" : "pw"}]}') == '{"a":["********"]}'
    assert show_stored(b'{"a":1}') == '{"a":1}'
    assert show_stored(b"\xff\xfe") == "<2 bytes>"
    assert show_stored(b"\xffsecret") == "<7 bytes>"
    assert show_stored(b'{"$coded":"c2VjcmV0"}') == "(coded, 21 bytes)"
    assert len(show_stored(b'"' + b"x" * 1000 + b'"', 20)) == 20


def test_secrets_are_never_written_out() -> None:
    secret = Secret("pw")
    assert f"{secret} {secret!r} {secret!s} {secret:>10}" == "******** ******** ******** ********"
    assert "%s" % secret == "********"  # noqa: UP031
    assert secret == Secret("pw")
    assert secret != Secret("other")
    assert secret != "pw"
    assert hash(secret) == hash(Secret("pw"))
    assert copy.deepcopy([secret])[0] is secret
    assert copy.copy(secret) is secret
    with pytest.raises(TypeError, match="reveal"):
        pickle.dumps(secret)
