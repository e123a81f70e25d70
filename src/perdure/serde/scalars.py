"""Scalars: the types whose JSON is one number or one text, with and without a hint.

Promises: every finite and non-finite float, ``-0.0`` and integers of any size come back as they were; an aware datetime
keeps its zone's name; enums stand by value where the value is a text or number, else by name.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from perdure.serde.names import class_of, hint_text, type_text
from perdure.serde.node import Mismatch, Node, check_text, is_object, tag_of
from perdure.serde.show import show

_INT_PLAIN_BITS = 14_280  # longer ones are written in hexadecimal: Python bounds the decimal form at 4300 digits
ToTree = Callable[[Any, int], Any]
FromTree = Callable[[Any], Any]
_ZONE = re.compile(r"^(.*?)(?:\[([^\]]+)\])?$")


class Text(msgspec.Struct, frozen=True):
    """A type whose JSON is a text: how it is written, read, and tagged where no hint says what it is."""

    cls: type
    tag: str
    to: Callable[[Any], str]
    of: Callable[[str], Any]
    native: bool = False  # msgspec writes the same text for the same type
    fits: Callable[[Any], bool] | None = None  # for which values, if not for all

    def read(self, tree: Any) -> Any:
        """Give the value of the text in a tree, or raise ``Mismatch``."""
        if type(tree) is not str:
            raise Mismatch(f"expected the text of a {type_text(self.cls)}, found {show(tree, 80)}")
        try:
            return self.of(tree)
        except (ValueError, ArithmeticError, KeyError, msgspec.MsgspecError, binascii.Error) as error:
            raise Mismatch(f"{show(tree, 80)} is not a {type_text(self.cls)}: {error}") from None


class _Real:
    """The classes themselves: freezegun puts others in the place of what a module holds."""

    date: ClassVar = date
    datetime: ClassVar = datetime


def _datetime_to(value: datetime) -> str:
    if value.tzinfo is timezone.utc:  # noqa: UP017  (the same object as datetime.UTC)
        return value.replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value.tzinfo, ZoneInfo) and value.tzinfo.key:
        return f"{value.isoformat()}[{value.tzinfo.key}]"
    return value.isoformat()


def _datetime_of(text: str) -> datetime:
    stamp, zone = cast("re.Match[str]", _ZONE.match(text)).groups()
    value: datetime = _Real.datetime.fromisoformat(stamp)
    if zone is None:
        return value
    local = value.replace(tzinfo=ZoneInfo(zone))
    # The hour that is repeated when clocks go back: the offset says which of the two.
    return local if local.utcoffset() == value.utcoffset() else local.replace(fold=1)


def _utc_or_naive(value: Any) -> bool:
    return type(value) is _Real.datetime and (value.tzinfo is None or value.tzinfo is timezone.utc)  # noqa: UP017


def _naive_time(value: Any) -> bool:
    return type(value) is time and value.tzinfo is None


def _time_to(value: time) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise Mismatch("a time in a named zone has no offset without a date; store a datetime, or the zone's name")
    return value.isoformat()


def _bytes_to(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes_of(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _timedelta_of(text: str) -> timedelta:
    return msgspec.convert(text, timedelta)


def _zone_to(value: ZoneInfo) -> str:
    if not value.key:
        raise Mismatch("a ZoneInfo without a key cannot be stored; make it by name: ZoneInfo('Europe/Berlin')")
    return value.key


_ALL: tuple[Text, ...] = (
    Text(datetime, "$datetime", _datetime_to, _datetime_of, True, _utc_or_naive),
    Text(date, "$date", date.isoformat, date.fromisoformat, True),
    Text(time, "$time", _time_to, time.fromisoformat, True, _naive_time),
    Text(timedelta, "$timedelta", msgspec.to_builtins, _timedelta_of, True),
    Text(UUID, "$uuid", str, UUID, True),
    Text(Decimal, "$decimal", str, Decimal, True),
    Text(bytes, "$bytes", _bytes_to, _bytes_of, True),
    Text(bytearray, "$bytearray", lambda value: _bytes_to(bytes(value)), lambda text: bytearray(_bytes_of(text))),
    Text(type(Path()), "$path", str, Path),
    Text(PurePosixPath, "$posixpath", str, PurePosixPath),
    Text(PureWindowsPath, "$windowspath", str, PureWindowsPath),
    Text(complex, "$complex", repr, complex),
    Text(ZoneInfo, "$zone", _zone_to, ZoneInfo),
    Text(ipaddress.IPv4Address, "$ip", str, ipaddress.ip_address),
    Text(ipaddress.IPv6Address, "$ip", str, ipaddress.ip_address),
    Text(ipaddress.IPv4Network, "$network", str, ipaddress.ip_network),
    Text(ipaddress.IPv6Network, "$network", str, ipaddress.ip_network),
)
# A type added here gets another fingerprint as an argument of steps than it had (see fingerprint.py).
TEXTS: dict[type, Text] = {text.cls: text for text in _ALL}
TEXTS_BY_TAG: dict[str, Text] = {text.tag: text for text in _ALL}


def stood_in(value: object) -> Text | None:
    """Of freezegun's classes, which stand in for those of ``datetime`` in tests: as what they come back, and equal."""
    cls = type(value)
    if cls.__module__.partition(".")[0] != "freezegun":
        return None
    return next((TEXTS[base] for base in cls.__mro__ if base in TEXTS), None)


TEXT_BASES: dict[type, Text] = {**TEXTS, Path: TEXTS[type(Path())], PurePath: TEXTS[type(PurePath())]}


class TextNode(Node):
    """A hint of one of those types; an instance of a subclass is tagged."""

    kinds = frozenset({"str"})

    def __init__(self, cls: type, text: Text, to_tree: ToTree, from_tree: FromTree) -> None:
        self.hint = hint_text(cls)
        self.cls = cls
        self.exact = text.cls
        self.text = text
        self._to_tree = to_tree
        self._from_tree = from_tree
        if text.native:
            self.spec = cls
            self.leaf = frozenset({cls}) if text.fits is None else frozenset()
            self.fits = text.fits or (lambda value: type(value) is cls)

    def to(self, value: Any, depth: int) -> Any:
        if type(value) is self.exact:
            return check_text(self.text.to(value))
        # Python calls a datetime a date; a reader of the hint does not.
        if not isinstance(value, self.cls) or (self.cls is _Real.date and isinstance(value, _Real.datetime)):
            raise self.expected(value)
        if stood_in(value) is self.text:
            return check_text(self.text.to(value))
        return self._to_tree(value, depth)

    def of(self, tree: Any) -> Any:
        return self._from_tree(tree) if is_object(tree) else self.text.read(tree)


def int_to(value: int) -> Any:
    """Write an integer of any size."""
    return value if value.bit_length() <= _INT_PLAIN_BITS else {"$int": hex(value)}


def int_of(body: Any) -> int:
    """Read what ``int_to`` tagged."""
    try:
        return int(body, 16)
    except (TypeError, ValueError):
        raise Mismatch(f"{show(body, 80)} is not an integer in hexadecimal") from None


def float_to(value: float) -> Any:
    """Write a float; JSON has no infinities and no NaN."""
    return value if math.isfinite(value) else {"$float": repr(value)}


def float_of(body: Any) -> float:
    """Read what ``float_to`` tagged."""
    if body in ("nan", "inf", "-inf"):
        return float(body)
    raise Mismatch(f"{show(body, 80)} is not one of nan, inf, -inf")


class ScalarNode(Node):
    """``str``, ``int``, ``bool``, ``None``: what JSON keeps by itself. Instances of subclasses are tagged."""

    def __init__(self, cls: type, kind: str, to_tree: ToTree, from_tree: FromTree) -> None:
        self.hint = hint_text(cls)
        self.cls = cls
        self.spec = cls
        self.exact = cls
        self.leaf = frozenset({cls})
        self.fits = lambda value: type(value) is cls
        self.kinds = frozenset({kind, "$int"}) if cls is int else frozenset({kind})
        self._to_tree = to_tree
        self._from_tree = from_tree

    def to(self, value: Any, depth: int) -> Any:
        if not isinstance(value, self.cls):
            raise self.expected(value)
        return self._to_tree(value, depth)  # which writes the exact types plainly

    def of(self, tree: Any) -> Any:
        if is_object(tree) and tag_of(tree):
            tree = self._from_tree(tree)
        if not isinstance(tree, self.cls):
            raise self.expected(tree)
        return tree


class FloatNode(Node):
    """``float``, which takes an ``int`` too, as Python's type checkers do; it arrives as a float."""

    kinds = frozenset({"float", "$float"})
    hint = "float"
    exact = float
    spec = float

    def __init__(self) -> None:
        self.fits = lambda value: type(value) is float and math.isfinite(value)

    def to(self, value: Any, depth: int) -> Any:
        if type(value) is float:
            return float_to(value)
        if type(value) is int:
            try:
                if float(value) == value:
                    return float(value)
            except OverflowError:
                pass
            raise Mismatch(f"the integer {show(value, 80)} is not exactly a float; hint it as int")
        raise self.expected(value)

    def of(self, tree: Any) -> Any:
        if is_object(tree):
            return float_of(tree.get("$float"))
        if type(tree) is float or type(tree) is int:
            return float(tree)
        raise self.expected(tree)


class EnumNode(Node):
    """An Enum: by value where all values are texts or all are numbers, else by name."""

    def __init__(self, cls: type[Enum]) -> None:
        self.hint = hint_text(cls)
        self.cls = cls
        self.exact = cls
        values = [member.value for member in cls.__members__.values()]
        types = {class_of(value) for value in values}
        self.by_value = bool(values) and types in ({str}, {int})
        self.kinds = frozenset({"int"}) if self.by_value and types == {int} else frozenset({"str"})
        # Flags are composed of members, and _missing_ makes more: msgspec knows only the members.
        plain = self.by_value and not issubclass(cls, Flag) and "_missing_" not in cls.__dict__
        if plain:
            self.spec = cls
            self.leaf = frozenset({cls})
            self.fits = lambda value: type(value) is cls

    def to(self, value: Any, depth: int) -> Any:
        if type(value) is not self.cls:
            raise self.expected(value)
        if not self.by_value:
            return check_text(value.name)
        return check_text(value.value) if type(value.value) is str else value.value

    def of(self, tree: Any) -> Any:
        try:
            return self.cls(tree) if self.by_value else self.cls[tree]
        except (ValueError, KeyError, TypeError):
            known = ", ".join(repr(m.value if self.by_value else m.name) for m in self.cls)
            raise Mismatch(f"{show(tree, 80)} is not one of {self.hint}: {known[:200]}") from None


class LiteralNode(Node):
    """``Literal[…]``: one of a few values, each told by its own JSON."""

    def __init__(self, values: tuple[Any, ...], nodes: list[Node], hint: Any) -> None:
        self.hint = hint_text(hint)
        self._by_value = {
            (class_of(value), value): node.to(value, 0) for value, node in zip(values, nodes, strict=True)
        }
        self._by_json = {msgspec.json.encode(tree): key[1] for key, tree in self._by_value.items()}
        self.kinds = frozenset().union(*(node.kinds for node in nodes))
        if {type(value) for value in values} <= {str, int, type(None)}:
            self.spec = hint
            self.fits = self._known

    def _known(self, value: Any) -> bool:
        try:
            return (type(value), value) in self._by_value
        except TypeError:  # unhashable
            return False

    def to(self, value: Any, depth: int) -> Any:
        if not self._known(value):
            raise self.expected(value)
        return self._by_value[type(value), value]

    def of(self, tree: Any) -> Any:
        try:
            return self._by_json[msgspec.json.encode(tree)]
        except KeyError:
            raise self.expected(tree) from None
