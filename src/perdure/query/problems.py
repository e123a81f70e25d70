"""How problems are written in a query: kinds, and the seed's two categories of them."""

from __future__ import annotations

from perdure.model.problems import FAILED, TIMED_OUT, ProblemKind

WRITTEN: dict[str, tuple[ProblemKind, ...]] = {
    **{str(kind): (kind,) for kind in ProblemKind},
    "category=WorkflowTaskFailed": FAILED,
    "category=WorkflowTaskTimedOut": TIMED_OUT,
}
"""What may be written, and which kinds each means."""
