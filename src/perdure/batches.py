"""What a batch can do to each workflow that its query names, and what its readers see.

>>> from perdure.batches import Cancel, Resume
>>> Resume(version="v1")
Resume(version='v1', force=False)
>>> # await app.client.batch(Resume(version="v1"), "version = v2 AND problem IS NOT NULL", reason="v2 is bad").apply()
"""

from perdure.model.batches import BatchInfo, BatchPlan, BatchState, Fate, PlanGroup, PlanSample, TargetInfo
from perdure.model.verbs import (
    Cancel,
    Delete,
    Fork,
    Move,
    Pause,
    Reset,
    Restart,
    Resume,
    Skip,
    Terminate,
    Unpause,
    Verb,
)

__all__ = [
    "BatchInfo",
    "BatchPlan",
    "BatchState",
    "Cancel",
    "Delete",
    "Fate",
    "Fork",
    "Move",
    "Pause",
    "PlanGroup",
    "PlanSample",
    "Reset",
    "Restart",
    "Resume",
    "Skip",
    "TargetInfo",
    "Terminate",
    "Unpause",
    "Verb",
]
