"""The parser under any text: a query, or the one error that says where; never anything else."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure.errors import QueryError
from perdure.query.conditions import Query, Use
from perdure.query.fields import FIELDS
from perdure.query.read import read_query

PIECES = [
    *(name for field in FIELDS for name in (field.name, *field.aliases)), "attributes.x", 'attributes."y z"', "and",
    "OR",
    "not", "IN", "(", ")", ",", "=", "!=", "<", "<=", ">", ">=", "<>", "between", "STARTS_WITH", "is", "NULL", "ORDER",
    "GROUP", "by", "asc", "DESC", "now", "-", "+", "2h", "5m30s", "true", "false", "1", "-2.5", "1e9", "2026-11-20",
    "'2026-11-20T00:00:00Z'", "'failed'", "failed", "Running", "'app:v1'", "'", '"', "`", ";", "--", "\\\n",
    "\n", "é", "\0",
]  # fmt: skip


def only_a_query_or_the_error(text: str) -> None:
    uses: tuple[Use, ...] = ("list", "count", "set")
    for use in uses:
        error = None
        try:
            assert isinstance(read_query(text, "app", use=use), Query)
        except QueryError as raised:
            error = raised
        if error is not None:
            assert error.query == text
            assert 1 <= error.line <= text.count("\n") + 1
            assert 1 <= error.column <= len(text) + 1
            assert len(str(error).split("\n")) == 3


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=24).map(" ".join))
@example("id = a ORDER BY")
@example("created > '0001-01-01T00:00:00+23:59'")
@example("created > '9999-12-31T23:59:59-23:59'")
def test_words_of_the_language_in_any_order(text: str) -> None:
    only_a_query_or_the_error(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
@example("\ud800")
@example("ID = \u0130")
def test_any_text(text: str) -> None:
    only_a_query_or_the_error(text)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIELDS), st.sampled_from(["=", "<", "IN", "STARTS_WITH"]), st.text(max_size=20))
def test_any_value_of_any_field(field: object, sign: str, value: str) -> None:
    quoted = "'" + value.replace("'", "''") + "'"
    text = f"{field.name} {sign} {f'({quoted})' if sign == 'IN' else quoted}"  # type: ignore[attr-defined]
    only_a_query_or_the_error(text)
