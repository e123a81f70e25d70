"""What in a workflow's body would not be the same on replay: found by reading it, without running it."""

from __future__ import annotations

from perdure.lint.finding import Finding
from perdure.lint.reader import read_workflow

__all__ = ["Finding", "read_workflow"]
