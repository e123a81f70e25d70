"""Which expressions of a function have no order of their own: sets, and what is made of sets as they come.

Only what is plain to see: literals, calls of ``set``, the module's sets, and local names that are given nothing else.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from perdure.lint.scope import Scope

_SETS = frozenset({"set", "frozenset"})
_AS_THEY_COME = frozenset({"list", "tuple", "enumerate", "iter", "reversed"})
_INDIFFERENT = frozenset({"sorted", "set", "frozenset", "sum", "any", "all", "len", "min", "max"})
_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
_Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp


class Order:
    """What has an order in one function, and where that does not matter."""

    def __init__(self, tree: ast.AST, scope: Scope) -> None:
        self._scope = scope
        self._local: frozenset[str] = frozenset()
        self._local = frozenset(self._local_sets(tree))
        self._indifferent = frozenset(self._calm(tree))

    def words(self, iterated: ast.expr) -> str | None:
        """What is gone through without an order, in words; None if it has one, or that cannot be told."""
        match iterated:
            case ast.Set() | ast.SetComp():
                return "a set"
            case ast.Call(func=func, args=[inner, *_]) if self._scope.full_name(func) in _AS_THEY_COME:
                return self.words(inner)
            case ast.Call(func=func) if self._scope.full_name(func) in _SETS:
                return f"{ast.unparse(func)}(…)"
            case ast.BinOp() if self.is_set(iterated):
                return ast.unparse(iterated)
            case ast.Name(id=name) if self.is_set(iterated):
                return f"{name}, a set"
            case _:
                return None

    def is_set(self, given: ast.expr) -> bool:
        """Whether an expression is plainly a set."""
        match given:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Call(func=func):
                return self._scope.full_name(func) in _SETS
            case ast.BinOp(left=left, op=op):
                return isinstance(op, _OPERATORS) and self.is_set(left)
            case ast.Name(id=name):
                return name in self._local or isinstance(self._scope.value(given), set | frozenset)
            case _:
                return False

    def matters(self, iteration: ast.AST) -> bool:
        """Whether somebody could see in which order this goes."""
        return iteration not in self._indifferent

    def _local_sets(self, tree: ast.AST) -> Iterator[str]:
        """Names that are given sets and nothing else, by whatever binds them; an operator in place keeps a set one."""
        bound: Counter[str] = Counter()
        sets: Counter[str] = Counter()
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name, ctx=ast.Store()):
                    bound[name] += 1
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if self.is_set(value):
                    sets[name] += 1
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if self.is_set(value):
                    sets[name] += 1
                case ast.AugAssign(target=ast.Name(id=name)):
                    bound[name] -= 1
                case _:
                    pass
        return (name for name, count in sets.items() if count == bound[name])

    def _calm(self, tree: ast.AST) -> Iterator[ast.AST]:
        """Comprehensions whose order nobody sees: of sets, and of what is sorted, summed or counted at once."""
        for node in ast.walk(tree):
            if isinstance(node, ast.SetComp):
                yield from node.generators
            elif isinstance(node, ast.Call) and self._scope.full_name(node.func) in _INDIFFERENT:
                for argument in node.args:
                    if isinstance(argument, _Comprehension):
                        yield from argument.generators
