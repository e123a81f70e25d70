"""Fingerprints of step calls: eight bytes by which a replay sees that it makes the same call.

Promises: equal in every process, under every hash seed and Python version from 3.11 on; sets and dicts are ordered
first. Only data counts: objects contribute their fields, whatever their class is called today, so that renaming a class
does not hold running workflows; what has no fields (a client, a function) contributes the name of its type alone, and
so does a ``Secret``, which may be rotated and must not be guessed from its fingerprint.

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
_LEAF = frozenset({str, int, bool, type(None)})
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
    whole = f"[{_canonical(name, 0)},{_canonical(tuple(args), 0)}"
    whole += f",{_canonical(dict(kwargs), 0)}]" if kwargs else "]"
    return _blake2b(whole.encode(), digest_size=SIZE).digest()


def fingerprint_data(name: str, data: bytes) -> bytes:
    """Give the fingerprint of a name with data that is already encoded canonically: a workflow and its input.

    The data is what ``ArgsShape.encode`` gives, never a codec's work: what is encrypted differs each time.
    """
    return _blake2b(_encode(name) + b"\0" + data, digest_size=SIZE).digest()


def _canonical(value: Any, depth: int) -> str:
    """Give the text that is hashed: JSON where the value is plain, marks that no JSON has where it is not."""
    cls = class_of(value)
    if cls in _LEAF:
        return _leaf(value)
    try:
        return _unlike_json(value, cls, depth) if depth < _DEPTH_MAX else f"?{cls.__qualname__}"
    except Exception:  # code of the user's (a property, an __iter__) failed: what is left is the name
        return f"?{cls.__qualname__}"


def _leaf(value: Any) -> str:
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        return f"s{value.encode('utf-8', 'surrogatepass').hex()}"
    except (ValueError, OverflowError):
        return hex(value)


def _unlike_json(value: Any, cls: type, depth: int) -> str:
    depth += 1
    if isinstance(value, Secret):
        return "?Secret"
    if isinstance(value, Enum):
        return _canonical(value.value, depth)
    if isinstance(value, (str, int)):
        return _leaf(str.__str__(value) if isinstance(value, str) else int(value))
    if isinstance(value, float):
        return f"f{float(value).hex()}"
    if isinstance(value, (list, tuple)):
        return _array(cast("list[Any]", value), depth)
    if isinstance(value, Opaque):
        return _canonical(value.value, depth)
    if isinstance(value, Mapping):
        return _object(cast("Any", value), depth)
    if isinstance(value, (set, frozenset)):
        return f"<{','.join(sorted(_canonical(item, depth) for item in cast('Iterable[Any]', value)))}>"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"b{_blake2b(cast('Any', value), digest_size=16).hexdigest()}"
    if isinstance(value, PurePath):
        return _leaf(value.as_posix())
    text = _text_of(cls)
    if text is not None:
        return f"t{_leaf(text.to(value))}"
    names = _compared(cls)
    if names:
        return _object({name: getattr(value, name, None) for name in names}, depth)
    return f"?{cls.__qualname__}"


def _array(items: list[Any], depth: int) -> str:
    if type(items) in (list, tuple) and _LEAF.issuperset(map(type, items)):
        try:
            return _encode(items).decode()  # the same text, a container at a time
        except (UnicodeEncodeError, ValueError):
            pass
    return f"[{','.join([_canonical(item, depth) for item in items])}]"


def _object(items: Mapping[Any, Any], depth: int) -> str:
    if all(type(key) is str for key in items):
        if class_of(items) is dict and _LEAF.issuperset(map(type, items.values())):
            try:
                return _encode_sorted(items).decode()
            except (UnicodeEncodeError, ValueError):
                pass
        pairs = [(_leaf(key), _canonical(items[key], depth)) for key in sorted(cast(Any, items))]
    else:
        pairs = sorted((_canonical(key, depth), _canonical(item, depth)) for key, item in items.items())
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
