"""Types as files write them: ``int``, ``str | None``, ``list[str]``. A closed list, so that a file imports nothing."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from perdure.errors import SchemeError

KNOWN: Mapping[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "bytes": bytes,
    "datetime": datetime,
    "date": date,
    "time": time,
    "timedelta": timedelta,
    "Decimal": Decimal,
    "UUID": UUID,
    "list": list,
    "dict": dict,
    "set": set,
    "tuple": tuple,
    "Any": Any,
    "any": Any,
    "None": None,
}


def read(text: object, name: str) -> Any:
    """The type that a text names. Raises ``SchemeError`` with the types there are."""
    if isinstance(text, type):
        return text
    if not isinstance(text, str):
        return _refuse(text, name)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return _refuse(text, name)
    return _type(tree, lambda: _refuse(text, name))


def _refuse(text: object, name: str) -> Any:
    raise SchemeError(
        f"the type of {name!r} is {text!r}, which is none that a file may name; write one of "
        f"{', '.join(sorted(KNOWN))}, list[str], dict[str, int], int | None; or declare it in the class"
    )


def _type(node: ast.expr, refuse: Callable[[], Any]) -> Any:
    match node:
        case ast.Name(id=name) if name in KNOWN:
            return KNOWN[name]
        case ast.Constant(value=None):
            return None
        case ast.BinOp(op=ast.BitOr()):
            return _type(node.left, refuse) | _type(node.right, refuse)
        case ast.Subscript(value=ast.Name(id=name), slice=inside) if name in ("list", "dict", "set", "tuple"):
            parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            return KNOWN[name][tuple(_type(part, refuse) for part in parts)]
        case _:
            return refuse()
