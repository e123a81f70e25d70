"""Recovery policies: what to answer when a workflow was interrupted, and what one is told.

>>> from perdure.recovery import Decision, Default, Hold, Incident
>>> # @shop.recovery_policy(checkout)
>>> # async def after_crash(incident: Incident) -> Decision:
>>> #     return Hold(because="poison") if incident.attempt > 3 else Default()
"""

from perdure.errors import Compensating
from perdure.model.records import HistoryEntry
from perdure.policy.decisions import (
    Compensate,
    Decision,
    Default,
    Delete,
    Hold,
    MoveTo,
    Rerun,
    Resume,
    RunFrom,
    SetStatus,
    Skip,
    Terminate,
)
from perdure.policy.incident import Incident, InFlight
from perdure.policy.rules import Restorer

__all__ = [
    "Compensate",
    "Compensating",
    "Decision",
    "Default",
    "Delete",
    "HistoryEntry",
    "Hold",
    "InFlight",
    "Incident",
    "MoveTo",
    "Rerun",
    "Restorer",
    "Resume",
    "RunFrom",
    "SetStatus",
    "Skip",
    "Terminate",
]
