"""Classes: dataclasses, msgspec Structs, attrs and pydantic classes, NamedTuples and TypedDicts.

Promises: neither pydantic nor attrs is ever imported; a class whose construction runs code of the user's (``__init__``,
``__post_init__``, converters, validators) is decoded and compared at once, so that what does not survive is refused at
the call; the others are not, because nothing in between can change them.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from perdure.serde.containers import text_key
from perdure.serde.difference import difference
from perdure.serde.names import class_of, hint_text, type_text
from perdure.serde.node import (
    EVERY_KIND,
    Mismatch,
    Node,
    check_text,
    deeper,
    escape,
    is_array,
    is_dict,
    is_object,
    kind_of,
    tag_of,
    unescape,
)
from perdure.serde.tagged import to_tree, untag

Compile = Callable[[Any], Node]
_GONE = object()


class Field(msgspec.Struct, frozen=True):
    """One field: the attribute, the name in JSON, the constructor's argument (None: set after it), whether optional."""

    name: str
    key: str
    argument: str | None
    optional: bool
    node: Node


class RecordNode(Node):
    """The common part: an object of named fields. ``verify`` where construction runs the user's code."""

    kinds = frozenset({"object"})
    verify = False

    def __init__(self, cls: type[Any], hint: str) -> None:
        self.hint = hint
        self.cls = cls
        self.exact = cls
        self.fields: tuple[Field, ...] = ()
        self.tag: tuple[str, Any] | None = None
        self.array = False
        self.forbid = False
        self.defaults: dict[str, Callable[[], Any]] = {}  # fields that are left out where they equal this

    def finish(self, fields: list[Field]) -> None:
        """Take the compiled fields (which may refer to this node), and go native if nothing speaks against it."""
        self.fields = tuple(fields)
        if not self.verify and self.may_be_native() and all(field.node.native for field in fields):
            self.spec = self.cls
            self.fits = record_fits(self.cls, self.fields)

    def may_be_native(self) -> bool:
        """Whether msgspec writes and builds this kind of class as we do."""
        return False

    def build(self, values: dict[str, Any], later: dict[str, Any]) -> Any:
        """Make the instance."""
        made = self.cls(**values)
        for name, value in later.items():
            object.__setattr__(made, name, value)
        return made

    def to(self, value: Any, depth: int) -> Any:
        if type(value) is not self.cls:
            if isinstance(value, self.cls):
                return to_tree(value, depth)
            raise self.expected(value)
        deep = deeper(depth)
        tree: dict[str, Any] = {}
        if self.tag is not None:
            tree[escape(self.tag[0])] = self.tag[1]
        for field in self.fields:
            part = getattr(value, field.name, _GONE)
            if part is msgspec.UNSET or (field.name in self.defaults and self._is_default(field.name, part)):
                continue
            try:
                if part is _GONE:
                    raise Mismatch("the field is not set")
                tree[field.key] = field.node.to(part, deep)
            except Mismatch as mismatch:
                raise mismatch.under(f".{field.name}") from None
        whole = list(tree.values()) if self.array else tree
        if self.verify:
            survives(self, value, whole)
        return whole

    def _is_default(self, name: str, part: Any) -> bool:
        return difference(part, self.defaults[name]()) is None

    def of(self, tree: Any) -> Any:
        if is_object(tree) and (tag := tag_of(tree)):
            value = untag(tree, tag)
            if not isinstance(value, self.cls):
                raise self.expected(value)
            return value
        items = self._items(tree)
        values: dict[str, Any] = {}
        later: dict[str, Any] = {}
        for field in self.fields:
            if field.key not in items:
                if field.optional:
                    continue
                raise Mismatch(f"the field {field.name} of {self.hint} is missing and has no default")
            try:
                part = field.node.of(items[field.key])
            except Mismatch as mismatch:
                raise mismatch.under(f".{field.name}") from None
            if field.argument is None:
                later[field.name] = part
            else:
                values[field.argument] = part
        try:
            return self.build(values, later)
        except Exception as error:
            raise Mismatch(f"{self.hint} cannot be made again: {type(error).__name__}: {error}") from error

    def _items(self, tree: Any) -> Mapping[str, Any]:
        if self.array and is_array(tree):
            names = [] if self.tag is None else [escape(self.tag[0])]
            tree = dict(zip([*names, *(field.key for field in self.fields)], tree, strict=False))
        if not is_object(tree):
            raise self.expected(tree)
        items = tree
        if self.tag is not None and items.get(escape(self.tag[0]), self.tag[1]) != self.tag[1]:
            raise self.expected(items)
        if self.forbid:
            extra = items.keys() - {field.key for field in self.fields} - ({self.tag[0]} if self.tag else set())
            if extra:
                raise Mismatch(f"{self.hint} has no field {min(extra)}")
        return items


def record_fits(cls: type[Any], fields: tuple[Field, ...]) -> Callable[[Any], bool]:
    """Give the test that an instance is of exactly this class and each field fits its hint."""
    leaves = [(field.name, field.node.leaf) for field in fields if field.node.leaf]
    others = [(field.name, field.node.fits) for field in fields if not field.node.leaf]

    def fits(value: Any) -> bool:
        if type(value) is not cls:
            return False
        try:
            for name, leaf in leaves:
                if type(getattr(value, name)) not in leaf:
                    return False
            for name, test in others:
                if not test(getattr(value, name)):
                    return False
        except AttributeError:
            return False
        return True

    return fits


def survives(node: Node, value: Any, tree: Any) -> None:
    """Refuse a value that its decoded copy does not equal, naming the first part where they differ."""
    try:
        copy = node.of(tree)
    except Mismatch as mismatch:
        raise Mismatch(f"does not survive being stored: {mismatch.problem}").under(mismatch.path) from None
    try:
        path = difference(value, copy)
    except Exception as error:
        raise Mismatch(f"cannot be compared with its stored copy: {type(error).__name__}: {error}") from error
    if path is not None:
        raise Mismatch(
            f"a value of type {type_text(class_of(value))} comes back different from its JSON; "
            "make its fields survive being written and read, or store a plain part of it"
        ).under(path)


class DataclassNode(RecordNode):
    """A dataclass. Extra attributes of an instance are no fields and are not stored."""

    def prepare(self, hints: Mapping[str, Any], compile_hint: Compile) -> None:
        """Compile the fields."""
        cls = self.cls
        generated = getattr(getattr(cls.__init__, "__code__", None), "co_filename", "") == "<string>"
        settled = all(field.init for field in dataclasses.fields(cls))
        inputs = any(
            getattr(field, "_field_type", None) is getattr(dataclasses, "_FIELD_INITVAR", _GONE)
            for field in cls.__dataclass_fields__.values()
        )
        hooked = hasattr(cls, "__post_init__") or runs_new(cls) or custom(cls.__setattr__)
        self.verify = inputs or not settled or not generated or hooked
        fields: list[Field] = []
        for field in dataclasses.fields(cls):
            missing = dataclasses.MISSING
            optional = field.default is not missing or field.default_factory is not missing or not field.init
            node = compile_hint(hints.get(field.name, Any))
            fields.append(Field(field.name, text_key(field.name), field.name if field.init else None, optional, node))
        self.finish(fields)

    def may_be_native(self) -> bool:
        return True


class StructNode(RecordNode):
    """A msgspec Struct, with its own names, tag and array form."""

    def prepare(self, hints: Mapping[str, Any], compile_hint: Compile) -> None:
        """Compile the fields."""
        cls = self.cls
        config: Any = cls.__struct_config__
        self.array = config.array_like
        self.forbid = config.forbid_unknown_fields
        self.verify = hasattr(cls, "__post_init__")
        if config.tag_field is not None:
            self.tag = (config.tag_field, config.tag)
        if self.array:
            self.kinds = frozenset({"array"})
        elif self.tag is not None:
            self.discriminator = self.tag
        fields: list[Field] = []
        for field in msgspec.structs.fields(cls):
            if config.omit_defaults and not self.array and not field.required:
                self.defaults[field.name] = _default_of(field)
            node = compile_hint(hints.get(field.name, Any))
            fields.append(Field(field.name, text_key(field.encode_name), field.name, not field.required, node))
        self.finish(fields)
        if self.defaults:
            # msgspec leaves out what is identical to the default, not what is equal: the same value could be written
            # in two ways. So it only reads these.
            self.fits = Node.fits

    def may_be_native(self) -> bool:
        return True


class AttrsNode(RecordNode):
    """An attrs class."""

    def prepare(self, hints: Mapping[str, Any], compile_hint: Compile) -> None:
        """Compile the fields."""
        cls = self.cls
        nothing: Any = getattr(sys.modules.get("attr"), "NOTHING", None)
        attributes = cast("tuple[Any, ...]", cls.__attrs_attrs__)
        runs = any(attribute.converter or attribute.validator or not attribute.init for attribute in attributes)
        made = getattr(getattr(cls.__init__, "__code__", None), "co_filename", "").startswith("<attrs")
        hooked = hasattr(cls, "__attrs_post_init__") or hasattr(cls, "__attrs_pre_init__")
        self.verify = runs or hooked or not made
        fields: list[Field] = []
        for attribute in attributes:
            argument = getattr(attribute, "alias", None) or attribute.name.lstrip("_")
            node = compile_hint(hints.get(attribute.name, Any))
            optional = attribute.default is not nothing or not attribute.init
            key = text_key(attribute.name)
            fields.append(Field(attribute.name, key, argument if attribute.init else None, optional, node))
        self.finish(fields)


class NamedTupleNode(RecordNode):
    """A NamedTuple: an object, because names outlive positions."""

    def prepare(self, hints: Mapping[str, Any], compile_hint: Compile) -> None:
        """Compile the fields."""
        defaults: Any = getattr(self.cls, "_field_defaults", {})
        names = cast("tuple[str, ...]", getattr(self.cls, "_fields", ()))
        self.verify = not hasattr(self.cls.__new__, "__code__") or self.cls.__new__.__code__.co_filename[:1] != "<"
        self.finish(
            [Field(name, text_key(name), name, name in defaults, compile_hint(hints.get(name, Any))) for name in names]
        )


class TypedDictNode(RecordNode):
    """A TypedDict: a dict with known keys; unknown ones are refused, for they would have no hint to come back by."""

    def prepare(self, hints: Mapping[str, Any], compile_hint: Compile, required: frozenset[str]) -> None:
        """Compile the fields."""
        self.exact = dict
        fields = [
            Field(name, text_key(name), name, _optional(name, hint, required), compile_hint(hint))
            for name, hint in hints.items()
        ]
        self.finish(fields)
        if all(field.node.native for field in fields):
            self.spec = self.cls
            self.tests = {field.name: field.node.fits for field in fields}
            self.required = frozenset(field.name for field in fields if not field.optional)
            self.fits = self._fits

    def _fits(self, value: Any) -> bool:
        if not is_dict(value) or not self.required <= value.keys():
            return False
        tests = self.tests
        return all(name in tests and tests[name](item) for name, item in value.items())

    def build(self, values: dict[str, Any], later: dict[str, Any]) -> Any:
        return values

    def to(self, value: Any, depth: int) -> Any:
        if not is_dict(value):
            raise self.expected(value)
        deep = deeper(depth)
        tree: dict[str, Any] = {}
        known = {field.name: field for field in self.fields}
        for name, item in value.items():
            field = known.get(name) if type(name) is str else None
            try:
                if field is None:
                    raise Mismatch(f"{self.hint} has no such key; declare it, or hint the value as dict[str, Any]")
                tree[field.key] = field.node.to(item, deep)
            except Mismatch as mismatch:
                raise mismatch.under(f"[{name!r}]") from None
        for field in self.fields:
            if not field.optional and field.name not in value:
                raise Mismatch(f"the key {field.name!r} of {self.hint} is missing")
        return tree


class PydanticNode(Node):
    """A pydantic model: its own JSON, by alias, always decoded and compared (its validators are the user's code)."""

    def __init__(self, cls: type[Any]) -> None:
        self.hint = hint_text(cls)
        self.cls: Any = cls
        self.exact = cls
        root = getattr(cls, "__pydantic_root_model__", False)
        self.kinds = EVERY_KIND if root else frozenset({"object"})

    def to(self, value: Any, depth: int) -> Any:
        if type(value) is not self.cls:
            if isinstance(value, self.cls):
                return to_tree(value, depth)
            raise self.expected(value)
        try:
            text: str = value.model_dump_json(by_alias=True, round_trip=True, warnings=False)
            tree = msgspec.json.decode(check_text(text))
        except Mismatch:
            raise
        except Exception as error:
            raise Mismatch(f"{self.hint} gives no JSON: {type(error).__name__}: {error}") from error
        if "\\u0000" in text:
            _no_nul(tree)
        # Inside, the JSON is pydantic's own business; only the outermost keys could be taken for tags.
        if is_object(tree):
            tree = {escape(key): item for key, item in tree.items()}
        survives(self, value, tree)
        return tree

    def of(self, tree: Any) -> Any:
        if kind_of(tree) == "$type":
            value = untag(tree, "$type")
            if not isinstance(value, self.cls):
                raise self.expected(value)
            return value
        if is_object(tree):
            tree = {unescape(key): item for key, item in tree.items()}
        try:
            return self.cls.model_validate_json(msgspec.json.encode(tree))
        except Exception as error:
            raise Mismatch(f"is no {self.hint}: {error}") from error


def runs_new(cls: type[Any]) -> bool:
    """Whether making an instance runs a ``__new__`` written in Python."""
    return hasattr(cls.__new__, "__code__")


def custom(method: Any) -> bool:
    """Whether a method was written by a person, and not generated or built in."""
    code = getattr(method, "__code__", None)
    return code is not None and not code.co_filename.startswith("<")


def _default_of(field: msgspec.structs.FieldInfo) -> Callable[[], Any]:
    if field.default_factory is not msgspec.NODEFAULT:
        return cast("Callable[[], Any]", field.default_factory)
    return lambda: field.default


def _optional(name: str, hint: Any, required: frozenset[str]) -> bool:
    """Whether a key may be left out. Python overlooks ``NotRequired`` where annotations are strings."""
    mark = getattr(typing.get_origin(hint), "_name", None)
    return mark == "NotRequired" or (mark != "Required" and name not in required)


def _no_nul(tree: Any) -> None:
    if isinstance(tree, str):
        check_text(tree)
    elif is_array(tree):
        for item in tree:
            _no_nul(item)
    elif is_object(tree):
        for key, item in tree.items():
            check_text(key)
            _no_nul(item)
