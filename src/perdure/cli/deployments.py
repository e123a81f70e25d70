"""``perdure deployment …``: the versions of an app, where new work goes, and how that changes while everything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import msgspec

from perdure.api.deployment import check_metadata
from perdure.cli.amounts import FROM_ZERO
from perdure.cli.exits import Code, Exit
from perdure.cli.output import clean, emit_many, emit_one, instant, redacted, shortened, table
from perdure.cli.target import Given, common, opened, run
from perdure.model.deployments import (
    LATEST,
    DeleteVersion,
    Deployment,
    DeploymentInfo,
    DeploymentResult,
    Order,
    SetCurrent,
    SetMetadata,
    SetRamping,
    UnsetRamping,
    Verb,
    VersionInfo,
)
from perdure.model.ids import TokenMaker
from perdure.model.info import from_datetime
from perdure.operations import deployments as operations
from perdure.operations.look import who
from perdure.runtime.leases import provably_gone
from perdure.store.base import Store
from perdure.versions.watch import read_bounds


@click.group()
def deployment() -> None:
    """The versions of an app's code, and which of them new work goes to."""


# -- reading


@deployment.command("list")
@common
def list_(given: Given) -> None:
    """Versions, the latest launched first: the state of each, its live executors, the open work of it."""
    run(_list(given))


async def _list(given: Given) -> None:
    info = await _read(given, 0)
    empty = "no versions: launch one with perdure run MODULE:APP"
    emit_many(given.output, "versions", [fields(one) for one in info.versions], _table(info, empty), id="version",
              one="deployment_version")  # fmt: skip


@deployment.command("describe")
@common
@click.option("--changes", type=FROM_ZERO, default=LATEST, help=f"Changes to show (default {LATEST}).")
def describe(given: Given, changes: int) -> None:
    """Where new work goes, all versions, and who changed that last, and why."""
    run(_describe(given, changes))


async def _describe(given: Given, changes: int) -> None:
    info = await _read(given, changes)
    head = f"{info.app}: new work goes to {info.current}"
    if info.ramping is not None:
        head += f", {info.percentage:g} % of it to {info.ramping}"
    if info.abort_if:
        head += f"; stopped by itself if {' or '.join(info.abort_if)}"
    changed = f"revision {info.revision}, of {instant(from_datetime(info.changed))}: {info.reason}"
    lines = [clean(head), clean(changed), "", *_table(info, ""), "", *_changes(info)]
    shown: dict[str, Any] = msgspec.to_builtins(info)
    emit_one(given.output, "deployment", shown, lines, id="app")


def _table(info: DeploymentInfo, empty: str) -> list[str]:
    cells = [
        (one.version, _state(one), instant(from_datetime(one.since)), _launched(one), str(len(one.executors)),
         *(str(one.open_work[kind]) for kind in ("pinned", "undeclared", "auto_upgrade")), _noted(one))
        for one in info.versions
    ]  # fmt: skip
    head = ("version", "state", "since", "launched", "executors", "pinned", "undeclared", "auto", "metadata")
    return table(head, cells, empty)


def _changes(info: DeploymentInfo) -> list[str]:
    cells = [
        (str(one.revision), instant(from_datetime(one.at)), one.kind, one.version, one.by, one.reason)
        for one in info.changes
    ]
    return table(("revision", "at", "change", "version", "by", "why"), cells, "no changes are noted")


def _state(one: VersionInfo) -> str:
    return f"{one.state} {one.percentage:g} %" if one.percentage else str(one.state)


def _launched(one: VersionInfo) -> str:
    return "never" if one.launched is None else instant(from_datetime(one.launched))


def _noted(one: VersionInfo) -> str:
    return msgspec.json.encode(one.metadata).decode() if one.metadata else ""


@deployment.command("describe-version")
@common
@click.argument("version")
def describe_version(given: Given, version: str) -> None:
    """One version: its state and since when, its live executors, and the open work that keeps it from being drained."""
    run(_describe_version(given, version))


async def _describe_version(given: Given, version: str) -> None:
    async with opened(given) as store:
        found = await store.deployment(changes=0)
        one = operations.one_version(store.app, found, version, gone_of(found))
    work = ", ".join(f"{count} {kind}" for kind, count in one.open_work.items() if count) or "none"
    lines = [
        f"{one.version}: {_state(one)} since {instant(from_datetime(one.since))}",
        f"executors: {', '.join(one.executors) or 'none'}",
        f"open work: {work}",
        f"launched: {_launched(one)}, first {_first(one)}",
    ]
    if one.withdrawn:
        lines.append("an operator took traffic from it: no launch gives it any again")
    lines += [f"{name}: {msgspec.json.encode(value).decode()}" for name, value in one.metadata.items()]
    emit_one(given.output, "deployment_version", fields(one), [clean(line) for line in lines], id="version")


def _first(one: VersionInfo) -> str:
    return "never" if one.first_launched is None else instant(from_datetime(one.first_launched))


async def _read(given: Given, changes: int) -> DeploymentInfo:
    async with opened(given) as store:
        found = await store.deployment(changes=changes)
        return operations.describe(store.app, found, gone_of(found))


def gone_of(found: Deployment) -> frozenset[bytes]:
    """The executors that are provably gone, though their leases still run."""
    return frozenset(one.id for one in found.executors if provably_gone(one))


def fields(one: VersionInfo) -> dict[str, Any]:
    """A version as JSON."""
    shown: dict[str, Any] = msgspec.to_builtins(one)
    return shown


# -- changing


def _order(fn: Callable[..., None]) -> Callable[..., None]:
    """What every change takes."""
    for option in (
        click.option("--reason", default="", metavar="TEXT", help="Kept with the change, with who it was."),
        click.option("--revision", type=int, metavar="N", help="Only if it is still at this revision (see describe)."),
    ):
        fn = option(fn)
    return fn


_no_executors = click.option(
    "--allow-no-executors", is_flag=True, help="Also a version that nobody runs yet: what it gets waits."
)
_missing = click.option(
    "--allow-missing-workflows", is_flag=True, help="Also one that lacks workflows of the current version."
)


@deployment.command("set-current-version")
@common
@click.argument("version")
@_order
@_no_executors
@_missing
def set_current_version(given: Given, /, version: str, **how: Any) -> None:
    """Send new work to VERSION. What other versions began stays with them; a ramp of VERSION is over."""
    run(_change(given, SetCurrent(operations.check_version(version)), **how))


@deployment.command("set-ramping-version")
@common
@click.argument("version")
@click.option("--percentage", type=float, required=True, help="Its share of new work: 0 to 100; 0 stops the ramp.")
@click.option("--abort-if", multiple=True, metavar="BOUND", help="'failure_rate > 2%', 'problem_rate > 2%', or both.")
@_order
@_no_executors
@_missing
def set_ramping_version(
    given: Given, /, version: str, percentage: float, abort_if: tuple[str, ...], **how: Any
) -> None:
    """Send a share of new work to VERSION, by a hash of the workflow's id; the current version gets the rest."""
    share = operations.check_percentage(percentage)
    verb = SetRamping(operations.check_version(version), share, read_bounds(abort_if))
    run(_change(given, verb, **how))


@deployment.command("unset-ramping-version")
@common
@_order
def unset_ramping_version(given: Given, reason: str, revision: int | None) -> None:
    """End the ramp, whichever version it is of."""
    run(_change(given, UnsetRamping(), reason, revision))


@deployment.command("update-metadata")
@common
@click.argument("version")
@click.option("--set", "put", multiple=True, metavar="NAME=JSON", help="Note this; several times if needed.")
@click.option("--remove", multiple=True, metavar="NAME", help="Forget this; several times if needed.")
@_order
def update_metadata(
    given: Given, version: str, put: tuple[str, ...], remove: tuple[str, ...], reason: str, revision: int | None
) -> None:
    """Note of VERSION what you like: --set commit='"4f1c2aa"' --set tested=true --remove ticket."""
    if not put and not remove:
        raise Exit(Code.USAGE, "nothing to change: give --set NAME=JSON or --remove NAME")
    verb = SetMetadata(operations.check_version(version), check_metadata(dict(map(_noted_as, put))), remove)
    run(_change(given, verb, reason, revision))


def _noted_as(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    try:
        if equals:
            return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        pass
    raise Exit(Code.USAGE, f"{text!r} is not NAME=JSON; text needs quotes of its own: '{name}=\"{value or 'text'}\"'")


@deployment.command("delete-version")
@common
@click.argument("version")
@click.option("--skip-drainage", is_flag=True, help="Leave open work of it stranded; says how much that is.")
@_order
def delete_version(given: Given, version: str, skip_drainage: bool, reason: str, revision: int | None) -> None:
    """Forget VERSION: refused while it is current, ramping, run by live executors, or not drained."""
    run(_change(given, DeleteVersion(operations.check_version(version), skip_drainage), reason, revision))


async def _change(given: Given, verb: Verb, reason: str, revision: int | None, **waived: bool) -> None:
    async with opened(given, changes=True) as store:
        done = await _ordered(store, verb, reason, revision, waived)
        store.hint()
    shown: dict[str, Any] = msgspec.to_builtins(done)
    emit_one(given.output, "change", shown, [clean(redacted(done.message))], id="revision")


async def _ordered(
    store: Store, verb: Verb, reason: str, revision: int | None, waived: dict[str, bool]
) -> DeploymentResult:
    apart = tuple(one.id for one in await store.incarnations() if provably_gone(one))
    order = Order(
        verb=verb, nonce=TokenMaker()(), by=who(), reason=shortened(reason, 1000), revision=revision, apart=apart,
        **waived,
    )  # fmt: skip
    return await operations.change(store, order)
