"""What keeps a workflow from getting on, and two categories of it: the one place that says which are problems.

Today a problem is a reason of what is held. A person's pause, a policy's hold and a process that has no exit are not.
"""

from __future__ import annotations

from perdure.model.states import Reason

TASK_FAILED = (Reason.NO_CODE, Reason.NONDETERMINISM, Reason.UNDECODABLE)  # the code was there, and could not go on
TASK_TIMED_OUT = (Reason.RECOVERY_LIMIT,)  # whoever ran it died, too often

PROBLEMS: tuple[Reason, ...] = (*TASK_FAILED, *TASK_TIMED_OUT)

WRITTEN: dict[str, tuple[Reason, ...]] = {
    **{str(reason): (reason,) for reason in PROBLEMS},
    "executor_died": TASK_TIMED_OUT,
    "category=WorkflowTaskFailed": TASK_FAILED,
    "category=WorkflowTaskTimedOut": TASK_TIMED_OUT,
}
"""How problems are written in a query."""
