"""The way in for texts: ``read_query``. What reads them is loaded when the first one says something."""

from __future__ import annotations

from perdure.query.conditions import Query, Use
from perdure.query.marks import Unfit, error_at


def read_query(text: str, app: str = "", *, use: Use = "list", all_runs: bool = False) -> Query:
    """What a text asks of ``app``. Raises ``QueryError``, which shows the place and what was expected.

    >>> read_query("").condition
    AllOf(parts=())
    """
    if not text.strip():
        return Query(all_runs=all_runs)
    from perdure.query.check import check  # noqa: PLC0415 - as below
    from perdure.query.parse import parse  # noqa: PLC0415 - brings a parser generator, which few processes need

    try:
        return check(parse(text), app, use, all_runs=all_runs)
    except Unfit as unfit:
        raise error_at(text, unfit.at, unfit.what) from None
