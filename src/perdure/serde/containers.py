"""Containers: lists, tuples, sets, dicts, unions and secrets of hinted values.

Promises: a hinted container stands in JSON as an array or object without tags; sets are ordered by their members' JSON,
so that equal sets are stored equally; a union writes tags only for members that their JSON alone does not tell apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import GenericAlias
from typing import Any, cast

import msgspec

from perdure.serde.names import class_of
from perdure.serde.node import (
    Mismatch,
    Node,
    check_text,
    deeper,
    escape,
    is_array,
    is_dict,
    is_object,
    is_tuple,
    kind_of,
    tag_of,
    unescape,
)
from perdure.serde.secret import Secret
from perdure.serde.tagged import PLAIN_LEAF, from_tree, plain, to_tree, untag


def fits_each(item: Node) -> Callable[[Any], bool]:
    """Give the test that every member of an iterable fits; leaves are tested as one set of types."""
    leaf, fits = item.leaf, item.fits
    if leaf:
        return lambda values: leaf.issuperset(map(type, values))
    if fits is plain:
        return lambda values: PLAIN_LEAF.issuperset(map(type, values)) or all(map(plain, values))
    return lambda values: all(map(fits, values))


class ArrayNode(Node):
    """``list[T]``, ``tuple[T, ...]``, ``set[T]``, ``frozenset[T]``, ``deque[T]`` and their abstract kin.

    ``cls`` is what an untagged array becomes; with ``base`` other classes are written by tag, their members hintless.
    """

    kinds = frozenset({"array"})

    def __init__(self, cls: type[Any], item: Node, hint: str, base: type[Any] | None = None) -> None:
        self.hint = hint
        self.cls = cls
        self.item = item
        self.base = base or cls
        self.exact = cls
        self.ordered = cls not in (set, frozenset)
        if item.native and base is None and cls in (list, tuple):
            each = fits_each(item)
            self.spec = GenericAlias(list, (item.spec,)) if cls is list else GenericAlias(tuple, (item.spec, ...))
            self.fits = lambda value: type(value) is cls and each(value)

    def to(self, value: Any, depth: int) -> Any:
        if type(value) is not self.cls or (self.cls is deque and value.maxlen is not None):
            if isinstance(value, self.base) and type(value) is not str and type(value) is not bytes:
                return to_tree(value, depth)
            raise self.expected(value)
        depth = deeper(depth)
        tree: list[Any] = []
        for index, item in enumerate(value):
            try:
                tree.append(self.item.to(item, depth))
            except Mismatch as mismatch:
                raise mismatch.under(f"[{index}]" if self.ordered else "{…}") from None
        return tree if self.ordered else sorted(tree, key=msgspec.json.encode)

    def of(self, tree: Any) -> Any:
        if is_object(tree) and (tag := tag_of(tree)):
            return _checked(untag(tree, tag), self.base, self)
        if not is_array(tree):
            raise self.expected(tree)
        return self.cls(_each(self.item, tree))


class TupleNode(Node):
    """``tuple[int, str]``: a fixed number of members, each of its own hint."""

    kinds = frozenset({"array"})
    exact = tuple

    def __init__(self, items: list[Node], hint: str) -> None:
        self.hint = hint
        self.items = items
        if all(item.native for item in items):
            self.spec = GenericAlias(tuple, tuple(item.spec for item in items) or ((),))
            self.fits = self._fits

    def _fits(self, value: Any) -> bool:
        if not is_tuple(value) or len(value) != len(self.items):
            return False
        return all(node.fits(item) for node, item in zip(self.items, value, strict=True))

    def to(self, value: Any, depth: int) -> Any:
        if not is_tuple(value):
            if isinstance(value, tuple):
                return to_tree(value, depth)
            raise self.expected(value)
        if len(value) != len(self.items):
            raise Mismatch(f"expected {self.hint}, got a tuple of {len(value)}")
        depth = deeper(depth)
        tree: list[Any] = []
        for index, (node, item) in enumerate(zip(self.items, value, strict=True)):
            try:
                tree.append(node.to(item, depth))
            except Mismatch as mismatch:
                raise mismatch.under(f"[{index}]") from None
        return tree

    def of(self, tree: Any) -> Any:
        if is_object(tree) and (tag := tag_of(tree)):
            return _checked(untag(tree, tag), tuple, self)
        if not is_array(tree) or len(tree) != len(self.items):
            raise self.expected(tree)
        found: list[Any] = []
        for index, (node, item) in enumerate(zip(self.items, tree, strict=True)):
            try:
                found.append(node.of(item))
            except Mismatch as mismatch:
                raise mismatch.under(f"[{index}]") from None
        return tuple(found)


class DictNode(Node):
    """``dict[K, V]``: an object where the keys' JSON is text or integer, else ``{"$dict": [[key, value], …]}``."""

    kinds = frozenset({"object", "$dict"})
    exact = dict

    def __init__(self, key: Node, item: Node, hint: str, base: type[Any] = dict) -> None:
        self.hint = hint
        self.key = key
        self.item = item
        self.base = base
        self.text_keys = key.kinds == frozenset({"str"})
        self.int_keys = key.spec is int
        if item.native and key.native and (self.text_keys or self.int_keys) and key.leaf:
            each, leaf = fits_each(item), key.leaf
            self.spec = GenericAlias(dict, (key.spec, item.spec))
            self.fits = lambda value: is_dict(value) and leaf.issuperset(map(type, value)) and each(value.values())

    def to(self, value: Any, depth: int) -> Any:
        if not is_dict(value):
            if isinstance(value, self.base):
                return to_tree(value, depth)
            raise self.expected(value)
        depth = deeper(depth)
        pairs: list[tuple[Any, Any]] = []
        for key, item in value.items():
            try:
                pairs.append((self._key_to(key, depth), self.item.to(item, depth)))
            except Mismatch as mismatch:
                raise mismatch.under(f"[{key!r}]") from None
        if self.text_keys and all(type(key) is str for key, _ in pairs):
            return {escape(key): item for key, item in pairs}
        if self.int_keys and all(type(key) is int for key, _ in pairs):
            return {str(key): item for key, item in pairs}
        return {"$dict": [list(pair) for pair in pairs]}

    def _key_to(self, key: Any, depth: int) -> Any:
        try:
            return self.key.to(key, depth)
        except Mismatch as mismatch:
            raise Mismatch(f"the key {key!r}: {mismatch.problem}") from None

    def of(self, tree: Any) -> Any:
        if not is_object(tree):
            raise self.expected(tree)
        items = tree
        tag = tag_of(items)
        if tag == "$dict":
            return {self.key.of(key): self._item_of(key, item) for key, item in items[tag]}
        if tag:
            return _checked(untag(items, tag), self.base, self)
        return {self._key_of(key): self._item_of(key, item) for key, item in items.items()}

    def _key_of(self, key: str) -> Any:
        if not self.int_keys:
            return self.key.of(unescape(key))
        try:
            return int(key)
        except ValueError:
            raise Mismatch(f"the key {key!r} is not an integer") from None

    def _item_of(self, key: Any, item: Any) -> Any:
        try:
            return self.item.of(item)
        except Mismatch as mismatch:
            raise mismatch.under(f"[{key!r}]") from None


class UnionNode(Node):
    """``A | B``: members whose JSON forms are disjoint stand plainly; the others say what they are, by tag."""

    def __init__(self, members: list[Node], hint: str) -> None:
        self.hint = hint
        self.members = members
        self.by_exact = {member.exact: member for member in members if member.exact is not None}
        claims: dict[str, list[Node]] = {}
        for member in members:
            for kind in member.kinds:
                claims.setdefault(kind, []).append(member)
        self.by_tag = _discriminated(claims.get("object", []))
        contested = {kind for kind, owners in claims.items() if len(owners) > 1}
        if self.by_tag:
            contested.discard("object")
        self.clear = [member for member in members if not (member.kinds & contested)]
        self.owner = {kind: owners[0] for kind, owners in claims.items() if owners[0] in self.clear}
        self.kinds = frozenset(claims) | ({"object"} if contested else frozenset())
        if len(self.clear) == len(members) and all(member.native for member in members):
            self._go_native()

    def _go_native(self) -> None:
        spec: Any = self.members[0].spec
        for member in self.members[1:]:
            spec = spec | member.spec if member.spec is not None else spec | None
        self.spec = spec
        if all(member.leaf for member in self.members):
            leaf = self.leaf = frozenset[type]().union(*(member.leaf for member in self.members))
            self.fits = lambda value: type(value) in leaf
        else:
            tests = [member.fits for member in self.members]
            self.fits = lambda value: any(test(value) for test in tests)

    def to(self, value: Any, depth: int) -> Any:
        first = self.by_exact.get(class_of(value))
        mismatch: Mismatch | None = None
        for member in self.members if first is None else [first, *(m for m in self.members if m is not first)]:
            try:
                tree = member.to(value, depth)
            except Mismatch as error:
                # The member of the value's own class knows best what is wrong with it.
                if member is first:
                    mismatch = error
                continue
            if member in self.clear:
                return tree
            # Contested: written so that it says itself what it is, as if there were no hint.
            bare = isinstance(member, SecretNode) and not member.wrapped
            return {"$secret": to_tree(value, depth)} if bare else to_tree(value, depth)
        raise mismatch or self.expected(value)

    def of(self, tree: Any) -> Any:
        kind = kind_of(tree)
        if kind == "object" and self.by_tag:
            field = next(iter(self.by_tag))[0]
            member = self.by_tag.get((field, tree.get(field)))
            if member is None:
                raise self.expected(tree)
            return member.of(tree)
        owner = self.owner.get(kind)
        if owner is not None:
            return owner.of(tree)
        if kind == "$type" or len(self.clear) < len(self.members):
            value = from_tree(tree)
            bare = kind == "$secret" and not any(isinstance(m, SecretNode) and m.wrapped for m in self.members)
            return value.reveal() if bare else value
        for member in self.members:  # a bool where the hint says int, and the like
            try:
                return member.of(tree)
            except Mismatch:
                continue
        raise self.expected(tree)


class SecretNode(Node):
    """``Secret[T]`` (``wrapped``) and ``Annotated[T, Secret]``: stored under a tag by which screens hide it."""

    kinds = frozenset({"$secret"})

    def __init__(self, inner: Node, wrapped: bool) -> None:
        self.hint = f"Secret[{inner.hint}]" if wrapped else inner.hint
        self.inner = inner
        self.wrapped = wrapped
        self.exact = Secret if wrapped else inner.exact

    def to(self, value: Any, depth: int) -> Any:
        if self.wrapped and not isinstance(value, Secret):
            raise Mismatch(f"expected {self.hint}; wrap the value: Secret(…)")
        try:
            return {"$secret": self.inner.to(cast("Any", value).reveal() if self.wrapped else value, deeper(depth))}
        except Mismatch:
            # The refusal shows the value, which must not be seen.
            raise Mismatch(f"a secret that does not fit {self.inner.hint}, or cannot be stored") from None

    def of(self, tree: Any) -> Any:
        hidden = is_object(tree) and "$secret" in tree
        try:
            value = self.inner.of(tree["$secret"] if hidden else tree)
        except Mismatch:
            raise Mismatch(f"a secret that does not fit {self.inner.hint}") from None
        return Secret(value) if self.wrapped else value


ABSTRACT: dict[Any, tuple[type[Any], type[Any]]] = {Sequence: (list, Sequence), AbstractSet: (set, AbstractSet)}
"""Abstract hints: what an untagged array becomes, and what else is taken (by tag)."""
MAPPINGS: frozenset[Any] = frozenset({Mapping})


def _discriminated(members: list[Node]) -> dict[tuple[str, Any], Node]:
    """Give the members by their discriminating field and value, if all have the same field and distinct values."""
    marks = [member.discriminator for member in members]
    known = {mark: member for mark, member in zip(marks, members, strict=True) if mark is not None}
    same_field = len({mark[0] for mark in known}) == 1
    return known if len(members) > 1 and len(known) == len(members) and same_field else {}


def _each(item: Node, trees: list[Any]) -> list[Any]:
    found: list[Any] = []
    for index, tree in enumerate(trees):
        try:
            found.append(item.of(tree))
        except Mismatch as mismatch:
            raise mismatch.under(f"[{index}]") from None
    return found


def _checked(value: Any, base: type[Any], node: Node) -> Any:
    if not isinstance(value, base):
        raise node.expected(value)
    return value


def text_key(key: str) -> str:
    """Write a field's name as a JSON key."""
    return escape(check_text(key))
