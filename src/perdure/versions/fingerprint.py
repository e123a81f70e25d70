"""Fingerprints: what makes the code of a workflow the same code.

A fingerprint is a hash of the function's syntax tree, written down by a walker of our own. It changes with the code of
the body, of functions, lambdas and classes within it, of its parameters and their defaults, and of the decorators
under ``@app.workflow``. It does not change with

- comments, layout, docstrings, ``pass``, type annotations (except the fields of a class in the body);
- the function's own name and the arguments of ``@app.workflow``: a workflow is found by its name, which is in the key;
- another Python (3.11 to 3.14 make different trees of the same code), nor another Perdure: the form is frozen.

Helpers and steps that the body calls are not in it. Whether a history fits the code is for the replay to say; the
fingerprint only says when to ask.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from perdure.errors import ConfigError

FORM = "perdure code 1"  # a new number makes every version of every app another one
DIGITS = 12  # of an app's version: short enough to say, and two versions of one app never meet by chance

Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

# What is read of each node, in this order. A field that a later Python adds is not read, nor is anything empty, so
# both leave the fingerprints of older code alone. Nodes that are not here are read whole: their syntax is new.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "Module": ("body",),
    "FunctionDef": ("name", "args", "body", "decorator_list"),
    "AsyncFunctionDef": ("name", "args", "body", "decorator_list"),
    "Lambda": ("args", "body"),
    "ClassDef": ("name", "bases", "keywords", "body", "decorator_list"),
    "arguments": ("posonlyargs", "args", "vararg", "kwonlyargs", "kw_defaults", "kwarg", "defaults"),
    "arg": ("arg",),
    "keyword": ("arg", "value"),
    "alias": ("name", "asname"),
    "Return": ("value",),
    "Delete": ("targets",),
    "Assign": ("targets", "value"),
    "AugAssign": ("target", "op", "value"),
    "AnnAssign": ("target", "annotation", "value"),
    "For": ("target", "iter", "body", "orelse"),
    "AsyncFor": ("target", "iter", "body", "orelse"),
    "While": ("test", "body", "orelse"),
    "If": ("test", "body", "orelse"),
    "With": ("items", "body"),
    "AsyncWith": ("items", "body"),
    "withitem": ("context_expr", "optional_vars"),
    "Match": ("subject", "cases"),
    "match_case": ("pattern", "guard", "body"),
    "MatchValue": ("value",),
    "MatchSingleton": ("value",),
    "MatchSequence": ("patterns",),
    "MatchMapping": ("keys", "patterns", "rest"),
    "MatchClass": ("cls", "patterns", "kwd_attrs", "kwd_patterns"),
    "MatchStar": ("name",),
    "MatchAs": ("pattern", "name"),
    "MatchOr": ("patterns",),
    "Raise": ("exc", "cause"),
    "Try": ("body", "handlers", "orelse", "finalbody"),
    "TryStar": ("body", "handlers", "orelse", "finalbody"),
    "ExceptHandler": ("type", "name", "body"),
    "Assert": ("test", "msg"),
    "Import": ("names",),
    "ImportFrom": ("module", "names", "level"),
    "Global": ("names",),
    "Nonlocal": ("names",),
    "Expr": ("value",),
    "Break": (),
    "Continue": (),
    "BoolOp": ("op", "values"),
    "NamedExpr": ("target", "value"),
    "BinOp": ("left", "op", "right"),
    "UnaryOp": ("op", "operand"),
    "IfExp": ("test", "body", "orelse"),
    "Dict": ("keys", "values"),
    "Set": ("elts",),
    "ListComp": ("elt", "generators"),
    "SetComp": ("elt", "generators"),
    "DictComp": ("key", "value", "generators"),
    "GeneratorExp": ("elt", "generators"),
    "comprehension": ("target", "iter", "ifs", "is_async"),
    "Await": ("value",),
    "Yield": ("value",),
    "YieldFrom": ("value",),
    "Compare": ("left", "ops", "comparators"),
    "Call": ("func", "args", "keywords"),
    "FormattedValue": ("value", "conversion", "format_spec"),
    "JoinedStr": ("values",),
    "Constant": ("value",),
    "Attribute": ("value", "attr"),
    "Subscript": ("value", "slice"),
    "Starred": ("value",),
    "Name": ("id",),
    "List": ("elts",),
    "Tuple": ("elts",),
    "Slice": ("lower", "upper", "step"),
}
_NEVER = frozenset({"ctx", "type_comment", "kind", "type_params"})


class NoSource(ConfigError):
    """A function whose source is not to be had: typed into a shell, made by ``exec``, or shipped without it."""


def app_version(fingerprints: Mapping[str, str]) -> str:
    """The version of an app's code: of its workflows' names and fingerprints, in whatever order they were declared."""
    digest = hashlib.sha256(FORM.encode())
    for name, fingerprint in sorted(fingerprints.items()):
        digest.update(f"\0{name}\0{fingerprint}".encode())
    return digest.hexdigest()[:DIGITS]


# A function's code is what was imported, whatever is in its file later: asked once for each.
_known: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


class Sources:
    """Finds functions in their files. Each file is read and parsed once; keep it for one launch, not longer."""

    def __init__(self) -> None:
        self._files: dict[str, dict[int, list[Scope]]] = {}

    def fingerprint(self, fn: Callable[..., Any]) -> str:
        """The fingerprint of a function, 32 hex digits. Raises ``NoSource``."""
        inner = inspect.unwrap(fn)
        known = _known.get(inner)
        if known is None:
            known = fingerprint_of(self.find(inner))
            if inspect.isfunction(inner):
                _known[inner] = known
        return known

    def find(self, fn: Callable[..., Any]) -> Scope:
        """The function as it stands in its file. Raises ``NoSource``."""
        inner = inspect.unwrap(fn)
        code = getattr(inner, "__code__", None)
        if code is None:
            raise NoSource(f"{fn!r} is no plain function, so it has no source")
        here = self._scopes(inner, code.co_filename).get(code.co_firstlineno, ())
        found = [node for node in here if _name(node) == code.co_name]
        if len(found) > 1:  # lambdas on one line
            found = [node for node in found if _parameters(node) == code.co_varnames[: len(_parameters(node))]]
        if len(found) != 1:
            where = f"line {code.co_firstlineno} of {code.co_filename}"
            what = f"{len(found)} functions" if found else "no function"
            raise NoSource(f"{where} holds {what} named {code.co_name}")
        return found[0]

    def _scopes(self, fn: Callable[..., Any], file: str) -> dict[int, list[Scope]]:
        """The functions of a file by their first lines, as the compiler counts them: decorators first."""
        if file in self._files:
            return self._files[file]
        try:
            lines, _ = inspect.findsource(fn)
            scopes = _scopes_of("".join(lines))
        except (OSError, TypeError, SyntaxError, ValueError) as error:
            raise NoSource(f"the source of {file} is not here or is no Python ({error})") from None
        self._files[file] = scopes
        return scopes


@lru_cache(maxsize=2)  # the apps of one file, one after another: tests
def _scopes_of(source: str) -> dict[int, list[Scope]]:
    scopes: dict[int, list[Scope]] = {}
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            scopes.setdefault(first, []).append(node)
        elif isinstance(node, ast.Lambda):
            scopes.setdefault(node.lineno, []).append(node)
    return scopes


def _parse(source: str) -> ast.Module:
    """CPython 3.11 and 3.12 may trip when the collector runs in the middle of it; the next try is another one."""
    for _ in range(5):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    return ast.parse(source)


def _name(node: Scope) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _parameters(node: Scope) -> tuple[str, ...]:
    arguments = node.args
    return tuple(a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


def fingerprint_of(node: Scope) -> str:
    """The fingerprint of a function that was found or parsed."""
    fields: list[Any] = [type(node).__name__, node.args, node.body]
    if not isinstance(node, ast.Lambda):
        fields += [_statements(node.body), _beneath(node.decorator_list)]
        del fields[2]
    digest = hashlib.sha256(FORM.encode())
    digest.update("".join(_write(fields)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:32]


def _beneath(decorators: list[ast.expr]) -> list[ast.expr]:
    """The decorators under ``@app.workflow``: they change what is run. Those above get the workflow, and do not."""
    ours = [i for i, d in enumerate(decorators) if _last_name(d) == "workflow"]
    return decorators[ours[-1] + 1 :] if ours else []


def _last_name(decorator: ast.expr) -> str:
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    if isinstance(decorator, ast.Attribute):
        return decorator.attr
    return decorator.id if isinstance(decorator, ast.Name) else ""


def _write(whole: Any) -> Iterable[str]:
    """A tree as text that no other tree has, without recursion: a chain of a thousand operators is that deep."""
    todo: list[Any] = [whole]
    while todo:
        item = todo.pop()
        if isinstance(item, _Said):
            yield item
        elif isinstance(item, ast.AST):
            todo.append(_Said(")"))
            todo.extend(reversed([_Said(f"({type(item).__name__}"), *_fields(item)]))
        elif isinstance(item, list):
            todo.append(_Said("]"))
            todo.extend(reversed([_Said("["), *item]))
        else:
            text = ascii(item)  # repr() shows what this Python's Unicode tables find printable
            yield f" {type(item).__name__}:{len(text)}:{text}"


class _Said(str):
    """Text that is written as it is."""

    __slots__ = ()


def _fields(node: ast.AST) -> Iterable[Any]:
    """The name and the value of each field that is not empty."""
    names = FIELDS.get(type(node).__name__)
    if names is None:
        names = tuple(name for name in node._fields if name not in _NEVER)
    for name in names:
        value: Any = getattr(node, name, None)
        if isinstance(node, ast.Constant):  # whose value may well be None, or empty
            yield from (_Said(f" {name}"), value)
            continue
        if name in ("body", "orelse", "finalbody") and not isinstance(node, ast.Lambda | ast.IfExp):
            value = _statements(value, of_class=isinstance(node, ast.ClassDef))
        elif isinstance(node, ast.JoinedStr):
            value = _joined(value)
        elif name == "format_spec" and isinstance(value, ast.JoinedStr) and not _joined(value.values):
            value = None
        if value is None or value == []:
            continue
        yield from (_Said(f" {name}"), value)


def _statements(body: list[Any], *, of_class: bool = False) -> list[Any]:
    """Statements without those that do nothing: docstrings and other bare constants, ``pass``, annotations."""
    kept: list[Any] = []
    for statement in body:
        if isinstance(statement, ast.Pass) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            continue
        if isinstance(statement, ast.AnnAssign) and not of_class:  # in a class they may be fields of a dataclass
            if statement.value is not None:
                kept.append(ast.Assign(targets=[statement.target], value=statement.value))
            continue
        kept.append(statement)
    return kept


def _joined(values: list[Any]) -> list[Any]:
    """The parts of an f-string, neighbouring texts as one: Pythons cut them differently."""
    parts: list[Any] = []
    text = ""
    for part in values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
            continue
        if text:
            parts.append(ast.Constant(value=text))
        parts.append(part)
        text = ""
    return [*parts, ast.Constant(value=text)] if text else parts
