"""The values that Perdure answers with, to be imported where a type is written down; none is made by a user.

>>> from perdure.records import Status, WorkflowInfo
>>> def late(info: WorkflowInfo) -> bool:
...     return info.status is Status.WAITING
"""

from perdure.api.queue import Queue
from perdure.api.resource import Resource
from perdure.api.workflow import Unary
from perdure.model.batches import BatchInfo, BatchPlan, PlanGroup, PlanSample, TargetInfo
from perdure.model.deployments import DeploymentChange, DeploymentInfo, DeploymentResult, VersionInfo
from perdure.model.info import Problem, WorkflowInfo
from perdure.model.problems import ProblemKind
from perdure.model.schedules import FiringInfo, ScheduleInfo
from perdure.model.states import Status
from perdure.operations.retention import Purged
from perdure.operations.size import DatabaseSize
from perdure.policy.decisions import Decision
from perdure.policy.incident import Incident
from perdure.query.counts import Count, Group
from perdure.runtime.context import Current

__all__ = [
    "BatchInfo",
    "BatchPlan",
    "Count",
    "Current",
    "DatabaseSize",
    "Decision",
    "DeploymentChange",
    "DeploymentInfo",
    "DeploymentResult",
    "FiringInfo",
    "Group",
    "Incident",
    "PlanGroup",
    "PlanSample",
    "Problem",
    "ProblemKind",
    "Purged",
    "Queue",
    "Resource",
    "ScheduleInfo",
    "Status",
    "TargetInfo",
    "Unary",
    "VersionInfo",
    "WorkflowInfo",
]
