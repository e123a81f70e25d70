"""The invariants, by what they are about. Numbers not found here belong to what is not built yet, or cannot be seen."""

from perdure.testing.histcheck.invariants import family, messages, recovery, retention, steps, workflows

__all__ = ["family", "messages", "recovery", "retention", "steps", "workflows"]
