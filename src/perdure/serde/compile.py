"""Compile: from a type hint to its node, once per hint.

Promises: a hint that is not understood is never an error here: it becomes a node that takes instances of that class by
tag, or refuses the value at the call with a path. Recursive classes work; they are written the careful way.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, Union, cast

import msgspec

from perdure.serde import classes, containers, scalars, tagged
from perdure.serde.containers import ABSTRACT, ArrayNode, DictNode, SecretNode, TupleNode, UnionNode
from perdure.serde.difference import is_pydantic
from perdure.serde.hints import class_hints
from perdure.serde.names import hint_text
from perdure.serde.node import EVERY_KIND, Node, is_dict
from perdure.serde.scalars import EnumNode, FloatNode, LiteralNode, ScalarNode, TextNode
from perdure.serde.secret import Secret, is_secret
from perdure.serde.tagged import AnyNode

_EMPTY: dict[Any, Any] = {}


class Later(Node):
    """Stands for a class that is being compiled: what refers to it is recursive, hence never native."""

    kinds = EVERY_KIND

    def __init__(self, target: Node) -> None:
        self.target = target
        self.hint = target.hint
        self.exact = target.exact
        self.kinds = target.kinds

    def to(self, value: Any, depth: int) -> Any:
        return self.target.to(value, depth)

    def of(self, tree: Any) -> Any:
        return self.target.of(tree)


class Compiler:
    """One compilation.

    ``names`` are the type variables that a generic class around has bound; ``under_way`` are classes half compiled.
    """

    def __init__(self, names: Mapping[Any, Any] = _EMPTY, under_way: dict[Any, Node] | None = None) -> None:
        self.names = names
        self.under_way: dict[Any, Node] = {} if under_way is None else under_way

    def node(self, hint: Any) -> Node:
        """Give the node of a hint."""
        if hint is None:
            hint = type(None)
        if isinstance(hint, TypeVar):
            hint = self._variable(hint)
        if hint in (Any, object, typing.Hashable, Ellipsis) or isinstance(hint, (str, typing.ForwardRef)):
            return AnyNode()
        alias = getattr(hint, "__value__", None)  # type X = … (3.12)
        if alias is not None and type(hint).__name__ == "TypeAliasType":
            return self.node(alias)
        supertype = getattr(hint, "__supertype__", None)  # NewType
        if supertype is not None:
            return self.node(supertype)
        origin = typing.get_origin(hint)
        if origin is None:
            return self._class(hint, ()) if isinstance(hint, type) else AnyNode(hint_text(hint))
        return self._special(hint, origin, typing.get_args(hint))

    def _variable(self, variable: TypeVar) -> Any:
        if variable in self.names:
            return self.names[variable]
        if variable.__bound__ is not None:
            return variable.__bound__
        return Union[variable.__constraints__] if variable.__constraints__ else Any  # noqa: UP007

    def _special(self, hint: Any, origin: Any, args: tuple[Any, ...]) -> Node:
        if origin is Annotated:
            inner = self.node(args[0])
            return SecretNode(inner, wrapped=False) if is_secret(hint.__metadata__) else inner
        if origin is Union or origin is types.UnionType:
            return self._union(hint, args)
        if origin is Literal:
            return LiteralNode(args, [self.node(type(value)) for value in args], hint)
        if origin is Secret:
            return SecretNode(self.node(args[0]), wrapped=True)
        if getattr(origin, "_name", None) in ("Required", "NotRequired", "ReadOnly", "Final", "ClassVar"):
            return self.node(args[0])
        if type(origin).__name__ == "TypeAliasType":  # a generic alias: its variables are bound by position
            bound = dict(zip(origin.__type_params__, args, strict=False))
            return Compiler({**self.names, **bound}, self.under_way).node(origin.__value__)
        if isinstance(origin, type):
            return self._class(origin, args, hint)
        return AnyNode(hint_text(hint))

    def _union(self, hint: Any, args: tuple[Any, ...]) -> Node:
        members = [self.node(arg) for arg in args if arg is not msgspec.UnsetType]
        if any(type(member) is AnyNode and member.base is None for member in members):
            return AnyNode(hint_text(hint))
        node = members[0] if len(members) == 1 else UnionNode(members, hint_text(hint))
        if len(members) < len(args):  # msgspec must see UNSET to allow it; the careful way skips such fields
            node.spec, node.fits, node.leaf = Node.spec, Node.fits, Node.leaf
        return node

    def _class(self, cls: type[Any], args: tuple[Any, ...], hint: Any = None) -> Node:
        text = hint_text(cls if hint is None else hint)
        if cls in _SCALARS:
            return ScalarNode(cls, _SCALARS[cls], tagged.to_tree, tagged.from_tree)
        if cls is float:
            return FloatNode()
        if cls in scalars.TEXT_BASES:
            return TextNode(cls, scalars.TEXT_BASES[cls], tagged.to_tree, tagged.from_tree)
        if cls is Secret:
            return SecretNode(AnyNode(), wrapped=True)
        if cls is tuple and args and not (len(args) == 2 and args[1] is Ellipsis):
            return TupleNode([self.node(arg) for arg in args if arg != ()], text)
        if cls in _ARRAYS:
            return ArrayNode(cls, self.node(args[0] if args else Any), text)
        if cls in _ABSTRACT_ARRAYS:
            concrete, base = _ABSTRACT_ARRAYS[cls]
            item = self.node(args[0] if args else Any)
            # An abstract hint takes a str as well, and JSON cannot tell its members' form: the careful way decides.
            return ArrayNode(concrete, item, text, base)
        if cls is dict or cls in _MAPPINGS:
            key, item = (self.node(args[0]), self.node(args[1])) if len(args) == 2 else (AnyNode(), AnyNode())
            if not args:
                return _BareDict(text, cls)
            return DictNode(key, item, text, cls)
        found = self.data_class(cls, args, text)
        return AnyNode(text, cls) if found is None else found

    def data_class(self, cls: Any, args: tuple[Any, ...], text: str) -> Node | None:
        """Give the node of a class of fields or an Enum, None of any other."""
        key: Any = (cls, args)
        try:
            hash(key)
        except TypeError:  # the parameters of a Callable are a list; extras in Annotated may be anything
            key = (cls, repr(args))
        if key in self.under_way:
            return Later(self.under_way[key])
        if issubclass(cls, Enum):
            return EnumNode(cls)
        if is_pydantic(cls):
            return classes.PydanticNode(cls[args] if args else cls)
        hints = class_hints(cls)
        names = _bind(cls, args, self.names)
        inner = Compiler(names, self.under_way)
        maker = _maker(cls)
        if maker is None:
            return None
        node = maker(cls, text)
        self.under_way[key] = node
        try:
            if isinstance(node, classes.TypedDictNode):
                node.prepare(hints, inner.node, cls.__required_keys__)
            else:
                cast("Any", node).prepare(hints, inner.node)
        finally:
            del self.under_way[key]
        if args and node.native:
            node.spec = cls[args]
        return node


class _BareDict(AnyNode):
    """``dict`` and ``Mapping`` without arguments: any keys, any values."""

    kinds = frozenset({"object", "$dict"})

    def __init__(self, hint: str, cls: type) -> None:
        super().__init__(hint, cls)
        if cls is dict:
            self.exact = dict
            self.spec = dict[str, Any]
            self.fits = lambda value: is_dict(value) and tagged.plain(value)


def _maker(cls: Any) -> type[classes.RecordNode] | None:
    """Say what kind of class of fields it is, None if of none."""
    if issubclass(cls, msgspec.Struct):
        return classes.StructNode
    if dataclasses.is_dataclass(cls):
        return classes.DataclassNode
    if "__attrs_attrs__" in cls.__dict__:
        return classes.AttrsNode
    if hasattr(cls, "_fields") and issubclass(cls, tuple):
        return classes.NamedTupleNode
    if hasattr(cls, "__required_keys__") and issubclass(cls, dict):
        return classes.TypedDictNode
    return None


def class_node(cls: type) -> Node | None:
    """Give the node of a class of fields or an Enum, compiled once; None of any other class."""
    try:
        return _class_nodes[cls]
    except KeyError:
        compiler = Compiler()
        node = None
        if cls not in _NO_DATA and not hasattr(cls, "__required_keys__"):
            node = compiler.data_class(cls, (), hint_text(cls))
        _class_nodes[cls] = node
        return node


def _bind(cls: type[Any], args: tuple[Any, ...], outer: Mapping[Any, Any]) -> dict[Any, Any]:
    """Bind the type variables of a generic class and of the generic bases that it fills in."""
    names: dict[Any, Any] = {}
    for base in getattr(cls, "__orig_bases__", ()):
        origin = typing.get_origin(base)
        parameters = getattr(origin, "__parameters__", ())
        if origin is not None and origin is not typing.Generic and parameters:
            names.update(zip(parameters, typing.get_args(base), strict=False))
    bound = [outer.get(arg, arg) if isinstance(arg, TypeVar) else arg for arg in args]
    names.update(zip(getattr(cls, "__parameters__", ()), bound, strict=False))
    return names


_class_nodes: dict[type, Node | None] = {}
_NO_DATA: frozenset[type] = frozenset({object, type, list, dict, tuple, set, frozenset})
_SCALARS: dict[type, str] = {str: "str", int: "int", bool: "bool", type(None): "null"}
_ARRAYS: frozenset[type] = frozenset({list, tuple, set, frozenset, collections.deque})
_ABSTRACT_ARRAYS: dict[Any, tuple[type, type]] = {
    **ABSTRACT,
    collections.abc.Iterable: (list, collections.abc.Iterable),
    collections.abc.Collection: (list, collections.abc.Collection),
    collections.abc.MutableSequence: (list, collections.abc.MutableSequence),
    collections.abc.MutableSet: (set, collections.abc.MutableSet),
}
_MAPPINGS: frozenset[Any] = containers.MAPPINGS | {collections.abc.MutableMapping}
tagged.use_compiler(class_node)
