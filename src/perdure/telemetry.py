"""The logger of workflow and step code: a stdlib logger with the ids on each record, silent while replaying.

A library configures no logging: no handler, no level. ``extra`` fields on each record: ``workflow_id``,
``workflow_name``, ``workflow_run``, ``step_path``, ``attempt``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

Speaker = Callable[[], "dict[str, Any] | None"]


def _nobody() -> dict[str, Any] | None:
    return {}


class WorkflowFilter(logging.Filter):
    """Adds who speaks; drops what a replay says again. ``speaker`` answers None while replaying."""

    def __init__(self) -> None:
        super().__init__()
        self.speaker: Speaker = _nobody

    def filter(self, record: logging.LogRecord) -> bool:
        fields = self.speaker()
        if fields is None:
            return False
        for name, value in fields.items():
            setattr(record, name, value)
        return True


logger = logging.getLogger("perdure.user")
"""For workflow and step code: ``logger.info("charged %s", charge_id)``. Silent while history is replayed."""

_filter = WorkflowFilter()
logger.addFilter(_filter)


def ask_who_speaks(speaker: Speaker) -> None:
    """Set by the runtime, which knows where code stands."""
    _filter.speaker = speaker
