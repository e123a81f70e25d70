"""Node: how values of one type hint become a tree of plain JSON values, and come back.

A hint is compiled once into a tree of nodes (``compile.py``). A node offers two ways:

- the native way: where ``spec`` is set, msgspec alone writes and reads this hint for every value that ``fits``; that
  is the fast path, and it neither decodes nor compares;
- the careful way, ``to`` and ``of``: they check every part, raise ``Mismatch`` with the path, and write tags where JSON
  alone would lose the type.

Both ways write the same JSON for the same value, and ``of`` reads whatever either wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from perdure.serde.names import class_of, type_text
from perdure.serde.show import show

DEPTH_MAX = 64


class Mismatch(Exception):
    """A value that does not fit; each container that it passes through on its way up adds its piece of the path."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.pieces: list[str] = []

    def under(self, piece: str) -> Mismatch:
        """Add the outer piece of the path: ``.lines`` or ``[3]``."""
        self.pieces.append(piece)
        return self

    @property
    def path(self) -> str:
        """The pieces from the outside in: ``.lines[3].img``."""
        return "".join(reversed(self.pieces))


class NotNative:
    """The ``spec`` of a node that msgspec cannot handle alone."""


def never(value: Any) -> bool:
    """The ``fits`` of such a node."""
    return False


class Node:
    """The base: one hint, both ways.

    ``kinds`` are the JSON forms that ``to`` gives; by them a union tells its members apart.
    """

    hint: str = "?"
    spec: Any = NotNative
    fits: Callable[[Any], bool] = staticmethod(never)
    leaf: frozenset[type] = frozenset()  # when not empty, ``fits(v)`` is exactly ``type(v) in leaf``
    exact: type | None = None  # the class whose direct instances this node is for
    kinds: frozenset[str] = frozenset()
    discriminator: tuple[str, Any] | None = None  # the field and value by which objects of this node can be told

    def to(self, value: Any, depth: int) -> Any:
        """Give the JSON tree of ``value`` or raise ``Mismatch``."""
        raise NotImplementedError

    def of(self, tree: Any) -> Any:
        """Give the value of a JSON tree that ``to`` (or msgspec, natively) wrote, or raise ``Mismatch``."""
        raise NotImplementedError

    @property
    def native(self) -> bool:
        """Whether msgspec alone reads and writes the values that fit."""
        return self.spec is not NotNative

    def expected(self, value: Any) -> Mismatch:
        """The refusal of a value of another type."""
        return Mismatch(f"expected {self.hint}, got {type_text(class_of(value))} {show(value, 80)}")


def deeper(depth: int) -> int:
    """Count one more level, up to the bound (which also catches values that contain themselves)."""
    if depth >= DEPTH_MAX:
        raise Mismatch(f"nested deeper than {DEPTH_MAX} levels, or contains itself; flatten it")
    return depth + 1


def kind_of(tree: Any) -> str:
    """Name the JSON form of a tree: ``str``, ``array``, ``object`` or, of a tagged one, its tag: ``$tuple``."""
    if is_object(tree):
        return tag_of(tree) or "object"
    return _KINDS.get(class_of(tree), "?")


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    list: "array",
}
EVERY_KIND = frozenset(_KINDS.values()) | {"object"}


def is_object(tree: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a tree is a JSON object."""
    return type(tree) is dict


def is_array(tree: Any) -> TypeGuard[list[Any]]:
    """Whether a tree is a JSON array."""
    return type(tree) is list


def is_dict(value: Any) -> TypeGuard[dict[Any, Any]]:
    """Whether a value is a plain dict."""
    return type(value) is dict


def is_tuple(value: Any) -> TypeGuard[tuple[Any, ...]]:
    """Whether a value is a plain tuple."""
    return type(value) is tuple


def tag_of(tree: dict[str, Any]) -> str:
    """Give the tag of an object, or "". Users' own keys that start with "$" are stored with one more."""
    for key in tree:
        if key[:1] == "$" and key[1:2] != "$":
            return key
        return ""  # a tag is always the first key, and tagged objects have no other kind of key
    return ""


def escape(key: str) -> str:
    """Write a user's key so that it is no tag."""
    return "$" + key if key[:1] == "$" else key


def unescape(key: str) -> str:
    """Read such a key back."""
    return key[1:] if key[:1] == "$" else key


def check_text(text: str) -> str:
    """Refuse what no database and no JSON reader keeps: NUL and lone surrogates."""
    if "\0" in text:
        raise Mismatch("contains a NUL character (U+0000), which databases refuse; remove it, or pass bytes")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Mismatch(
                f"contains a lone surrogate (U+{ord(text[error.start]):04X}), which is no text; "
                "decode it properly, or pass bytes"
            ) from None
    return text
