"""Perdure: durable workflows for Python that survive any crash, any deploy and any operator, with no server to run."""

from perdure.api.app import App
from perdure.api.batch import Batch, BatchHandle
from perdure.api.client import Client
from perdure.api.deployment import DeploymentHandle
from perdure.api.handle import Handle
from perdure.api.keys import Event, Key, Stream, Topic
from perdure.api.messages import now, random, recv, set_event, sleep, uuid4
from perdure.api.options import Options
from perdure.api.patches import deprecate_patch, patched
from perdure.api.queue import Queue, QueueInfo
from perdure.api.resource import Resource
from perdure.api.router import Router
from perdure.api.schedule import ScheduleHandle
from perdure.api.step import Step
from perdure.api.streams import close_stream, track, write_stream
from perdure.api.workflow import Workflow
from perdure.errors import PerdureError
from perdure.model.batches import BatchInfo, BatchPlan, TargetInfo
from perdure.model.deployments import DeploymentChange, DeploymentInfo, DeploymentResult, VersionInfo
from perdure.model.durations import Duration
from perdure.model.info import Problem, WorkflowInfo
from perdure.model.schedules import FiringInfo, ScheduleInfo
from perdure.model.states import Status
from perdure.policy.rate import Rate
from perdure.policy.retry import Retry
from perdure.query.counts import Count, Group
from perdure.runtime.context import Current, current
from perdure.serde.codec import Codec
from perdure.serde.secret import Secret
from perdure.telemetry import logger

__version__ = "0.1.0"

__all__ = [
    "App",
    "Batch",
    "BatchHandle",
    "BatchInfo",
    "BatchPlan",
    "Client",
    "Codec",
    "Count",
    "Current",
    "DeploymentChange",
    "DeploymentHandle",
    "DeploymentInfo",
    "DeploymentResult",
    "Duration",
    "Event",
    "FiringInfo",
    "Group",
    "Handle",
    "Key",
    "Options",
    "PerdureError",
    "Problem",
    "Queue",
    "QueueInfo",
    "Rate",
    "Resource",
    "Retry",
    "Router",
    "ScheduleHandle",
    "ScheduleInfo",
    "Secret",
    "Status",
    "Step",
    "Stream",
    "TargetInfo",
    "Topic",
    "VersionInfo",
    "Workflow",
    "WorkflowInfo",
    "close_stream",
    "current",
    "deprecate_patch",
    "logger",
    "now",
    "patched",
    "random",
    "recv",
    "set_event",
    "sleep",
    "track",
    "uuid4",
    "write_stream",
]
