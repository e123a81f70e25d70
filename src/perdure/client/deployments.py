"""Deployments from a process that has a line: read, and changed as an operator orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from perdure.client import verbs
from perdure.client.line import Line
from perdure.client.moves import Patient
from perdure.model.deployments import LATEST, DeploymentInfo, DeploymentResult, Order, Verb, VersionInfo
from perdure.model.records import Incarnation
from perdure.operations import deployments
from perdure.operations.look import who
from perdure.store.base import Store

IsGone = Callable[[Incarnation], bool]
"""Whether an executor is provably gone, though its lease still runs."""


async def describe(line: Line, *, is_gone: IsGone, changes: int = LATEST) -> DeploymentInfo:
    """The whole deployment."""
    store = _store(line)
    found = await store.deployment(changes=changes)
    return deployments.describe(line.app, found, frozenset(one.id for one in found.executors if is_gone(one)))


async def describe_version(line: Line, *, version: str, is_gone: IsGone) -> VersionInfo:
    """One version."""
    found = await _store(line).deployment(changes=0)
    gone = frozenset(one.id for one in found.executors if is_gone(one))
    return deployments.one_version(line.app, found, version, gone)


async def change(
    line: Line,
    *,
    verb: Verb,
    is_gone: IsGone,
    revision: int | None,
    reason: str,
    allow_no_executors: bool = False,
    allow_missing_workflows: bool = False,
) -> DeploymentResult:
    """Order a change. Starts of this process follow it at once."""
    store = _store(line)
    apart = tuple(one.id for one in await store.incarnations() if is_gone(one))
    order = Order(
        verb=verb, nonce=line.new_token(), by=who(), reason=reason, revision=revision,
        allow_no_executors=allow_no_executors, allow_missing_workflows=allow_missing_workflows, apart=apart,
    )  # fmt: skip
    done = await deployments.change(store, order)
    line.routes.saw(await store.routing())
    if line.work is not None:
        line.work.look()
    line.store.hint()
    return done


def _store(line: Line) -> Store:
    return cast("Store", Patient(line, verbs.patiently))
