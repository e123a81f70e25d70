"""From a text to the tree that it spells. The only module that knows ``lark``.

Promises: a tree or ``Unfit``, whatever the text; bounded in length, nesting and number of comparisons, so that neither
this, nor what walks the tree later, nor a database runs out of its own room.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput

from perdure.errors import did_you_mean
from perdure.query.marks import Unfit
from perdure.query.tree import Comparison, Junction, Literal, Name, Negation, Node, Span, Statement, Written, depth_of
from perdure.query.values import duration, number

TEXT_MAX = 200_000  # characters
DEPTH_MAX = 50
COMPARISONS_MAX = 500
VALUES_MAX = 10_000  # of all comparisons together


def parse(text: str) -> Statement:
    """The tree of a text. Raises ``Unfit``."""
    if len(text) > TEXT_MAX:
        raise Unfit(Span(TEXT_MAX, TEXT_MAX + 1), f"it has {len(text)} characters; {TEXT_MAX} are the most")
    if (odd := re.search("[\0\ud800-\udfff]", text)) is not None:
        raise Unfit(Span(*odd.span()), f"no database holds the character {odd[0]!r}")
    try:
        statement: Statement = _grammar().parse(text)
    except UnexpectedInput as error:
        raise _unexpected(text, error) from None
    if statement.where is not None:
        _bounded(statement.where)
    return statement


@cache
def _grammar() -> Any:  # a parser, whose own types do not say what a transformer makes of a tree
    grammar = (files("perdure.query") / "grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder(), maybe_placeholders=False)


def _bounded(where: Node) -> None:
    comparisons = values = 0
    nodes = [where]
    while nodes:
        match nodes.pop():
            case Comparison() as node:
                comparisons, values = comparisons + 1, values + len(node.values)
                if comparisons > COMPARISONS_MAX:
                    raise Unfit(
                        node.at, f"there are more than {COMPARISONS_MAX} comparisons; write IN (…) for many values"
                    )
                if values > VALUES_MAX:
                    raise Unfit(node.at, f"there are more than {VALUES_MAX} values; ask several times")
            case Negation() as node:
                nodes.append(node.part)
            case Junction() as node:
                nodes.extend(reversed(node.parts))


# -- the tree, built as the parser reduces


def _span(token: Token) -> Span:
    start = token.start_pos or 0
    return Span(start, start + len(token))


def _unquoted(text: str) -> str:
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote)


def _literal(how: Written, value: str | float | bool, token: Token) -> Literal:
    return Literal(how, value, str(token), _span(token))


class _Builder(Transformer[Token, Any]):
    """A method for each rule of the grammar, called with what the rule's parts became."""

    def start(self, parts: Sequence[Any]) -> Statement:
        fields: dict[str, Any] = {}
        for part in parts:
            fields |= part if isinstance(part, dict) else {"where": part}
        return Statement(**fields)

    def order(self, parts: Sequence[Any]) -> dict[str, Any]:
        [name] = [part for part in parts if isinstance(part, Name)]
        return {"order": name, "descending": _type(parts[-1]) == "DESC"}

    def groups(self, parts: Sequence[Any]) -> dict[str, Any]:
        return {"groups": tuple(part for part in parts if isinstance(part, Name))}

    # -- conditions

    def any_of(self, parts: Sequence[Any]) -> Node:
        return _junction(parts, every=False)

    def all_of(self, parts: Sequence[Any]) -> Node:
        return _junction(parts, every=True)

    def negate(self, parts: Sequence[Any]) -> Node:
        token, part = parts
        return Negation(part, _deeper([part], _span(token)))

    def compare(self, parts: Sequence[Any]) -> Node:
        name, sign, value = parts
        return _comparison(name, sign, value, negated=False)

    def compare_not(self, parts: Sequence[Any]) -> Node:
        name, _, sign, value = parts
        return _comparison(name, sign, value, negated=True)

    def between(self, parts: Sequence[Any]) -> Node:
        name, sign, low, _, high = parts
        return _comparison(name, sign, (low, high), negated=False)

    def between_not(self, parts: Sequence[Any]) -> Node:
        name, _, sign, low, _, high = parts
        return _comparison(name, sign, (low, high), negated=True)

    def null(self, parts: Sequence[Any]) -> Node:
        return Comparison(parts[0], "NULL", (), negated=False, at=_span(parts[1]))

    def null_not(self, parts: Sequence[Any]) -> Node:
        return Comparison(parts[0], "NULL", (), negated=True, at=_span(parts[1]))

    # -- names and values

    def name(self, parts: Sequence[Token]) -> Name:
        return Name(parts[0].strip("`"), _span(parts[0]))

    def attribute(self, parts: Sequence[Token]) -> Name:
        text = parts[0][len("attributes.") :]
        return Name(_unquoted(text) if text[0] in "'\"" else text, _span(parts[0]), attribute=True)

    def values(self, parts: Sequence[Any]) -> tuple[Literal, ...]:
        return tuple(part for part in parts if isinstance(part, Literal))

    def string(self, parts: Sequence[Token]) -> Literal:
        return _literal(Written.TEXT, _unquoted(str(parts[0])), parts[0])

    def word(self, parts: Sequence[Token]) -> Literal:
        return _literal(Written.WORD, str(parts[0]), parts[0])

    def number(self, parts: Sequence[Token]) -> Literal:
        return _literal(Written.NUMBER, number(str(parts[0]), _span(parts[0])), parts[0])

    def duration(self, parts: Sequence[Token]) -> Literal:
        return _literal(Written.DURATION, duration(str(parts[0]), _span(parts[0])), parts[0])

    def time(self, parts: Sequence[Token]) -> Literal:
        return _literal(Written.TIME, str(parts[0]), parts[0])

    def truth(self, parts: Sequence[Token]) -> Literal:
        return _literal(Written.TRUTH, parts[0].lower() == "true", parts[0])

    def now(self, parts: Sequence[Token]) -> Literal:
        if len(parts) == 1:
            return _literal(Written.NOW, 0, parts[0])
        token, shift, span = parts
        us = duration(str(span), _span(span))
        at = Span(_span(token).start, _span(span).end)
        return Literal(Written.NOW, us if shift == "+" else -us, f"{token} {shift} {span}", at)


def _type(part: Any) -> str:
    return part.type if isinstance(part, Token) else ""


def _deeper(parts: Sequence[Node], at: Span) -> int:
    depth = 1 + max(depth_of(part) for part in parts)
    if depth > DEPTH_MAX:
        raise Unfit(at, f"conditions stand more than {DEPTH_MAX} deep in one another")
    return depth


def _junction(parts: Sequence[Any], *, every: bool) -> Node:
    tokens = [part for part in parts if isinstance(part, Token)]
    nodes = [part for part in parts if not isinstance(part, Token)]
    return Junction(every, tuple(nodes), _deeper(nodes, _span(tokens[0])))


def _comparison(name: Name, sign: Token, values: tuple[Literal, ...] | Literal, *, negated: bool) -> Node:
    given: tuple[Literal, ...] = values if isinstance(values, tuple) else (values,)
    plain = str(sign).upper()
    if plain in ("!=", "<>"):
        return Comparison(name, "=", given, negated=True, at=_span(sign))
    return Comparison(name, plain, given, negated=negated, at=_span(sign))


# -- errors, in words

_NEGATABLE = "IN, BETWEEN or STARTS_WITH"
_DURATION = "a duration such as 2h"
_KINDS: tuple[tuple[str, Collection[str]], ...] = (
    ("the name of a field", {"NAME", "ATTRIBUTE"}),
    ("a value", {"STRING", "WORD", "NUMBER", "TIME", "TRUTH", "NOW"}),
    ("an operator (= != < <= > >= IN BETWEEN STARTS_WITH IS)", {"SIGN"}),
    ("AND", {"AND"}),
    ("OR", {"OR"}),
    ("ORDER BY", {"ORDER"}),
    ("GROUP BY", {"GROUP"}),
    ("BY", {"BY"}),
    ("ASC or DESC", {"ASC"}),
    ("NULL", {"NULL"}),
    (_NEGATABLE, {"STARTS_WITH"}),
    (_DURATION, {"DURATION"}),
    ("(", {"LPAR"}),
    (",", {"COMMA"}),
    (")", {"RPAR"}),
)
_ELSEWHERE = {
    "like": "the language has STARTS_WITH instead of LIKE",
    "limit": "the limit is an option beside the query (limit=, --limit)",
    "&&": "write AND",
    "||": "write OR",
    "=": "one = is enough",
    "!": "write NOT",
    ".": 'a name with other characters is written in quotes, as in attributes."a.b"',
}
_WORD = re.compile(r"\w+|&&|\|\||\S")


def _unexpected(text: str, error: UnexpectedInput) -> Unfit:
    """What was found where something else was expected."""
    at = _place_of(error)
    if at is None:
        at = len(text.rstrip())
    found = _WORD.match(text, at)
    if found is not None and found[0] in "'\"`":
        return Unfit(Span(at, len(text)), f"what begins with {found[0]} here has no {found[0]} at its end")
    names = _accepted(text[:at])
    wanted = [words for words, terminals in _KINDS if not names.isdisjoint(terminals)]
    if "SIGN" in names:
        wanted.remove(_NEGATABLE)
    if "STRING" in names:
        wanted.remove(_DURATION)
    expected = f"expected {_listed(wanted)}" if wanted else "expected nothing more"
    if found is None:
        return Unfit(Span(at, at + 1), f"{expected}, but it ends")
    said = found[0]
    hint = _ELSEWHERE.get(said.lower(), "") if said != "=" or text[at - 1 : at] == "=" else ""
    near = "" if hint else did_you_mean(said.upper(), [*(names & {"AND", "OR", "IN", "BETWEEN", "STARTS_WITH", "IS"})])
    return Unfit(Span(*found.span()), f"{expected}, found {said!r}{near}" + (f"; {hint}" if hint else ""))


def _place_of(error: Any) -> int | None:
    """Where it stands; None at the end of the text."""
    token = getattr(error, "token", None)
    if token is None:
        return int(error.pos_in_stream)
    return None if token.type == "$END" else int(token.start_pos)


def _accepted(text: str) -> set[str]:
    """What may follow a text. The parser's own word is narrower: it says what it lacks once it has looked ahead."""
    parser = _grammar().parse_interactive(text)
    try:
        parser.exhaust_lexer()
    except UnexpectedInput:  # its last word is another without what follows it
        return set()
    return set(parser.accepts())


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
