"""The deployment of an app: its versions, where new work goes, and how an operator changes that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from perdure.client import deployments
from perdure.errors import DefinitionError
from perdure.model.deployments import (
    LATEST,
    DeleteVersion,
    DeploymentInfo,
    DeploymentResult,
    SetCurrent,
    SetMetadata,
    SetRamping,
    UnsetRamping,
    Verb,
    VersionInfo,
)
from perdure.operations.deployments import check_percentage, check_version
from perdure.runtime import aface
from perdure.runtime.face import Home
from perdure.runtime.leases import provably_gone
from perdure.versions.watch import read_bounds

METADATA_MAX = 64_000  # bytes, of one change


class DeploymentHandle:
    """The versions of an app. Making one does no I/O. Not to be used in a workflow's body: in a step it may be.

    Every change is one transaction, and may be made twice: the second time nothing changes, and the result says so.
    ``revision``: do it only if the deployment is still at that revision. ``reason``: kept with it, and who it was.

    >>> # deployment = app.client.deployment
    >>> # await deployment.set_current_version("v1", reason="v2 loses orders")
    """

    def __init__(self, home: Home) -> None:
        self._home = home

    async def describe(self, *, changes: int = LATEST) -> DeploymentInfo:
        """Where new work goes, all versions, the latest ``changes``. Raises ``VersionNotFound`` before any launch."""
        info: DeploymentInfo = await self._do("describe", deployments.describe, changes=changes)
        return info

    async def list(self) -> tuple[VersionInfo, ...]:
        """All versions, the latest launched first; those that were deleted left out."""
        info: DeploymentInfo = await self._do("list", deployments.describe, changes=0)
        return info.versions

    async def describe_version(self, version: str, /) -> VersionInfo:
        """One version: its state, executors and open work, now. Raises ``VersionNotFound``."""
        name = check_version(version)
        info: VersionInfo = await self._do("describe_version", deployments.describe_version, version=name)
        return info

    async def set_current_version(
        self,
        version: str,
        /,
        *,
        reason: str = "",
        revision: int | None = None,
        allow_no_executors: bool = False,
        allow_missing_workflows: bool = False,
    ) -> DeploymentResult:
        """Send new work to this version; if it was ramping, that is over.

        The version that was current is draining from then on. Raises ``VersionNotFound`` for one that was never
        launched, ``DeploymentConflict`` for one that no live executor runs: ``allow_no_executors`` lets new work wait
        for it; and for one that lacks a workflow which the current version has, unless it had traffic before and this
        is a rollback: ``allow_missing_workflows`` has what is started of that held.
        """
        verb = SetCurrent(check_version(version))
        waived = {"allow_no_executors": allow_no_executors, "allow_missing_workflows": allow_missing_workflows}
        return await self._change("set_current_version", verb, reason, revision, **waived)

    async def set_ramping_version(
        self,
        version: str,
        percentage: float,
        /,
        *,
        abort_if: str | Sequence[str] = (),
        reason: str = "",
        revision: int | None = None,
        allow_no_executors: bool = False,
        allow_missing_workflows: bool = False,
    ) -> DeploymentResult:
        """Send this share (0 to 100 percent) of new work to this version; 0 takes it back.

        By a hash of the workflow's id, whoever starts it: a larger share only adds to a smaller one. Another version
        that was ramping ramps no longer. ``abort_if``: ``"failure_rate > 2%"``, ``"problem_rate > 2%"``, or both: once
        that is so, of 20 workflows at least, every executor knows to take the share back or, if the version is current
        by then, to make the one before current again; within 10 seconds, and listed as a change, with the evidence.
        Raises as ``set_current_version``, and ``DeploymentConflict`` for the current version.
        """
        bounds = read_bounds([abort_if] if isinstance(abort_if, str) else abort_if)
        verb = SetRamping(check_version(version), check_percentage(percentage), bounds)
        waived = {"allow_no_executors": allow_no_executors, "allow_missing_workflows": allow_missing_workflows}
        return await self._change("set_ramping_version", verb, reason, revision, **waived)

    async def unset_ramping_version(self, *, reason: str = "", revision: int | None = None) -> DeploymentResult:
        """End the ramp, whichever version it is of: all new work goes to the current version."""
        return await self._change("unset_ramping_version", UnsetRamping(), reason, revision)

    async def update_metadata(
        self,
        version: str,
        put: Mapping[str, Any] | None = None,
        /,
        *,
        remove: Sequence[str] = (),
        reason: str = "",
        revision: int | None = None,
    ) -> DeploymentResult:
        """Note of a version what you like, as JSON by name; ``remove``: names to forget. Raises ``VersionNotFound``.

        >>> # await deployment.update_metadata("v2", {"commit": "4f1c2aa", "by": "ann"}, remove=["ticket"])
        """
        verb = SetMetadata(check_version(version), check_metadata(put or {}), tuple(remove))
        return await self._change("update_metadata", verb, reason, revision)

    async def delete_version(
        self, version: str, /, *, skip_drainage: bool = False, reason: str = "", revision: int | None = None
    ) -> DeploymentResult:
        """Forget a version that is drained, or was never given traffic.

        Raises ``DeploymentConflict`` while it is current or ramping, while live executors run it, and while open work
        stays with it: ``skip_drainage`` leaves that stranded, and the result says how much it is. Launched again, the
        version is there again; what an operator said of it holds.
        """
        verb = DeleteVersion(check_version(version), skip_drainage)
        return await self._change("delete_version", verb, reason, revision)

    async def _change(
        self, name: str, verb: Verb, reason: str, revision: int | None, **waived: bool
    ) -> DeploymentResult:
        done: DeploymentResult = await self._do(
            name, deployments.change, verb=verb, reason=reason, revision=revision, **waived
        )
        return done

    async def _do(self, name: str, work: Any, **how: Any) -> Any:
        return await aface.operate(self._home, f"deployment.{name}()", partial(work, is_gone=provably_gone, **how))

    def __repr__(self) -> str:
        return "<deployment>"


def check_metadata(put: Mapping[str, Any]) -> dict[str, Any]:
    """Names with JSON values, as they are stored. Raises ``DefinitionError`` showing what is none."""
    found = dict(put)
    if not all(isinstance(name, str) and name for name in found):  # pyright: ignore[reportUnnecessaryIsInstance]  users without a checker
        raise DefinitionError(
            f"metadata {put!r} are not names with values: give a dict such as {{'commit': '4f1c2aa'}}"
        )
    try:
        encoded = msgspec.json.encode(found)
    except (TypeError, ValueError, RecursionError) as error:
        raise DefinitionError(f"metadata {put!r} are no JSON: {error}") from None
    if len(encoded) > METADATA_MAX or b"\\u0000" in encoded:
        raise DefinitionError(f"metadata of {len(encoded)} bytes cannot be kept: up to {METADATA_MAX}, without NUL")
    stored: dict[str, Any] = msgspec.json.decode(encoded)
    return stored
