"""Tagged: values without a type hint, written so that their JSON says what they are.

Promises: what JSON has stands as it is; everything else is an object with one tag, ``{"$datetime": "…"}``; users' own
keys that start with "$" get one more. ``{"$type": "module:Qualname", "value": …}`` is decoded only if that class is
already imported, and otherwise kept as an ``Opaque`` that encodes to the same JSON again.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

import msgspec

from perdure.serde.names import class_name, class_of, find_class, has_name, type_text
from perdure.serde.node import (
    EVERY_KIND,
    Mismatch,
    Node,
    check_text,
    deeper,
    escape,
    is_array,
    is_object,
    tag_of,
    unescape,
)
from perdure.serde.scalars import TEXTS, TEXTS_BY_TAG, float_of, float_to, int_of, int_to, stood_in
from perdure.serde.secret import Secret

PLAIN_LEAF = frozenset({str, int, bool, type(None)})
_LEAF_AND_KEY = frozenset({str})


class Opaque(Mapping[str, Any]):
    """A stored value whose class is not imported here: its type's name and raw JSON, kept and stored again unchanged.

    It reads like the mapping that was stored: ``opaque["cents"]``; ``opaque.type_name`` is ``"shop:Order"``.
    """

    __slots__ = ("type_name", "value")

    def __init__(self, type_name: str, value: Any) -> None:
        self.type_name = type_name
        self.value = value

    def __getitem__(self, key: str) -> Any:
        return self._items()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items())

    def __len__(self) -> int:
        return len(self._items())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Opaque):
            return NotImplemented
        return self.type_name == other.type_name and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash((Opaque, self.type_name))

    def __repr__(self) -> str:
        return f"Opaque({self.type_name!r}, {self.value!r})"

    def _items(self) -> dict[str, Any]:
        return self.value if is_object(self.value) else {}


class Extension(msgspec.Struct, frozen=True):
    """A kind of value that another file of this package knows how to write under a tag of its own (exceptions)."""

    base: type
    tag: str
    to: Callable[[Any, int], Any]
    of: Callable[[Any], Any]


_extensions: list[Extension] = []
_class_node: list[Callable[[type], Node | None]] = []


def extend(extension: Extension) -> None:
    """Add an extension; called once, at import."""
    _extensions.append(extension)


def use_compiler(class_node: Callable[[type], Node | None]) -> None:
    """Say how the node of a data class is found. The compiler needs this file too, hence not an import."""
    _class_node[:] = [class_node]


def plain(value: object, depth: int = 0) -> bool:
    """Say whether JSON alone keeps the value: exact built-in types and finite floats, with text keys.

    This is the fast path of hintless values: leaves are checked a container at a time, by sets of their types.
    """
    known: Any = value  # type() of an object costs nothing; class_of would be a call
    cls = type(value)
    if cls is dict:
        if not _LEAF_AND_KEY.issuperset(map(type, known)):
            return False
        items: Iterable[Any] = known.values()
    elif cls is list:
        items = known
    else:
        return cls in PLAIN_LEAF or (cls is float and math.isfinite(known))
    if PLAIN_LEAF.issuperset(map(type, items)):
        return depth < 64
    if depth >= 64:
        return False
    depth += 1
    return all(type(item) in PLAIN_LEAF or plain(item, depth) for item in items)


def to_tree(value: Any, depth: int = 0) -> Any:
    """Give the JSON tree of any value that can be stored, or raise ``Mismatch``."""
    cls = class_of(value)
    if cls is str:
        return check_text(value)
    if cls is bool or value is None:
        return value
    if cls is int:
        return int_to(value)
    if cls is float:
        return float_to(value)
    if cls is list:
        return _list_to(value, deeper(depth))
    if cls is dict:
        return dict_to(value, deeper(depth))
    writer = _SEQUENCES.get(cls)
    if writer is not None:
        tree = _list_to(value, deeper(depth))
        return {writer: _ordered(tree) if cls in (set, frozenset) else tree}
    text = TEXTS.get(cls)
    if text is not None:
        return {text.tag: check_text(text.to(value))}
    return _other_to(value, cls, depth)


def _other_to(value: Any, cls: type, depth: int) -> Any:
    if cls is Secret:
        try:
            return {"$secret": to_tree(value.reveal(), deeper(depth))}
        except Mismatch as mismatch:
            raise Mismatch("a secret whose value cannot be stored") from mismatch
    if cls is OrderedDict or cls is Counter:
        tag = "$ordereddict" if cls is OrderedDict else "$counter"
        return {tag: _pairs_to(value, deeper(depth))}
    if cls is deque and value.maxlen is None:
        return {"$deque": _list_to(value, deeper(depth))}
    if cls is Opaque:
        return {"$type": value.type_name, "value": value.value}
    for extension in _extensions:
        if isinstance(value, extension.base):
            return {extension.tag: extension.to(value, depth)}
    if (text := stood_in(value)) is not None:
        return {text.tag: check_text(text.to(value))}
    node = _class_node[0](cls)
    if node is None:
        raise Mismatch(_advice(value, cls))
    if not has_name(cls):
        raise Mismatch(
            f"a value of type {type_text(cls)} has no type hint here, and its class cannot be found again by name; "
            "define the class at module level, or give a type hint that can be resolved"
        )
    return {"$type": class_name(cls), "value": node.to(value, deeper(depth))}


def from_tree(tree: Any) -> Any:
    """Give the value of such a tree, or raise ``Mismatch``."""
    if is_array(tree):
        return _list_of(tree)
    if not is_object(tree):
        return tree
    tag = tag_of(tree)
    if not tag:
        return {unescape(key): _under(key, item) for key, item in tree.items()}
    return untag(tree, tag)


def untag(tree: dict[str, Any], tag: str) -> Any:
    """Give the value of a tagged object."""
    body = tree[tag]
    if tag == "$type":
        return _typed_of(str(body), tree.get("value"))
    text = TEXTS_BY_TAG.get(tag)
    if text is not None:
        return text.read(body)
    reader = _READERS.get(tag)
    if reader is not None:
        return reader(body)
    for extension in _extensions:
        if extension.tag == tag:
            return extension.of(body)
    raise Mismatch(f"the tag {tag} is not known to this version of perdure; a newer one may have written it")


def _typed_of(name: str, body: Any) -> Any:
    cls = find_class(name)
    node = _class_node[0](cls) if cls is not None else None
    # A class that is no longer a data class is as unknown as one that is not there.
    return Opaque(name, body) if node is None else node.of(body)


def dict_to(value: Any, depth: int) -> Any:
    """Write a hintless dict: an object where all keys are text, else ``{"$dict": [[key, value], …]}``."""
    if not _LEAF_AND_KEY.issuperset(map(type, value)):
        return {"$dict": _pairs_to(value, depth)}
    tree: dict[str, Any] = {}
    for key, item in value.items():
        try:
            tree[escape(check_text(key))] = to_tree(item, depth)
        except Mismatch as mismatch:
            raise mismatch.under(f"[{key!r}]") from None
    return tree


def _pairs_to(value: Any, depth: int) -> list[Any]:
    pairs: list[Any] = []
    for key, item in value.items():
        try:
            pairs.append([to_tree(key, depth), to_tree(item, depth)])
        except Mismatch as mismatch:
            raise mismatch.under(f"[{key!r}]") from None
    return pairs


def _list_to(value: Iterable[Any], depth: int) -> list[Any]:
    tree: list[Any] = []
    for index, item in enumerate(value):
        try:
            tree.append(to_tree(item, depth))
        except Mismatch as mismatch:
            raise mismatch.under(f"[{index}]") from None
    return tree


def _list_of(tree: list[Any]) -> list[Any]:
    return [_under(index, item) for index, item in enumerate(tree)]


def _under(key: Any, tree: Any) -> Any:
    if type(tree) is not dict and type(tree) is not list:
        return tree
    try:
        return from_tree(tree)
    except Mismatch as mismatch:
        raise mismatch.under(f"[{key!r}]") from None


def _pairs_of(pairs: Any) -> dict[Any, Any]:
    return {from_tree(key): _under(key, item) for key, item in pairs}


def _ordered(trees: list[Any]) -> list[Any]:
    """Sets are written in the order of their members' JSON, so that equal sets are stored equally."""
    return sorted(trees, key=msgspec.json.encode)


def _advice(value: Any, cls: type) -> str:
    name = type_text(cls)
    for base in (bool, int, float, str, bytes, list, dict, tuple, set):
        if isinstance(value, base):
            if isinstance(value, Enum):
                break
            return f"a value of type {name} would come back as a plain {base.__name__}; pass {base.__name__}(…) of it"
    if callable(value):
        return f"a value of type {name} cannot be stored; code is no data: store a name, and look it up"
    if isinstance(value, (Iterator,)) or hasattr(value, "__await__"):
        return f"a value of type {name} cannot be stored; it can be used up only once: store its results, as a list"
    return (
        f"a value of type {name} cannot be stored; store a reference to it (a path, key or URL), "
        "or make it a dataclass of plain fields"
    )


_SEQUENCES: dict[type, str] = {tuple: "$tuple", set: "$set", frozenset: "$frozenset"}
_READERS: dict[str, Callable[[Any], Any]] = {
    "$tuple": lambda body: tuple(_list_of(body)),
    "$set": lambda body: set(_list_of(body)),
    "$frozenset": lambda body: frozenset(_list_of(body)),
    "$deque": lambda body: deque(_list_of(body)),
    "$dict": _pairs_of,
    "$ordereddict": lambda body: OrderedDict(_pairs_of(body)),
    "$counter": lambda body: Counter(_pairs_of(body)),
    "$secret": lambda body: Secret(from_tree(body)),
    "$float": float_of,
    "$int": int_of,
}


class AnyNode(Node):
    """The node of ``Any``, ``object``, a missing hint, and of classes that are known only by their instances.

    With ``base`` set, values must be instances of it.
    """

    kinds = EVERY_KIND

    def __init__(self, hint: str = "Any", base: type | None = None) -> None:
        self.hint = hint
        self.base = base
        if base is None:
            self.spec = Any
            self.fits = plain

    def to(self, value: Any, depth: int) -> Any:
        self._check(value)
        return to_tree(value, depth)

    def of(self, tree: Any) -> Any:
        return from_tree(tree)

    def _check(self, value: Any) -> None:
        if self.base is None:
            return
        try:
            right = isinstance(value, self.base)
        except TypeError:  # a Protocol that is not runtime_checkable
            return
        if not right:
            raise self.expected(value)
