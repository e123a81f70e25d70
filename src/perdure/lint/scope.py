"""What the names in a function mean: the objects behind them where that is known, their full names where not.

Only modules, classes and functions are looked into, never instances: reading must run no code of the user's.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from types import CodeType, FunctionType, ModuleType
from typing import Any


class Unknown:
    """Stands for what cannot be told without running the code."""


UNKNOWN = Unknown()


class Scope:
    """The names of one function: its own (unknown), those it imports, those around it, the module's, the builtins."""

    def __init__(self, fn: FunctionType, tree: ast.AST) -> None:
        self._own = set(_own_names(fn.__code__))
        self._around = inspect.getclosurevars(fn).nonlocals
        self._module = fn.__globals__
        self._imported: dict[str, str] = {}  # local name: full name
        for node in ast.walk(tree):
            match node:
                case ast.Import(names=names):
                    for name in names:
                        self._imported[name.asname or name.name.partition(".")[0]] = (
                            name.name if name.asname else name.name.partition(".")[0]
                        )
                case ast.ImportFrom(module=str(module), names=names, level=0):
                    for name in names:
                        self._imported[name.asname or name.name] = f"{module}.{name.name}"
                case _:
                    pass

    def is_global(self, name: str) -> bool:
        """Whether a name is the module's."""
        return name not in self._own and name not in self._around and name in self._module

    def value(self, node: ast.expr) -> Any:
        """The object that an expression of names and dots stands for, ``UNKNOWN`` if that cannot be told."""
        match node:
            case ast.Name(id=name):
                return self._named(name)
            case ast.Attribute(value=inner, attr=attr):
                holder = self.value(inner)
                if isinstance(holder, ModuleType | type):
                    return inspect.getattr_static(holder, attr, UNKNOWN)
                return UNKNOWN
            case _:
                return UNKNOWN

    def _named(self, name: str) -> Any:
        if name in self._imported:
            return _loaded(self._imported[name])
        if name in self._own:
            return UNKNOWN
        for names in (self._around, self._module, vars(builtins)):
            if name in names:
                return names[name]
        return UNKNOWN

    def full_name(self, node: ast.expr) -> str | None:
        """``datetime.datetime.now`` for whatever the code calls it, None if that cannot be told."""
        match node:
            case ast.Name(id=name):
                if name in self._imported:
                    return self._imported[name]
                return _name_of(self._named(name))
            case ast.Attribute(value=inner, attr=attr):
                holder = self.full_name(inner)
                return None if holder is None else f"{holder}.{attr}"
            case _:
                return None


def plain_function(value: Any) -> Any:
    """The function within a static or class method; everything else as it is."""
    return value.__func__ if type(value) in (staticmethod, classmethod) else value


def _own_names(code: CodeType) -> tuple[str, ...]:
    return code.co_varnames + code.co_cellvars


def _loaded(full: str) -> Any:
    """An imported object, if its module is loaded already: reading imports nothing."""
    if full in sys.modules:
        return sys.modules[full]
    module, _, name = full.rpartition(".")
    return inspect.getattr_static(sys.modules[module], name, UNKNOWN) if module in sys.modules else UNKNOWN


_PUBLIC = {"_random": "random", "_io": "io", "posix": "os", "nt": "os", "_socket": "socket", "_thread": "threading"}


def _name_of(value: Any) -> str | None:
    if isinstance(value, ModuleType):
        return value.__name__
    plain = plain_function(value)
    owner: Any = getattr(plain, "__self__", None)
    if type(owner).__module__ in ("random", "_random"):
        return f"random.{getattr(plain, '__name__', '')}"  # the module's functions are methods of a hidden instance
    if not isinstance(plain, type | FunctionType) and not inspect.isbuiltin(plain):
        return None
    module: str = getattr(plain, "__module__", None) or ""
    name: str = getattr(plain, "__qualname__", "")
    return name if module == "builtins" else f"{_PUBLIC.get(module, module)}.{name}"
