"""difference: where a value and its decoded copy part.

Promises: types count as well as values (a tuple is not a list, ``1`` is not ``True``), NaN equals NaN and ``-0.0`` is
not ``0.0``; objects that compare by identity are compared by their fields.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from typing import Any, cast

import msgspec

from perdure.serde.names import class_of


def difference(a: Any, b: Any, depth: int = 0) -> str | None:
    """Give the path of the first part of ``a`` that ``b`` does not equal ("" if it is the whole), or None."""
    cls = class_of(a)
    if cls is not class_of(b) or depth > 100:
        return ""
    if cls is float:
        if math.isnan(a):
            return None if math.isnan(b) else ""
        return None if a == b and math.copysign(1, a) == math.copysign(1, b) else ""
    if isinstance(a, (list, tuple)):
        return _sequences(cast("Any", a), b, depth)
    if isinstance(a, dict):
        return _mappings(cast("Any", a), b, depth)
    fields = field_names(cls)
    if fields:
        for name in fields:
            found = difference(getattr(a, name, None), getattr(b, name, None), depth + 1)
            if found is not None:
                return f".{name}{found}"
        return None
    if isinstance(a, BaseException):
        return None if difference(a.args, b.args, depth + 1) is None else ""  # they compare by identity
    return None if bool(a == b) else ""


@functools.lru_cache(maxsize=2048)
def field_names(cls: type) -> tuple[str, ...]:
    """Name the data fields of a dataclass, Struct, NamedTuple, attrs or pydantic class; of anything else none."""
    known: Any = cls
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_fields__
    if dataclasses.is_dataclass(known):
        return tuple(field.name for field in dataclasses.fields(known))
    if issubclass(cls, tuple):
        return tuple(getattr(known, "_fields", ()))  # of a NamedTuple
    fields: Any = getattr(known, "__attrs_attrs__", None)
    if fields is not None:
        return tuple(field.name for field in fields)
    if is_pydantic(known):
        return tuple(known.model_fields)
    return ()


def is_pydantic(cls: type) -> bool:
    """Say whether the class is a pydantic model, without ever importing pydantic."""
    pydantic = sys.modules.get("pydantic")
    base = getattr(pydantic, "BaseModel", None) if pydantic is not None else None
    return base is not None and issubclass(cls, base)


def _sequences(a: list[Any], b: list[Any], depth: int) -> str | None:
    if len(a) != len(b):
        return ""
    for index, (left, right) in enumerate(zip(a, b, strict=True)):
        found = difference(left, right, depth + 1)
        if found is not None:
            return f"[{index}]{found}"
    return None


def _mappings(a: dict[Any, Any], b: dict[Any, Any], depth: int) -> str | None:
    if len(a) != len(b):
        return ""
    for key, left in a.items():
        if key not in b:
            return f"[{key!r}]"
        found = difference(left, b[key], depth + 1)
        if found is not None:
            return f"[{key!r}]{found}"
    return None
