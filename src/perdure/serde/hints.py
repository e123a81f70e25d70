"""Hints: type annotations resolved without running anything of the user's, one by one.

Promises: an annotation that cannot be resolved (a name that only a type checker sees) is ``Any`` by itself and never
spoils its neighbours; ``Annotated`` extras are kept.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from perdure.serde.secret import Secret, is_secret


@functools.lru_cache(maxsize=2048)
def secret_fields(cls: type) -> frozenset[str]:
    """Name the fields of a class that are annotated as secret."""
    return frozenset(name for name, hint in class_hints(cls).items() if hides(hint))


def hides(hint: Any) -> bool:
    """Say whether a hint marks a secret: ``Annotated[str, Secret]`` or ``Secret[str]``, also inside ``Optional``."""
    if hint is Secret or typing.get_origin(hint) is Secret:
        return True
    if typing.get_origin(hint) is Annotated:
        return is_secret(hint.__metadata__) or hides(hint.__origin__)
    return any(hides(arg) for arg in typing.get_args(hint) if not isinstance(arg, (str, bytes, int)))


@functools.lru_cache(maxsize=2048)
def class_hints(cls: type) -> dict[str, Any]:
    """Resolve the annotations of a class's fields, each by itself: one that cannot be resolved is Any."""
    with contextlib.suppress(Exception):
        return dict(typing.get_type_hints(cls, include_extras=True))
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        space = vars(sys.modules.get(base.__module__)) if base.__module__ in sys.modules else {}
        for name, hint in inspect.get_annotations(base).items():
            hints[name] = resolve(hint, space, vars(base))
    return hints


def resolve(hint: Any, space: dict[str, Any], local: Mapping[str, Any] | None = None) -> Any:
    """Resolve one annotation that may be a string; Any when its names are not there."""
    if not isinstance(hint, str):
        return type(None) if hint is None else hint

    def holder() -> None: ...

    holder.__annotations__ = {"hint": hint}
    try:
        return typing.get_type_hints(holder, space, dict(local or {}), include_extras=True)["hint"]
    except Exception:
        return Any


def call_hints(fn: Callable[..., Any], names: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Resolve the annotations of a function's parameters and of its ``return``.

    Names are looked up in its module, its closure, and ``names``.
    """
    plain: Any = inspect.unwrap(fn)
    space = getattr(plain, "__globals__", {})
    code = getattr(plain, "__code__", None)
    cells = getattr(plain, "__closure__", None) or ()
    local: dict[str, Any] = dict(names or {})
    for name, cell in zip(code.co_freevars if code is not None else (), cells, strict=False):
        try:
            local[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    annotations: dict[str, Any] = getattr(plain, "__annotations__", {})
    return {name: resolve(hint, space, local) for name, hint in annotations.items()}
