# Produced from perdure/__init__.py by tools/async_to_sync.py; do not edit.
"""Perdure: durable workflows for Python that survive any crash, any deploy and any operator, with no server to run."""

from perdure.api.keys import Event, Key, Stream, Topic
from perdure.api.options import Options
from perdure.api.queue import Queue, QueueInfo
from perdure.api.resource import Resource
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
from perdure.sync.app import App
from perdure.sync.batch import Batch, BatchHandle
from perdure.sync.client import Client
from perdure.sync.deployment import DeploymentHandle
from perdure.sync.handle import Handle
from perdure.sync.messages import now, random, recv, set_event, sleep, uuid4
from perdure.sync.patches import deprecate_patch, patched
from perdure.sync.router import Router
from perdure.sync.schedule import ScheduleHandle
from perdure.sync.step import Step
from perdure.sync.streams import close_stream, track, write_stream
from perdure.sync.workflow import Workflow
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
