"""Deployments: the versions of an app, what state each is in, and what an operator may order of them.

Times of rows and orders are integers (microseconds since 1970-01-01 UTC, by the database's clock); what users see has
real datetimes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from perdure.model.info import to_datetime
from perdure.model.records import Incarnation
from perdure.model.states import Versioning
from perdure.model.versions import Bound, Routing, Version

COUNTED = 10_000  # open workflows of one version, behaviour and executor; more are not counted
LATEST = 10  # changes that a description lists
SAMPLED = 20_000  # workflows that are looked at of a ramp that watches itself: of 0.1 % of them 20 are left


class State(StrEnum):
    """What a version of the code is in its deployment: computed when it is asked for, kept nowhere."""

    INACTIVE = "inactive"  # launched, and never given traffic
    CURRENT = "current"
    RAMPING = "ramping"
    DRAINING = "draining"  # it gets no new work any more, and open work stays with it
    DRAINED = "drained"


# -- what may be ordered


class SetCurrent(msgspec.Struct, frozen=True):
    """New work goes to this version. If it was ramping, that is over."""

    version: str


class SetRamping(msgspec.Struct, frozen=True):
    """This version gets a share of new work, in percent; 0 takes it away again.

    ``abort_if``: watch it by these bounds; without any it is watched as it was, if it ramped.
    """

    version: str
    percentage: float
    abort_if: tuple[Bound, ...] = ()


class UnsetRamping(msgspec.Struct, frozen=True):
    """No version ramps."""


class Abort(msgspec.Struct, frozen=True):
    """A watched version has passed a bound: it gets no new work any more."""

    version: str


class SetMetadata(msgspec.Struct, frozen=True):
    """Set some of what people noted of a version, and remove some."""

    version: str
    put: Mapping[str, Any]
    remove: tuple[str, ...] = ()


class DeleteVersion(msgspec.Struct, frozen=True):
    """Forget a version that nothing is left of; ``skip_drainage``: or that open work stays with."""

    version: str
    skip_drainage: bool = False


Verb = SetCurrent | SetRamping | UnsetRamping | Abort | SetMetadata | DeleteVersion
KINDS: dict[type[Verb], str] = {
    SetCurrent: "set_current_version",
    SetRamping: "set_ramping_version",
    UnsetRamping: "unset_ramping_version",
    Abort: "abort",
    SetMetadata: "update_metadata",
    DeleteVersion: "delete_version",
}
LAUNCH = "launch"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One change, and who wants it. ``nonce`` tells a repeated order from another one that says the same."""

    verb: Verb
    nonce: bytes
    by: str = ""
    reason: str = ""
    revision: int | None = None  # done only if this is still the latest one
    allow_no_executors: bool = False  # also for a version that nobody runs
    allow_missing_workflows: bool = False  # also for a version that lacks workflows which the current one has
    apart: tuple[bytes, ...] = ()  # incarnations that are proven gone, whatever their leases say


class Why(StrEnum):
    """Why an order is refused."""

    NOTHING = "nothing was launched"
    STALE = "revision"
    UNKNOWN = "unknown"
    NEVER_LAUNCHED = "never launched"
    NO_EXECUTORS = "no executors"
    LACKS_WORKFLOWS = "lacks workflows"
    IS_CURRENT = "current"
    IS_RAMPING = "ramping"
    HAS_EXECUTORS = "has executors"
    DRAINING = "draining"


class OpenWork(msgspec.Struct, frozen=True):
    """Open workflows of one version and behaviour, whoever holds them. ``count`` stops at a bound."""

    version: str
    versioning: Versioning
    count: int

    @property
    def stays(self) -> bool:
        """Whether it keeps the version from being drained: it does not go with the current version by itself."""
        return self.versioning is not Versioning.AUTO_UPGRADE


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an order: done, done before (nothing changed), or refused."""

    before: Routing | None
    after: Routing | None
    changed: bool = False
    why: Why | None = None
    executors: tuple[str, ...] = ()  # the live ones of the version
    open: tuple[OpenWork, ...] = ()  # of the version that was to be deleted
    missing: tuple[str, ...] = ()  # workflows that the current version has, and the one that is to get traffic has not


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a deployment, by a launch or a person. Its revision is that of the routing after it."""

    revision: int
    at: int
    kind: str
    version: str
    by: str
    reason: str
    current: str
    ramping: str | None
    percentage: float


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to know of a deployment, at one moment."""

    now: int
    routing: Routing | None
    versions: list[Version]
    executors: list[Incarnation]
    open: list[OpenWork]
    changes: list[Change]  # the latest first


# -- what users see


class DeploymentChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a deployment: who made it, why, and where new work went from then on."""

    revision: int
    at: datetime
    kind: str
    """``launch``, ``abort`` (a ramp that watched itself), or the operation: ``set_current_version`` and so on."""
    version: str
    by: str
    reason: str
    current: str
    ramping: str | None
    percentage: float


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A version of an app's code when it was read."""

    version: str
    state: State
    since: datetime
    """In this state; of a draining or drained one, when it last lost traffic."""
    percentage: float
    """The share of new work that it gets by the ramp: 0 unless it is ramping."""
    first_launched: datetime | None
    """None: an operator has named it, and nobody has launched it yet."""
    launched: datetime | None
    """The last time."""
    withdrawn: bool
    """Whether an operator took traffic from it: no launch gives it any again."""
    executors: tuple[str, ...]
    """The labels of its live executors."""
    open_work: dict[str, int]
    """Open workflows by behaviour: ``pinned``, ``undeclared``, ``auto_upgrade``. What executors hold, and what nobody
    does, is counted up to 10,000 each."""
    metadata: dict[str, Any]


class DeploymentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where new work of an app goes, its versions, and the latest changes of that, when it was read."""

    app: str
    current: str
    ramping: str | None
    percentage: float
    revision: int
    """Counts changes. Given to a change, that is refused if there was another meanwhile."""
    changed: datetime
    reason: str
    """Of the last change of routing."""
    abort_if: tuple[str, ...]
    """Bounds past which the version that is ramping, or was until it became current, loses its traffic by itself."""
    versions: tuple[VersionInfo, ...]
    """The latest launched first."""
    changes: tuple[DeploymentChange, ...]
    """The latest first."""


class DeploymentResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a change came to."""

    changed: bool
    """False: it was so before, and nothing was changed."""
    revision: int
    message: str
    """What holds now, and what happens next."""
    stranded: int = 0
    """Open workflows that nothing runs any more, by ``delete_version(skip_drainage=True)``."""


def change_info(change: Change) -> DeploymentChange:
    """A change as its reader sees it."""
    return DeploymentChange(
        revision=change.revision, at=to_datetime(change.at), kind=change.kind, version=change.version, by=change.by,
        reason=change.reason, current=change.current, ramping=change.ramping, percentage=change.percentage,
    )  # fmt: skip
