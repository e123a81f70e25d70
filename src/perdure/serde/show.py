"""show: values as bounded text for people, with secrets hidden.

Promises: never longer than ``limit``, never raises, never walks further than the limit needs, is text that every store
keeps, and never shows a ``Secret`` or a field annotated ``Annotated[…, Secret]``.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from perdure.model.text import written_out
from perdure.serde.codec import is_coded
from perdure.serde.difference import field_names, is_pydantic
from perdure.serde.hints import secret_fields
from perdure.serde.names import class_of
from perdure.serde.secret import STARS, Secret

SHOWN_MAX = 512
_DEPTH_MAX = 20
_BITS_MAX = 2_000  # of integers shown by their digits: Python refuses those of many, from 640 on if told to
_PLAIN = frozenset({int, bool, float, type(None)})
_MORE = "…"
_MARKED = '{"$secret"'


class _Full(Exception):
    """The text has reached its bound."""


class _Text:
    """Text that stops its writer when it is full."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.room = limit
        self.parts: list[str] = []

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.room -= len(text)
        if self.room < 0:
            raise _Full

    def result(self) -> str:
        text = written_out("".join(self.parts))  # somebody's own repr may hold anything
        if len(text) <= self.limit:
            return text
        return text[: max(self.limit - len(_MORE), 0)] + _MORE[: self.limit]


def show(value: Any, limit: int = SHOWN_MAX) -> str:
    """Give bounded text of a value for histories and screens.

    ``show({"card": Secret("4242"), "cents": 1999})`` is ``{'card': ********, 'cents': 1999}``.
    """
    text = _Text(limit)
    with contextlib.suppress(_Full):
        _value(text, value, 0)
    return text.result()


def show_call(
    args: Iterable[Any], kwargs: dict[str, Any], limit: int = SHOWN_MAX, hidden: Iterable[str | int] = ()
) -> str:
    """Give bounded text of the arguments of a call: ``'42', 1999, express=True``.

    ``hidden`` are the positions and names of parameters that are annotated as secret.
    """
    if not kwargs and not hidden and (plain := _plain(args, limit)) is not None:
        return plain
    text = _Text(limit)
    stars = frozenset(hidden)
    try:
        separator = ""
        for index, value in enumerate(args):
            text.add(separator)
            _field(text, value, index in stars, 0)
            separator = ", "
        for name, value in kwargs.items():
            text.add(f"{separator}{name}=")
            _field(text, value, name in stars, 0)
            separator = ", "
    except _Full:
        pass
    return text.result()


def show_none(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """In place of ``show_call`` where values are stored coded: whether there are any arguments, nothing of them."""
    return _MORE if args or kwargs else ""


def _plain(args: Iterable[object], limit: int) -> str | None:
    """The text of a few short plain arguments, as most calls have; None where more care is needed."""
    for value in args:
        if type(value) is str:
            if len(value) > limit:
                return None
        elif type(value) not in _PLAIN or (type(value) is int and value.bit_length() > _BITS_MAX):
            return None
    text = ", ".join(map(repr, args))
    return text if len(text) <= limit else None


def show_stored(data: bytes, limit: int = SHOWN_MAX) -> str:
    """Give bounded text of stored JSON as it stands, with ``{"$secret": …}`` hidden; for screens without the code."""
    try:
        text = f"(coded, {len(data)} bytes)" if is_coded(data) else data.decode()
        if _MARKED in text.replace(" ", ""):
            text = msgspec.json.encode(_hide(msgspec.json.decode(data))).decode()
    except Exception:  # no JSON: nothing of it is for people
        text = f"<{len(data)} bytes>"
    return shortened(text, limit)


def shortened(text: str, limit: int) -> str:
    """Text of at most so many characters."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + _MORE[:limit]


def _hide(tree: Any) -> Any:
    cls = class_of(tree)
    if cls is list:
        return [_hide(item) for item in tree]
    if cls is dict:
        return STARS if "$secret" in tree else {key: _hide(item) for key, item in tree.items()}
    return tree


def _value(text: _Text, value: Any, depth: int) -> None:
    cls = class_of(value)
    if isinstance(value, Secret):
        text.add(STARS)
    elif depth > _DEPTH_MAX:
        text.add(_MORE)
    elif cls in (str, bytes):
        # Cut before repr: a payload of megabytes must not be copied to show its first line.
        text.add(repr(value[: text.room + 1]))
    elif cls is int:
        text.add(repr(value) if value.bit_length() <= _BITS_MAX else hex(value)[: text.room + 1])
    elif cls is list:
        _items(text, "[", value, "]", depth)
    elif cls is tuple:
        _items(text, "(", value, ",)" if len(value) == 1 else ")", depth)
    elif cls in (set, frozenset) and value:
        _items(text, "{" if cls is set else "frozenset({", value, "}" if cls is set else "})", depth)
    elif cls is dict:
        _dict(text, value, depth)
    elif _walked(cls):
        _fields(text, value, cls, depth)
    else:
        _repr(text, value, cls)


def _items(text: _Text, left: str, items: Iterable[Any], right: str, depth: int) -> None:
    text.add(left)
    separator = ""
    for item in items:
        text.add(separator)
        _value(text, item, depth + 1)
        separator = ", "
    text.add(right)


def _dict(text: _Text, items: dict[Any, Any], depth: int) -> None:
    text.add("{")
    separator = ""
    for key, item in items.items():
        text.add(separator)
        _value(text, key, depth + 1)
        text.add(": ")
        _value(text, item, depth + 1)
        separator = ", "
    text.add("}")


def _fields(text: _Text, value: Any, cls: type, depth: int) -> None:
    hidden = secret_fields(cls)
    text.add(f"{cls.__qualname__}(")
    separator = ""
    for name in _names(cls):
        text.add(f"{separator}{name}=")
        try:
            item = getattr(value, name)
        except Exception:
            text.add("?")
        else:
            _field(text, item, name in hidden, depth + 1)
        separator = ", "
    text.add(")")


def _field(text: _Text, value: Any, hidden: bool, depth: int) -> None:
    if hidden:
        text.add(STARS)
    else:
        _value(text, value, depth)


def _repr(text: _Text, value: Any, cls: type) -> None:
    try:
        shown = repr(value)
    except Exception:
        shown = f"<{cls.__qualname__}>"
    text.add(shown[: text.room + 1] if type(shown) is str else f"<{cls.__qualname__}>")


@functools.lru_cache(maxsize=2048)
def _names(cls: type) -> tuple[str, ...]:
    """The fields to show: those that the class does not keep out of its own repr."""
    fields: Any = getattr(cls, "__dataclass_fields__", None)
    if fields is None:
        fields = {field.name: field for field in getattr(cls, "__attrs_attrs__", ())} or None
    if fields is None and is_pydantic(cls):
        fields = cast("Any", cls).model_fields
    names = field_names(cls)
    return names if fields is None else tuple(name for name in names if getattr(fields.get(name), "repr", True))


@functools.lru_cache(maxsize=2048)
def _walked(cls: type) -> bool:
    """Whether to walk the fields: some, and a repr that was generated, or there are secrets that it would tell."""
    return bool(field_names(cls)) and (bool(secret_fields(cls)) or _generated_repr(cls))


def _generated_repr(cls: type) -> bool:
    shown: Any = cls.__repr__
    if shown in (msgspec.Struct.__repr__, object.__repr__):
        return True
    if is_pydantic(cls):
        return bool(shown is sys.modules["pydantic"].BaseModel.__repr__)
    shown = getattr(shown, "__wrapped__", shown)  # dataclasses wrap theirs against recursion
    file = getattr(getattr(shown, "__code__", None), "co_filename", "")
    return file.startswith("<")  # made by dataclasses or attrs, from text
