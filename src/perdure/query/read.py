"""The way in for texts: ``read_query``. The parser is loaded when the first text that says something is read."""

from __future__ import annotations

from perdure.query.check import Use, check
from perdure.query.conditions import Query
from perdure.query.marks import Unfit, error_at


def read_query(text: str, app: str = "", *, use: Use = "list", all_runs: bool = False) -> Query:
    """What a text asks of ``app``. Raises ``QueryError``, which shows the place and what was expected.

    >>> read_query("").condition
    AllOf(parts=())
    """
    if not text.strip():
        return Query(all_runs=all_runs)
    from perdure.query.parse import parse  # noqa: PLC0415 - brings a parser generator, which few processes need

    try:
        return check(parse(text), app, use, all_runs=all_runs)
    except Unfit as unfit:
        raise error_at(text, unfit.at, unfit.what) from None
