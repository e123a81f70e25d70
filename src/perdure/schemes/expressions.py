"""Expressions of a scheme: conditions (``ref and days > 5``), actors (``manager or author``), times.

A small part of Python, read by Python's own parser and evaluated by us: names, constants, ``.attribute``, ``[index]``,
``and or not``, comparisons, arithmetic. No calls, nothing that begins with an underscore: a scheme read from a file can
look at values and do nothing else.

Whoever evaluates is asked for each name when it is needed, and may await to answer::

    asked = evaluate("ref and days > 5")
    try:
        name = next(asked)                    # "ref"
        while True:
            name = asked.send(values[name])   # "days", unless ref was false
    except StopIteration as end:
        end.value                             # the answer
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Generator, Mapping
from functools import lru_cache
from typing import Any

from perdure.errors import SchemeError

Evaluation = Generator[str, Any, Any]
"""Yields names, is sent their values, returns the answer."""


def _numbers(*operands: Any) -> bool:
    """``"x" * 10**9`` and ``"%999999999d" % 1`` would take the memory of whoever asks."""
    for operand in operands:
        if isinstance(operand, str | bytes | list | tuple):
            raise TypeError(f"{operand!r} is no number")
    return True


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: lambda a, b: _numbers(a, b) and a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: _numbers(a, b) and a % b,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.Not: operator.not_, ast.USub: operator.neg}
_LONGEST = 1000  # characters: a condition is read by people


def normal(text: str) -> str:
    """The same expression as Python would write it, so that two spellings of it are equal. Raises ``SchemeError``."""
    return ast.unparse(_parse(text)) if text.strip() else ""


def names(text: str) -> tuple[str, ...]:
    """The names an expression may ask for, each once, in order."""
    if not text:
        return ()
    found = [node.id for node in ast.walk(_parse(text)) if isinstance(node, ast.Name)]
    return tuple(dict.fromkeys(found))


def evaluate(text: str) -> Evaluation:
    """Evaluate an expression, asking for names by yielding them; ``""`` gives True and asks for none.

    Raises what Python raises for the operation (``TypeError`` for ``None > 3``, ``AttributeError``, ...).
    """
    if not text:
        return True
    return (yield from _value(_parse(text)))


def value(text: str, values: Mapping[str, Any]) -> Any:
    """Evaluate with all names at hand; ``KeyError`` names one that is not."""
    return answered(evaluate(text), values)


def answered(asked: Evaluation, values: Mapping[str, Any]) -> Any:
    """The same of an evaluation that has been begun, be it of a time."""
    try:
        name = next(asked)
        while True:
            name = asked.send(values[name])
    except StopIteration as end:
        return end.value


@lru_cache(maxsize=4096)
def _parse(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise SchemeError(f"an expression of {len(text)} characters: {text[:60]!r}…; write a method and name it")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise SchemeError(f"{text!r} is not an expression: {error.msg}; write for example: ref and days > 5") from None
    for node in ast.walk(tree):
        wrong = _refused(node)
        if wrong is not None:
            raise SchemeError(
                f"{text!r} contains {wrong}, which a scheme's expression may not; write a method and name it"
            )
    return tree


def _refused(node: ast.AST) -> str | None:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) if name.startswith("_"):
            return f"the private name {name!r}"
        case ast.Constant(value=constant) if not isinstance(constant, str | int | float | bool | None):
            return repr(constant)
        case ast.UnaryOp(op=op) if type(op) not in _UNARY:
            return ast.unparse(node)
        case ast.BinOp(op=op) if type(op) not in _BINARY:
            return ast.unparse(node)
        case (
            ast.Name()
            | ast.Attribute()
            | ast.Constant()
            | ast.UnaryOp()
            | ast.BinOp()
            | ast.BoolOp()
            | ast.Compare()
            | ast.Subscript()
            | ast.Tuple()
            | ast.List()
            | ast.IfExp()
            | ast.expr_context()
            | ast.unaryop()
            | ast.operator()
            | ast.boolop()
            | ast.cmpop()
        ):
            return None
        case ast.expr():
            return f"{ast.unparse(node)!r}"
        case _:
            return type(node).__name__.lower()


def _value(node: ast.expr) -> Evaluation:
    match node:
        case ast.Name(id=name):
            return (yield name)
        case ast.Constant(value=constant):
            return constant
        case ast.Attribute(value=owner, attr=attr):
            return getattr((yield from _value(owner)), attr)
        case ast.Subscript(value=owner, slice=index):
            return (yield from _value(owner))[(yield from _value(index))]
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)]((yield from _value(operand)))
        case ast.BinOp(left=left, op=op, right=right):
            first = yield from _value(left)
            return _BINARY[type(op)](first, (yield from _value(right)))
        case ast.BoolOp(op=op, values=parts):
            return (yield from _either(parts, stop=isinstance(op, ast.Or)))
        case ast.Compare():
            return (yield from _compare(node))
        case ast.IfExp(test=test, body=body, orelse=other):
            return (yield from _value(body if (yield from _value(test)) else other))
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            found: list[Any] = []
            for part in parts:
                one = yield from _value(part)
                found.append(one)
            return tuple(found)
        case _:
            raise AssertionError(ast.dump(node))  # refused by _parse


def _either(parts: list[ast.expr], *, stop: bool) -> Evaluation:
    found: Any = None
    for part in parts:
        found = yield from _value(part)
        if bool(found) is stop:
            return found
    return found


def _compare(node: ast.Compare) -> Evaluation:
    left = yield from _value(node.left)
    for op, part in zip(node.ops, node.comparators, strict=True):
        right = yield from _value(part)
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True
