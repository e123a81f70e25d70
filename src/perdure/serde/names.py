"""Names of classes in stored data, and the way back: a lookup among modules that are already imported.

Promises: a name is ``module:Qualname`` with the real module's name even for ``__main__``; a lookup never imports,
never calls user code beyond plain attribute access on modules and classes, and answers None when in doubt.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def real_module(name: str) -> str:
    """Give the name under which another process would import a module: for ``__main__`` its file or ``-m`` name."""
    if name != "__main__":
        return name
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return os.path.splitext(os.path.basename(file))[0] if file else "__main__"


def class_name(cls: type) -> str:
    """Give the stored name of a class: ``shop.orders:Order`` or ``shop:Shop.Line``."""
    return f"{real_module(cls.__module__)}:{cls.__qualname__}"


def find_class(name: str) -> type | None:
    """Give the class of that stored name if its module is already imported, else None."""
    module, _, qualname = name.partition(":")
    found = None
    # A program run as a script is __main__ here and a module of its own name elsewhere; its own classes come first.
    if module == real_module("__main__"):
        found = _walk(sys.modules.get("__main__"), qualname)
    if found is None:
        found = _walk(sys.modules.get(module), qualname)
    return found


def has_name(cls: type) -> bool:
    """Say whether the class can be found again by its stored name (a class made inside a function cannot)."""
    return find_class(class_name(cls)) is cls


def class_of(value: object) -> type:
    """``type(value)``, of a value of which nothing is known."""
    return type(value)


def type_text(cls: type) -> str:
    """Name a class for people: ``int``, ``PIL.Image.Image``."""
    module = getattr(cls, "__module__", "")
    qualname = getattr(cls, "__qualname__", "?")
    return qualname if module in ("builtins", "") else f"{real_module(module)}.{qualname}"


def hint_text(hint: Any) -> str:
    """Write a type hint as a person would: ``list[str]``, ``int | None``."""
    if hint is None or hint is type(None):
        return "None"
    if isinstance(hint, type) and not hasattr(hint, "__args__"):
        return type_text(hint)
    return repr(hint).replace("typing.", "").replace("collections.abc.", "")


def _walk(module: object, qualname: str) -> type | None:
    found = module
    if found is None or not qualname:
        return None
    for part in qualname.split("."):
        # vars() and not getattr(): a module's __getattr__ may import.
        namespace = getattr(found, "__dict__", None)
        if namespace is None or part not in namespace:
            return None
        found = namespace[part]
    return found if isinstance(found, type) else None
