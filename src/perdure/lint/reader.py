"""Reading a body: its calls, its loops, its handlers, and the helpers of the user's own that it calls.

A line that says ``# perdure: ignore`` (or ``ignore[clock]``) is left alone. What cannot be told without running the
code is not reported: the guard against the rest is the comparison of every replay with its history.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections import deque
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any

from perdure.definitions import StepDef, WorkflowDef
from perdure.lint import rules
from perdure.lint.finding import Finding
from perdure.lint.order import Order
from perdure.lint.rules import Rule
from perdure.lint.scope import UNKNOWN, Scope, plain_function

DEPTH_MAX = 8  # helpers of helpers
_IGNORE = re.compile(r"#\s*perdure:\s*ignore(?:\[([a-z, ]+)\])?")
_ENDS_ALL = frozenset(
    {"BaseException", "asyncio.CancelledError", "asyncio.exceptions.CancelledError", "perdure.errors.Cancelled"}
)


def read_workflow(definition: WorkflowDef) -> list[Finding]:
    """All that is found in a workflow's body and in the helpers that it calls, in the order of the lines.

    Raises ``OSError`` if the source is not there to be read.
    """
    if definition.process is not None:
        return sorted(_read_process(definition.name, definition.process.functions.values()))
    fn = inspect.unwrap(definition.fn)
    if not isinstance(fn, FunctionType):
        raise OSError(f"workflow {definition.name} is no function with a source: {fn!r}")
    found = set(Reader(definition.name, fn, (), {fn}).read())
    return sorted(found)


def _read_process(name: str, functions: Iterable[Any]) -> set[Finding]:
    """Of a process: its actions, conditions and actors' methods run in its body. What is a step is none of that."""
    found: set[Finding] = set()
    seen: set[FunctionType] = set()
    for given in functions:
        plain = plain_function(given.fget if isinstance(given, property) else given)
        if not callable(plain) or hasattr(plain, "definition"):
            continue
        fn = inspect.unwrap(plain)
        if isinstance(fn, FunctionType) and fn not in seen:
            seen.add(fn)
            found.update(Reader(name, fn, (fn.__name__,), seen).read())
    return found


class Reader:
    """Reads one function."""

    def __init__(self, workflow: str, fn: FunctionType, chain: tuple[str, ...], seen: set[FunctionType]) -> None:
        self.workflow = workflow
        self.chain = chain
        self.seen = seen
        self.fn = fn
        lines, first = inspect.getsourcelines(fn)
        self.path = inspect.getsourcefile(fn) or fn.__code__.co_filename
        self.lines = lines
        self.offset = first - 1
        self.indent = len(lines[0]) - len(lines[0].lstrip())
        self.tree = _function(ast.parse(textwrap.dedent("".join(lines))), fn.__name__)
        self.scope = Scope(fn, self.tree)
        self.order = Order(self.tree, self.scope)

    def read(self) -> Iterator[Finding]:
        for body in self.tree.body:
            for node in ast.walk(body):
                yield from self._at(node)

    # -- by kind of node

    def _at(self, node: ast.AST) -> Iterator[Finding]:
        """Findings at this node; those of a helper have been sifted by its own reader."""
        for finding in self._look(node):
            if finding.chain != self.chain or not self._ignored(finding):
                yield finding

    def _look(self, node: ast.AST) -> Iterator[Finding]:
        match node:
            case ast.Expr(value=ast.Call() as call):
                yield from self._dropped(call)
            case ast.Call():
                yield from self._call(node)
            case ast.Global(names=names):
                yield self._found(node, rules.GLOBAL, f"global {', '.join(names)}")
            case ast.Assign(targets=targets):
                for target in targets:
                    yield from self._assigned(target, f"{_spelled(target)} = …")
            case ast.AugAssign(target=target):
                yield from self._assigned(target, f"{_spelled(target)} = …")
            case ast.Delete(targets=targets):
                for target in targets:
                    yield from self._assigned(target, f"del {_spelled(target)}")
            case ast.For(iter=iterated) | ast.AsyncFor(iter=iterated) | ast.comprehension(iter=iterated):
                if self.order.matters(node):
                    yield from self._iterated(iterated)
            case ast.Starred(value=value, ctx=ast.Load()):
                yield from self._iterated(value)
            case ast.Try():
                yield from self._handled(node)
            case ast.Subscript(value=ast.Attribute() as value) if self.scope.full_name(value) == "os.environ":
                yield self._found(node, rules.IO, "os.environ[…]")
            case _:
                pass

    def _call(self, call: ast.Call) -> Iterator[Finding]:
        name = self.scope.full_name(call.func)
        if name is not None:
            if name == "random.Random" and not call.args and not call.keywords:
                yield self._found(call, rules.RANDOM, "random.Random() without a seed")
            elif (rule := rules.rule_of(name)) is not None:
                yield self._found(call, rule, f"{_spelled(call.func)}(…)")
                return
            elif name == "next" and call.args and isinstance(call.args[0], ast.Name) and self._shared(call.args[0]):
                yield self._found(call, rules.GLOBAL, _spelled(call))
        if isinstance(call.func, ast.Attribute):
            yield from self._method(call, call.func)
        yield from self._helper(call)

    def _method(self, call: ast.Call, func: ast.Attribute) -> Iterator[Finding]:
        holder = func.value
        value = self.scope.value(holder)
        if func.attr in rules.METHODS and (value is UNKNOWN or not hasattr(value, "definition")):
            yield self._found(call, rules.METHODS[func.attr], f"{_spelled(func)}(…)")
        elif func.attr in rules.MUTATORS and self._is_shared_container(holder):
            yield self._found(call, rules.GLOBAL, f"{_spelled(func)}(…)")
        elif func.attr == "pop" and not call.args and self.order.is_set(holder):
            yield self._found(call, rules.ORDER, f"which element {_spelled(func)}() gives")

    def _helper(self, call: ast.Call) -> Iterator[Finding]:
        """What a plain function of the user's own does is done by the body."""
        helper = plain_function(self.scope.value(call.func))
        if not isinstance(helper, FunctionType) or helper in self.seen or len(self.chain) >= DEPTH_MAX:
            return
        if not _same_house(self.fn.__module__, helper.__module__):
            return
        self.seen.add(helper)
        try:
            reader = Reader(self.workflow, helper, (*self.chain, helper.__qualname__), self.seen)
        except (OSError, SyntaxError, TypeError):
            return  # no source: nothing to read
        yield from reader.read()

    def _dropped(self, call: ast.Call) -> Iterator[Finding]:
        """A call of a step or workflow of the async face as a statement of its own, without ``await``."""
        definition = getattr(self.scope.value(call.func), "definition", None)
        if isinstance(definition, StepDef | WorkflowDef) and inspect.iscoroutinefunction(self.fn):
            yield self._found(call, rules.AWAIT, f"{_spelled(call.func)}(…)")

    def _assigned(self, target: ast.expr, what: str) -> Iterator[Finding]:
        holder = target
        while isinstance(holder, ast.Attribute | ast.Subscript):
            holder = holder.value
        if holder is target or not isinstance(holder, ast.Name):
            return
        if self._shared(holder) or (isinstance(self.scope.value(holder), type) and self.scope.is_global(holder.id)):
            yield self._found(target, rules.GLOBAL, what)

    def _is_shared_container(self, holder: ast.expr) -> bool:
        """Whether what a method changes is a name of the module's, or a container that a class or module holds."""
        if isinstance(holder, ast.Name):
            return self._shared(holder)
        return isinstance(self.scope.value(holder), list | dict | set | deque | bytearray)

    def _shared(self, name: ast.Name) -> bool:
        """Whether a name is an object of the module's that a body could change for others."""
        if not self.scope.is_global(name.id):
            return False
        value = self.scope.value(name)
        return not isinstance(value, FunctionType | type) and not hasattr(value, "definition")

    def _iterated(self, iterated: ast.expr) -> Iterator[Finding]:
        if (words := self.order.words(iterated)) is not None:
            yield self._found(iterated, rules.ORDER, f"the order of {words}")

    def _handled(self, node: ast.Try) -> Iterator[Finding]:
        for handler in node.handlers:
            caught = self._ends_all(handler)
            if caught is not None and not any(isinstance(inner, ast.Raise) for inner in ast.walk(handler)):
                yield self._found(handler, rules.SWALLOW, caught)
        for statement in node.finalbody:
            for inner in ast.walk(statement):
                if isinstance(inner, ast.Call) and self._plain_effect(inner):
                    yield self._found(inner, rules.CLEANUP, f"{_spelled(inner.func)}(…) in finally")

    def _ends_all(self, handler: ast.ExceptHandler) -> str | None:
        if handler.type is None:
            return "except:"
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        for kind in kinds:
            if self.scope.full_name(kind) in _ENDS_ALL:
                return f"except {_spelled(kind)}"
        return None

    def _plain_effect(self, call: ast.Call) -> bool:
        """Whether a call in ``finally`` may do something that no record knows of: not a step, not a builtin."""
        value = self.scope.value(call.func)
        if isinstance(value, FunctionType):
            return not (value.__module__ or "").startswith("perdure") and _same_house(
                self.fn.__module__, value.__module__
            )
        return False

    # -- telling

    def _found(self, node: Any, rule: Rule, what: str) -> Finding:
        line, column = node.lineno, node.col_offset
        said = f"{what} {rule.why}"
        return Finding(
            self.path,
            line + self.offset,
            column + self.indent + 1,
            rule.name,
            said,
            rule.fix,
            self.workflow,
            self.chain,
        )

    def _ignored(self, finding: Finding) -> bool:
        """Whether the finding's line says that it is meant."""
        marked = _IGNORE.search(self.lines[finding.line - self.offset - 1])
        return marked is not None and (marked[1] is None or finding.rule in re.split(r"[,\s]+", marked[1]))


def _function(module: ast.Module, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return node
    raise OSError(f"no function {name} in its own source")  # a lambda


def _spelled(node: ast.expr) -> str:
    return ast.unparse(node)


def _same_house(module: str, other: str | None) -> bool:
    """Whether a helper is the user's own: of the same top-level package, or a plain module that is no library."""
    if not other or other.partition(".")[0] in (*sys.stdlib_module_names, "perdure"):
        return False
    if module.partition(".")[0] == other.partition(".")[0]:
        return True
    path = getattr(sys.modules.get(other), "__file__", None) or ""
    return "site-packages" not in path and "dist-packages" not in path
