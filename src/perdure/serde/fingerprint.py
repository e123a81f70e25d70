"""Fingerprints of step calls: eight bytes by which a replay sees that it makes the same call.

Promises: equal in every process, under every hash seed and Python version from 3.11 on; sets and dicts are ordered
first. Only data counts: objects contribute their fields, whatever their class is called today, so that renaming a class
does not hold running workflows; what has no fields (a client, a function) contributes the name of its type alone, and
so does a ``Secret``, which may be rotated and must not be guessed from its fingerprint. What refers back to
itself, or is shared so often that its whole text would never end, takes bounded time: then back-references count as
such, and below a depth that depends on the value alone, only names.

The bytes are stored. Golden tests pin them: a change here makes running workflows mismatch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, cast

import msgspec

from perdure.serde.difference import field_names
from perdure.serde.names import class_of
from perdure.serde.scalars import TEXTS, Text
from perdure.serde.secret import Secret
from perdure.serde.tagged import Opaque

SIZE = 8
_DEPTH_MAX = 64
_UNCOUNTED_MAX = 8  # levels that are walked without counting: whoever refers back to himself goes deeper at once
_VISITS_MAX = 50_000  # …and four for each object, by a walk that counts
_LEAF = frozenset({str, int, bool, type(None)})
_EMPTY = ()  # one object, however often it occurs
_CONTAINERS = (list, tuple, Mapping, set, frozenset)
_encode = msgspec.json.encode
_blake2b = hashlib.blake2b
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


def fingerprint(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """Give the fingerprint of a call: its step's name and arguments as given (without a method's ``self``).

    ``fingerprint("charge", ("42", 1999), {})`` is the same eight bytes everywhere. Arguments need not be encodable.
    """
    if not kwargs and _LEAF.issuperset(map(type, args)):
        try:
            return _blake2b(_encode((name, args)), digest_size=SIZE).digest()
        except (UnicodeEncodeError, ValueError):  # lone surrogates, integers of thousands of digits
            pass
    try:
        whole = _whole(name, args, kwargs, None)
    except _TooMuch:
        whole = _counted(name, args, kwargs)
    return _blake2b(whole.encode(), digest_size=SIZE).digest()


def fingerprint_data(name: str, data: bytes) -> bytes:
    """Give the fingerprint of a name with data that is already encoded canonically: a workflow and its input.

    The data is what ``ArgsShape.encode`` gives, never a codec's work: what is encrypted differs each time.
    """
    return _blake2b(_encode(name) + b"\0" + data, digest_size=SIZE).digest()


class _TooMuch(BaseException):
    """The walk must be begun again, otherwise. Not caught as what code of the user's raises is."""


class _Walk:
    """A walk that counts its visits and, with ``cut``, goes into no object that it is in already."""

    def __init__(self, depth_max: int, *, cut: bool) -> None:
        self.depth_max = depth_max
        self.cut = cut
        self.above: dict[int, int] = {}  # the objects that it is in: their depth
        self.seen: dict[int, Any] = {}  # kept, so that ids are not given to others
        self.visits = 0

    def canonical(self, value: Any, cls: type, depth: int) -> str:
        if depth >= self.depth_max:
            return f"?{cls.__qualname__}"
        key = id(value)
        if key in self.above:
            return f"^{depth - self.above[key]}"
        if (isinstance(value, _CONTAINERS) or _compared(cls)) and value is not _EMPTY:
            self.visits += 1
            self.seen[key] = value
            if self.visits > max(_VISITS_MAX, 4 * len(self.seen)):  # a mere tree may be as large as it likes
                raise _TooMuch
            if self.cut:
                self.above[key] = depth
        try:
            return _unlike_json(value, cls, depth, self)
        except Exception:
            return f"?{cls.__qualname__}"
        finally:
            self.above.pop(key, None)


def _counted(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The text of a call whose arguments are deep: the same as ever, unless that would take too long.

    A bound of visits that merely stopped would cut sets elsewhere in each process; one of depth does not.
    """
    try:
        return _whole(name, args, kwargs, _Walk(_DEPTH_MAX, cut=False))
    except _TooMuch:
        pass
    depth = _DEPTH_MAX
    while True:
        try:
            return _whole(name, args, kwargs, _Walk(depth, cut=True))
        except _TooMuch:
            depth //= 2  # at 1 there are two visits


def _whole(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], walk: _Walk | None) -> str:
    whole = f"[{_canonical(name, 0, walk)},{_canonical(tuple(args), 0, walk)}"
    return whole + (f",{_canonical(dict(kwargs), 0, walk)}]" if kwargs else "]")


def _canonical(value: Any, depth: int, walk: _Walk | None = None) -> str:
    """Give the text that is hashed: JSON where the value is plain, marks that no JSON has where it is not."""
    cls = class_of(value)
    if cls in _LEAF:
        return _leaf(value)
    if walk is not None:
        return walk.canonical(value, cls, depth)
    if depth >= _UNCOUNTED_MAX:
        raise _TooMuch
    try:
        return _unlike_json(value, cls, depth, None)
    except Exception:  # code of the user's (a property, an __iter__) failed: what is left is the name
        return f"?{cls.__qualname__}"


def _leaf(value: Any) -> str:
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        return f"s{value.encode('utf-8', 'surrogatepass').hex()}"
    except (ValueError, OverflowError):
        return hex(value)


def _unlike_json(value: Any, cls: type, depth: int, walk: _Walk | None) -> str:
    depth += 1
    if isinstance(value, Secret):
        return "?Secret"
    if isinstance(value, Enum):
        return _canonical(value.value, depth, walk)
    if isinstance(value, (str, int)):
        return _leaf(str.__str__(value) if isinstance(value, str) else int(value))
    if isinstance(value, float):
        return f"f{float(value).hex()}"
    if isinstance(value, (list, tuple)):
        return _array(cast("list[Any]", value), depth, walk)
    if isinstance(value, Opaque):
        return _canonical(value.value, depth, walk)
    if isinstance(value, Mapping):
        return _object(cast("Any", value), depth, walk)
    if isinstance(value, (set, frozenset)):
        return f"<{','.join(sorted(_canonical(item, depth, walk) for item in cast('Iterable[Any]', value)))}>"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"b{_blake2b(cast('Any', value), digest_size=16).hexdigest()}"
    if isinstance(value, PurePath):
        return _leaf(value.as_posix())
    text = _text_of(cls)
    if text is not None:
        return f"t{_leaf(text.to(value))}"
    names = _compared(cls)
    if names:
        return _object({name: getattr(value, name, None) for name in names}, depth, walk)
    return f"?{cls.__qualname__}"


def _array(items: list[Any], depth: int, walk: _Walk | None) -> str:
    if type(items) in (list, tuple) and _LEAF.issuperset(map(type, items)):
        try:
            return _encode(items).decode()  # the same text, a container at a time
        except (UnicodeEncodeError, ValueError):
            pass
    return f"[{','.join([_canonical(item, depth, walk) for item in items])}]"


def _object(items: Mapping[Any, Any], depth: int, walk: _Walk | None) -> str:
    if all(type(key) is str for key in items):
        if class_of(items) is dict and _LEAF.issuperset(map(type, items.values())):
            try:
                return _encode_sorted(items).decode()
            except (UnicodeEncodeError, ValueError):
                pass
        pairs = [(_leaf(key), _canonical(items[key], depth, walk)) for key in sorted(cast(Any, items))]
    else:
        pairs = sorted((_canonical(key, depth, walk), _canonical(item, depth, walk)) for key, item in items.items())
    return f"{{{','.join([f'{key}:{item}' for key, item in pairs])}}}"


@functools.lru_cache(maxsize=1024)
def _text_of(cls: type) -> Text | None:
    return next((TEXTS[base] for base in cls.__mro__ if base in TEXTS), None)


@functools.lru_cache(maxsize=1024)
def _compared(cls: type) -> tuple[str, ...]:
    """The fields that count: of a dataclass those that its equality counts."""
    known: Any = cls
    if dataclasses.is_dataclass(known):
        return tuple(field.name for field in dataclasses.fields(known) if field.compare)
    return field_names(cls)
