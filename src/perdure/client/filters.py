"""Short queries over workflows: equalities joined by AND. The full language comes with batches.

Fields: ``id``, ``status`` (or ``open``, ``closed``), ``type``, ``parent``; with the operator ``=`` or ``IN (a, b)``.
"""

from __future__ import annotations

import re
from typing import Any

from perdure.errors import ConfigError
from perdure.model.states import CLOSED, OPEN, Status
from perdure.store.asks import Filter

_TERM = re.compile(r"""\s*(\w+)\s*(?:=\s*('[^']*'|"[^"]*"|\S+)|IN\s*\(([^)]*)\))\s*$""", re.IGNORECASE)
_FIELDS = {"id": "ids", "status": "statuses", "executionstatus": "statuses", "type": "names", "workflowtype": "names",
           "name": "names", "parent": "parent"}  # fmt: skip


def read_filter(query: str) -> Filter:
    """Read a query. Raises ``ConfigError`` showing the part that cannot be read."""
    fields: dict[str, Any] = {}
    if not query.strip():
        return Filter()
    for term in re.split(r"\s+AND\s+", query, flags=re.IGNORECASE):
        found = _TERM.match(term)
        field = _FIELDS.get(found[1].lower()) if found else None
        if found is None or field is None or field in fields:
            raise ConfigError(
                f"cannot read {term.strip()!r} in the query {query!r}; "
                'write e.g. "status = failed AND type = checkout" '
                f"with fields {', '.join(sorted(_FIELDS))}, joined by AND"
            )
        values = [found[2]] if found[2] is not None else found[3].split(",")
        texts = {value.strip().strip("'\"") for value in values}
        fields[field] = _statuses(texts, query) if field == "statuses" else frozenset(texts)
    if "parent" in fields:
        fields["parent"] = next(iter(fields["parent"]))
    return Filter(**fields)


def _statuses(texts: set[str], query: str) -> frozenset[Status]:
    found: set[Status] = set()
    for text in texts:
        match text.lower():
            case "open" | "running" if text.lower() == "open" or text == "Running":
                found |= OPEN
            case "closed":
                found |= CLOSED
            case name:
                try:
                    found.add(Status(name))
                except ValueError:
                    known = ", ".join(["open", "closed", *Status])
                    raise ConfigError(f"there is no status {text!r} (in {query!r}); known: {known}") from None
    return frozenset(found)
