"""Values to bytes and back: the JSON that a person can read in the database.

Promises:

- what is encoded decodes to an equal value of equal types, or is refused at the call (``Unserializable``) with the path
  to the part, its type and what to do; nothing is ever changed silently;
- plain values of plain hints take one test and one call of msgspec, nothing is decoded to see;
- the same value of the same hint gives the same bytes, in every process;
- stored data that cannot be decoded raises ``Unserializable`` with the path and the hint; decoding imports nothing.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from types import GenericAlias
from typing import Any, cast

import msgspec

from perdure.errors import Unserializable
from perdure.serde.codec import CODED, PAYLOAD_BYTES_MAX, is_coded, sized
from perdure.serde.compile import Compiler
from perdure.serde.hints import call_hints, hides
from perdure.serde.node import Mismatch, Node, escape, is_array, is_object, kind_of, unescape
from perdure.serde.secret import Secret
from perdure.serde.show import SHOWN_MAX, show, show_call, show_stored
from perdure.serde.tagged import Opaque

__all__ = [
    "ArgsShape",
    "Opaque",
    "Secret",
    "Shape",
    "show",
    "show_call",
    "show_stored",
]

_encode = msgspec.json.encode


class Shape:
    """How the values of one type hint are stored.

    Compiled once per hint::

    shape = Shape.of(list[Order])
    data = shape.encode(orders, "result")
    orders = shape.decode(data)
    """

    __slots__ = ("decoder", "fits", "hint", "node")

    def __init__(self, hint: Any) -> None:
        self.hint = hint
        self.node = Compiler().node(hint)
        self.fits, self.decoder = _native(self.node)

    @staticmethod
    def of(hint: Any) -> Shape:
        """Give the shape of a hint; a missing one (``inspect.Parameter.empty``) is Any."""
        if hint is inspect.Parameter.empty:
            hint = Any
        try:
            return _shapes[hint]
        except KeyError:
            return _shapes.setdefault(hint, Shape(hint))
        except TypeError:  # unhashable extras in Annotated
            return Shape(hint)

    def encode(self, value: Any, where: str = "value") -> bytes:
        """Give the JSON of ``value``, or raise ``Unserializable`` naming ``where`` and the path inside it."""
        if self.fits(value):
            try:
                data = _encode(value)
            except (TypeError, ValueError, RecursionError):  # surrogates, integers of thousands of digits
                pass
            else:
                if _innocent(data):
                    return data
        return sized(_encode(_to(self, value, where)), where)

    def decode(self, data: bytes, where: str = "value") -> Any:
        """Give the value of stored JSON, or raise ``Unserializable`` naming the path and the hint."""
        if self.decoder is not None and not _tagged(data):
            try:
                return self.decoder.decode(data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
        try:
            tree = _tree(data)
        except Mismatch as mismatch:
            raise _undecodable(mismatch, where, self.node.hint) from mismatch
        return _of(self, tree, where)

    def __repr__(self) -> str:
        return f"Shape.of({self.node.hint})"


_shapes: dict[Any, Shape] = {}


class ArgsShape:
    """How the arguments of calls of one function are stored.

    Canonical: arguments are bound to the signature, so ``f(1, b=2)`` and ``f(a=1, b=2)`` give the same JSON, a plain
    array ``[1,2]``. What is keyword-only, or follows a parameter that was left out, stands by name:
    ``{"$args":[1],"express":true}``. Defaults are not filled in::

        shape = ArgsShape.of(checkout)
        data = shape.encode(("42",), {"cents": 1999})   # b'["42",1999]'
        args, kwargs = shape.decode(data)
    """

    __slots__ = (
        "_decoders",
        "_fits",
        "_hidden",
        "_named_only",
        "_names",
        "_required",
        "_rest",
        "_rest_kw",
        "_shapes",
        "returns",
        "signature",
    )

    def __init__(self, signature: inspect.Signature, hints: Mapping[str, Any], skip: int = 0) -> None:
        parameters = list(signature.parameters.values())[skip:]
        self.signature = signature.replace(parameters=parameters)
        self.returns: Any = hints.get("return", signature.return_annotation)
        self._names: list[str] = []  # positional parameters, in order; "" for one that has no name for callers
        self._required = 0
        self._named_only = False  # a parameter that can only be given by name must be given
        self._rest: Shape | None = None  # of *args
        self._rest_kw: Shape | None = None  # of **kwargs
        self._shapes: dict[str | int, Shape] = {}
        self._hidden: set[str | int] = set()
        for parameter in parameters:
            self._take(parameter, hints.get(parameter.name, parameter.annotation))
        self._fits = [self._shapes[index].fits for index in range(len(self._names))]
        self._decoders: dict[int, msgspec.json.Decoder[Any] | None] = {}

    def _take(self, parameter: inspect.Parameter, hint: Any) -> None:
        shape = Shape.of(Any if isinstance(hint, str) else hint)
        kind = parameter.kind
        if kind is parameter.VAR_POSITIONAL:
            self._rest = shape
        elif kind is parameter.VAR_KEYWORD:
            self._rest_kw = shape
        else:
            keys: list[str | int] = []
            if kind is not parameter.KEYWORD_ONLY:
                keys.append(len(self._names))
                self._names.append("" if kind is parameter.POSITIONAL_ONLY else parameter.name)
                if parameter.default is parameter.empty:
                    self._required = len(self._names)
            elif parameter.default is parameter.empty:
                self._named_only = True
            if kind is not parameter.POSITIONAL_ONLY:
                keys.append(parameter.name)
            for key in keys:
                self._shapes[key] = shape
                if hides(hint):
                    self._hidden.add(key)

    @staticmethod
    def of(
        target: Callable[..., Any] | inspect.Signature, skip: int = 0, names: Mapping[str, Any] | None = None
    ) -> ArgsShape:
        """Give the shape of a function's (or signature's) arguments, without its first ``skip`` parameters.

        ``skip=1`` leaves out a method's ``self`` or a transaction's session. ``names`` are local names that
        annotations in string form may use, beside the function's module and closure; what cannot be resolved counts
        as missing, as does every string in a bare signature.
        """
        if isinstance(target, inspect.Signature):
            return ArgsShape(target, {}, skip)
        return ArgsShape(inspect.signature(target), call_hints(target, names), skip)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the canonical arguments of a call; ``TypeError``, as Python says it, if they do not fit."""
        if not kwargs and self._required <= len(args) <= len(self._names) and not self._named_only:
            return args, {}
        bound = self.signature.bind(*args, **kwargs)
        found, named = list(bound.args), dict(bound.kwargs)
        given = bound.arguments
        # After a gap Signature.bind already gives the rest by name; what remains is one order of names for all calls.
        order = {name: index for index, name in enumerate(self.signature.parameters)}
        last = len(order)
        names = sorted(named, key=lambda name: (order.get(name, last) if name in given else last, name))
        return tuple(found), {name: named[name] for name in names}

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Give the JSON of a call's arguments, or raise ``Unserializable`` (``args[0].lines[3].img: …``)."""
        args, named = self.bind(args, kwargs)
        if not named and self._rest is None and all(fits(arg) for fits, arg in zip(self._fits, args, strict=False)):
            try:
                data = _encode(args)
            except (TypeError, ValueError, RecursionError):
                pass
            else:
                if _innocent(data):
                    return data
        trees = [_to(self._shape(index), arg, f"args[{index}]") for index, arg in enumerate(args)]
        if not named:
            return sized(_encode(trees), "args")
        tree: dict[str, Any] = {"$args": trees}
        for name, value in named.items():
            tree[escape(name)] = _to(self._shape(name), value, name)
        return sized(_encode(tree), "args")

    def decode(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of stored JSON, or raise ``Unserializable`` naming the argument and its hint."""
        if data[:1] == b"[" and not _tagged(data):
            found = self._decode_natively(data)
            if found is not None:
                return found, {}
        try:
            tree = _tree(data)
        except Mismatch as mismatch:
            raise _undecodable(mismatch, "args", "arguments") from mismatch
        if is_array(tree):
            trees, named = tree, {}
        elif is_object(tree) and kind_of(tree) == "$args":
            trees, named = tree.pop("$args"), {unescape(name): item for name, item in tree.items()}
        else:
            raise Unserializable(f"args: expected arguments, found {show(tree, 80)}.", "args")
        args = tuple(_of(self._shape(index), item, f"args[{index}]") for index, item in enumerate(trees))
        return args, {name: _of(self._shape(name), item, name) for name, item in named.items()}

    @property
    def hidden(self) -> frozenset[str | int]:
        """Arguments that are never shown, by name and by position."""
        return frozenset(self._hidden)

    def show(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], limit: int = SHOWN_MAX) -> str:
        """Give bounded text of a call's arguments for people, secrets hidden: ``'42', 1999, express=True``."""
        return show_call(args, dict(kwargs), limit, self._hidden)

    def _shape(self, key: str | int) -> Shape:
        """The shape of an argument; of one that the code no longer has, Any."""
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._rest if isinstance(key, int) else self._rest_kw
        return shape or Shape.of(Any)

    def _decode_natively(self, data: bytes) -> tuple[Any, ...] | None:
        """Decode an array of plain arguments by msgspec alone, if it is one: as a full call, then as a shorter."""
        for count in range(len(self._names), self._required - 1, -1):
            if count not in self._decoders:
                specs = [self._shapes[index].node.spec for index in range(count)]
                native = all(self._shapes[index].decoder is not None for index in range(count))
                self._decoders[count] = (
                    msgspec.json.Decoder(GenericAlias(tuple, tuple(specs))) if native and specs else None
                )
            decoder = self._decoders[count]
            if decoder is None:
                continue
            try:
                return cast("tuple[Any, ...]", decoder.decode(data))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
        return None


def _tagged(data: bytes) -> bool:
    """Whether JSON may hold a tag. One byte is found much faster than two, and is rare."""
    return b"$" in data and b'"$' in data


def _innocent(data: bytes) -> bool:
    """Whether freshly made JSON can stand as it is; if it may hold what looks like a tag or NUL, look closely."""
    return (
        not (b"$" in data and b'"$' in data)
        and not (b"\\" in data and b"\\u0000" in data)
        and len(data) <= PAYLOAD_BYTES_MAX
    )


def _native(node: Node) -> tuple[Callable[[Any], bool], msgspec.json.Decoder[Any] | None]:
    """Give the native way of a node, if msgspec agrees that it knows the type."""
    if node.native:
        # A class whose own annotations msgspec cannot resolve or does not support is handled the careful way.
        with contextlib.suppress(Exception):
            return node.fits, msgspec.json.Decoder(node.spec)
    return Node.fits, None


def _tree(data: bytes) -> Any:
    if is_coded(data):
        raise Mismatch(CODED)
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Mismatch(f"the stored data is no JSON: {error}") from None


def _to(shape: Shape, value: Any, where: str) -> Any:
    try:
        return shape.node.to(value, 0)
    except Mismatch as mismatch:
        raise _unserializable(mismatch, where) from mismatch.__cause__
    except Exception as error:  # a property, an __iter__ or the like of the user's
        problem = Mismatch(f"{type(error).__name__} while it was being stored: {error}")
        raise _unserializable(problem, where) from error


def _of(shape: Shape, tree: Any, where: str) -> Any:
    try:
        return shape.node.of(tree)
    except Mismatch as mismatch:
        raise _undecodable(mismatch, where, shape.node.hint) from mismatch
    except Exception as error:  # data of no shape that this file ever wrote
        raise _undecodable(Mismatch(f"{type(error).__name__}: {error}"), where, shape.node.hint) from error


def _unserializable(mismatch: Mismatch, where: str) -> Unserializable:
    path = where + mismatch.path
    return Unserializable(f"{path}: {mismatch.problem}.", path)


def _undecodable(mismatch: Mismatch, where: str, hint: str) -> Unserializable:
    path = where + mismatch.path
    return Unserializable(f"{path}: the stored value cannot be read as {hint}: {mismatch.problem}.", path)
