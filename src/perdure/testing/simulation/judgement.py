"""What the policy of a world answers: any decision that can be, and what is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from perdure.recovery import Compensate, Default, Hold, Incident, Rerun, Resume, RunFrom, Skip, Terminate
from perdure.testing.simulation.sometimes import sometimes

ANSWERS: tuple[tuple[str, Callable[[], Any]], ...] = (
    ("default", Default),
    ("resume", lambda: Resume(set={"again": True}, because="it may")),
    ("rerun", Rerun),
    ("skip", lambda: Skip(result=1)),
    ("hold", lambda: Hold(because="somebody has to look")),
    ("compensate", Compensate),
    ("run_from", lambda: RunFrom("2")),
    ("terminate", Terminate),
    ("nonsense", lambda: 3),
)
HANGS, RAISES = "hang", "raise"
ALL = (*(name for name, _ in ANSWERS), HANGS, RAISES)


async def decide(chance: Any, incident: Incident) -> Any:
    """An answer, by chance."""
    which = chance.choice(ALL)
    sometimes(f"a policy was asked and answered: {which}")
    sometimes("a policy was asked after a drain", str(incident.cause) == "drained")
    if which == HANGS:
        await asyncio.sleep(3600)
    if which == RAISES:
        raise LookupError("the policy itself is broken")
    return dict(ANSWERS)[which]()
