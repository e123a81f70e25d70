"""Named queries: SQL lives in ``queries/*.sql`` beside the dialect that runs it, one file per noun.

Each query has a line of purpose, then its name, then its text::

    -- Renews a lease unless the incarnation was declared dead.
    -- name: incarnation_renew
    update incarnation set …

Promises: names are unique within a dialect; files are read once per process; a file that does not follow the form is
an error at the first use, not a missing query later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)[ ]*$", re.MULTILINE)


@cache
def queries(package: str) -> Mapping[str, str]:
    """All named queries of the dialect in ``package`` (``perdure.store.sqlite``), by name."""
    found: dict[str, str] = {}
    folder = files(package) / "queries"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".sql"):
            for name, text in parse(file.read_text(encoding="utf-8"), file.name).items():
                if name in found:
                    raise ValueError(f"query {name} stands twice in {package}; the second time in {file.name}")
                found[name] = text
    return MappingProxyType(found)


def parse(text: str, where: str) -> dict[str, str]:
    """The queries of one file, without the comments around them."""
    head, *parts = _NAME.split(text)
    found: dict[str, str] = {}
    purpose = _trailing_comment(head)
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if not purpose:
            raise ValueError(f"query {name} in {where} has no line of purpose above its name")
        purpose = _trailing_comment(body)
        sql = body.strip().removesuffix(purpose).strip().removesuffix(";")
        if not sql or name in found:
            raise ValueError(f"query {name} in {where} is empty or stands twice")
        found[name] = sql
    return found


def _trailing_comment(text: str) -> str:
    """The comment lines at the end of ``text``: the purpose of the query that follows."""
    lines = text.strip().splitlines()
    first = len(lines)
    while first and lines[first - 1].startswith("--"):
        first -= 1
    return "\n".join(lines[first:])
