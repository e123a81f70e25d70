"""The invariants, by what they are about. Numbers not found here belong to what is not built yet, or cannot be seen."""

from perdure.testing.histcheck.invariants import (
    family,
    messages,
    orders,
    problems,
    queues,
    recovery,
    retention,
    schedules,
    steps,
    streams,
    workflows,
)

__all__ = [
    "family",
    "messages",
    "orders",
    "problems",
    "queues",
    "recovery",
    "retention",
    "schedules",
    "steps",
    "streams",
    "workflows",
]
