"""Deployments: what an operator asks of an app's versions, answered in words that say what happens next.

Each change is one transaction of the store, which rules whether it may be (``versions.deployments.rule``). Ordered
again it changes nothing, and says so; nothing here looks first and changes later.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import msgspec

from perdure.errors import DefinitionError, DeploymentConflict, VersionNotFound
from perdure.model.deployments import (
    Abort,
    DeleteVersion,
    Deployment,
    DeploymentInfo,
    DeploymentResult,
    OpenWork,
    Order,
    Ruling,
    SetCurrent,
    SetMetadata,
    SetRamping,
    State,
    UnsetRamping,
    Verb,
    VersionInfo,
    Why,
    change_info,
)
from perdure.model.info import to_datetime
from perdure.model.states import Versioning
from perdure.model.text import is_version
from perdure.model.versions import Routing, Version
from perdure.store.base import Store
from perdure.versions.deployments import state_of, staying
from perdure.versions.watch import SAMPLES_MIN, shown

ROUND = "within 5 seconds"  # the rhythm in which executors follow routing
_json = msgspec.json.Decoder(dict[str, Any])


# -- reading


def describe(app: str, found: Deployment, gone: frozenset[bytes] = frozenset()) -> DeploymentInfo:
    """A deployment as its reader sees it. ``gone``: incarnations that are known to be gone, whatever their leases say.

    Raises ``VersionNotFound`` if nothing was ever launched.
    """
    routing = found.routing
    if routing is None:
        raise VersionNotFound(nothing(app))
    there = [one for one in found.versions if one.deleted is None]
    return DeploymentInfo(
        app=app, current=routing.current, ramping=routing.ramping, percentage=routing.percentage,
        revision=routing.revision, changed=to_datetime(routing.changed), reason=routing.because,
        abort_if=() if routing.watch is None else tuple(map(shown, routing.watch.bounds)),
        versions=tuple(version_info(found, one, gone) for one in there),
        changes=tuple(change_info(one) for one in found.changes),
    )  # fmt: skip


def version_info(found: Deployment, version: Version, gone: frozenset[bytes] = frozenset()) -> VersionInfo:
    """A version of a deployment as its reader sees it."""
    state = state_of(found.routing, version, found.open)
    work = dict.fromkeys(map(str, Versioning), 0)
    for one in found.open:
        if one.version == version.name:
            work[str(one.versioning)] += one.count
    return VersionInfo(
        version=version.name, state=state, since=to_datetime(version.since or version.first_launched),
        percentage=found.routing.percentage if found.routing is not None and state is State.RAMPING else 0.0,
        first_launched=to_datetime(version.first_launched) if version.first_launched else None,
        launched=to_datetime(version.launched) if version.launched else None, withdrawn=version.withdrawn,
        executors=tuple(sorted(_live(found, gone).get(version.name, ()))), open_work=work,
        metadata=_json.decode(version.metadata),
    )  # fmt: skip


def one_version(app: str, found: Deployment, name: str, gone: frozenset[bytes] = frozenset()) -> VersionInfo:
    """One version. Raises ``VersionNotFound``."""
    for version in found.versions:
        if version.name == name and version.deleted is None:
            return version_info(found, version, gone)
    raise VersionNotFound(_unknown(app, name, [one.name for one in found.versions if one.deleted is None]))


def _live(found: Deployment, gone: frozenset[bytes]) -> dict[str, list[str]]:
    live: defaultdict[str, list[str]] = defaultdict(list)
    for who in found.executors:
        if who.leased(found.now) and who.id not in gone:
            live[who.version].append(who.executor)
    return live


# -- changing


def check_percentage(percentage: object) -> float:
    """A share of new work in percent: 0 to 100. Raises ``DefinitionError`` showing it."""
    if isinstance(percentage, int | float) and not isinstance(percentage, bool):
        share = float(percentage)
        if math.isfinite(share) and 0 <= share <= 100:
            return share
    raise DefinitionError(f"percentage={percentage!r} is no share of new work: give a number from 0 to 100")


def check_version(version: object) -> str:
    """The name of a version: 1 to 200 printable characters. Raises ``DefinitionError`` showing it."""
    if is_version(version):
        return version
    raise DefinitionError(f"{version!r} is no version: give its text, as perdure deployment list shows it")


async def change(store: Store, order: Order) -> DeploymentResult:
    """Do it. Raises ``VersionNotFound``, ``DeploymentConflict``, with the way out."""
    ruling = await store.change_deployment(order)
    if ruling.why is not None:
        raise await _refusal(store, order, ruling)
    assert ruling.after is not None, "only where nothing was launched there is none, and that is refused"
    stranded = staying(ruling.open) if isinstance(order.verb, DeleteVersion) and ruling.changed else 0
    return DeploymentResult(
        changed=ruling.changed, revision=ruling.after.revision, message=_words(store.app, order.verb, ruling),
        stranded=stranded,
    )  # fmt: skip


def _words(app: str, verb: Verb, ruling: Ruling) -> str:
    """What holds now, and what happens next."""
    assert ruling.after is not None, "see above"
    if not ruling.changed:
        return f"nothing to do: {_so_already(app, verb, ruling.after)} (revision {ruling.after.revision})"
    match verb:
        case SetCurrent(version=version):
            said = f"version {version} of {app} is the current one{_instead_of(ruling)}: new work goes there {ROUND}"
            said += _by_whom(ruling) + _what_it_lacks(ruling) + _what_becomes(ruling)
        case SetRamping(version=version, percentage=share) if share > 0:
            said = f"version {version} of {app} gets {share:g} % of new work {ROUND}, by the ids of workflows"
            said += f"; version {ruling.after.current} gets the rest"
            if ruling.after.watch is not None:
                bounds = " or ".join(map(shown, ruling.after.watch.bounds))
                said += f"; it loses that by itself if {bounds}, of {SAMPLES_MIN} workflows at least"
            said += _by_whom(ruling) + _what_it_lacks(ruling) + _what_becomes(ruling)
        case SetRamping() | UnsetRamping() | Abort():
            said = f"no version of {app} ramps any more: all new work goes to {ruling.after.current} {ROUND}"
            said += _what_becomes(ruling)
        case SetMetadata(version=version):
            said = f"what is noted of version {version} of {app} was changed"
        case DeleteVersion(version=version):
            said = f"version {version} of {app} is deleted; launched again, it is there again, and gets no traffic for "
            said += f"that{_strands(ruling.open)}"
    return f"{said} (revision {ruling.after.revision})"


def _so_already(app: str, verb: Verb, after: Routing) -> str:
    match verb:
        case SetCurrent(version=version):
            return f"version {version} is the current one of {app}"
        case SetRamping(version=version, percentage=share) if share > 0:
            return f"version {version} gets {share:g} % of new work"
        case SetRamping(version=version):
            return f"version {version} gets no part of new work; {_where(after)}"
        case UnsetRamping() | Abort():
            return f"no version of {app} ramps; {_where(after)}"
        case SetMetadata(version=version):
            return f"version {version} has these metadata"
        case DeleteVersion(version=version):
            return f"version {version} was deleted before"


def _where(routing: Routing) -> str:
    if routing.ramping is None:
        return f"all of it goes to {routing.current}"
    return f"{routing.percentage:g} % of it goes to {routing.ramping}, the rest to {routing.current}"


def _instead_of(ruling: Ruling) -> str:
    before = ruling.before
    if before is None or ruling.after is None or before.current == ruling.after.current:
        return ""
    return f" instead of {before.current}"


def _by_whom(ruling: Ruling) -> str:
    if ruling.before is None or ruling.executors:
        return ""
    return "; NO executor of it is alive, and new work waits until one is launched"


def _what_it_lacks(ruling: Ruling) -> str:
    if not ruling.missing:
        return ""
    return f"; it has NO {_workflows(ruling)}: what is started of that is held until new work goes where it is"


def _workflows(ruling: Ruling) -> str:
    names = ", ".join(ruling.missing[:5]) + (f" and {len(ruling.missing) - 5} more" if len(ruling.missing) > 5 else "")
    return f"workflow{'' if len(ruling.missing) == 1 else 's'} {names}"


def _what_becomes(ruling: Ruling) -> str:
    """Of who lost traffic by it."""
    before, after = ruling.before, ruling.after
    if before is None or after is None:
        return ""
    lost = [one for one in (before.current, before.ramping) if one not in (None, after.current, after.ramping)]
    return "".join(
        f"; what {one} began stays with it, see: perdure deployment describe-version {one}" for one in lost if one
    )


def _strands(work: tuple[OpenWork, ...]) -> str:
    count = staying(work)
    if not count:
        return ""
    each = ", ".join(f"{one.count} {one.versioning}" for one in work if one.stays)
    return (
        f"; {count} open workflow{'' if count == 1 else 's'} of it ({each}) {'is' if count == 1 else 'are'} stranded, "
        "see: perdure workflow list --stranded; to move one: perdure workflow resume ID --version V"
    )


# -- refusing


def nothing(app: str) -> str:
    """That there is no deployment yet."""
    return (
        f"no version of app {app!r} was ever launched; the first one launched becomes the current one: "
        "perdure run MODULE:APP"
    )


def _unknown(app: str, version: str, known: list[str]) -> str:
    listed = ", ".join(known[:10]) or "none"
    return f"app {app!r} has no version {version!r}; it has: {listed}. See: perdure deployment list"


async def _refusal(store: Store, order: Order, ruling: Ruling) -> Exception:
    app, verb, why = store.app, order.verb, ruling.why
    if why is Why.NOTHING or ruling.before is None:
        return VersionNotFound(nothing(app))
    version = ruling.before.ramping or "" if isinstance(verb, UnsetRamping) else verb.version
    if why is Why.STALE:
        return DeploymentConflict(
            f"the deployment of {app} was changed: revision {order.revision} was expected, it is at revision "
            f"{ruling.before.revision} ({_where(ruling.before)}: {ruling.before.because}). Look, and decide again: "
            "perdure deployment describe"
        )
    if why in (Why.UNKNOWN, Why.NEVER_LAUNCHED):
        known = [one.name for one in await store.versions() if one.deleted is None]
        said = _unknown(app, version, known)
        if why is Why.UNKNOWN:
            return VersionNotFound(said)
        return VersionNotFound(
            f"version {version!r} of {app} was never launched, so nothing would run what it gets; there are: "
            f"{', '.join(known[:10])}. Launch it first; or, to have new work wait for it: --allow-no-executors"
        )
    return DeploymentConflict(_conflict(app, version, verb, ruling))


def _conflict(app: str, version: str, verb: Verb, ruling: Ruling) -> str:
    """What is in the way, and the way out."""
    assert ruling.before is not None, "see above"
    deleting = isinstance(verb, DeleteVersion)
    match ruling.why:
        case Why.NO_EXECUTORS:
            return (
                f"no live executor runs version {version} of {app}: what it gets would wait. Start one first: perdure "
                "run MODULE:APP; or, to have new work wait for it: --allow-no-executors"
            )
        case Why.LACKS_WORKFLOWS:
            return (
                f"version {version} of {app} has no {_workflows(ruling)}, which version {ruling.before.current} has: "
                "what is started of that would be held there, and what goes with the routing would stay behind. Launch "
                "a version that has it; or, if nothing needs it any more: --allow-missing-workflows"
            )
        case Why.IS_CURRENT if deleting:
            return (
                f"version {version} of {app} cannot be deleted: it is the current one. Make another one current first: "
                "perdure deployment set-current-version V"
            )
        case Why.IS_CURRENT:
            return (
                f"version {version} of {app} cannot ramp: it is the current one, and gets all that no ramp takes. To "
                "take traffic from it, make another one current: perdure deployment set-current-version V"
            )
        case Why.IS_RAMPING:
            return (
                f"version {version} of {app} cannot be deleted: it gets {ruling.before.percentage:g} % of new work. "
                f"Stop that first: perdure deployment set-ramping-version {version} --percentage 0"
            )
        case Why.HAS_EXECUTORS:
            who = ", ".join(ruling.executors[:5])
            return (
                f"version {version} of {app} cannot be deleted: {len(ruling.executors)} live "
                f"executor{'' if len(ruling.executors) == 1 else 's'} run it ({who}). Stop them first (SIGTERM drains)"
            )
        case _:
            return (
                f"version {version} of {app} cannot be deleted: {staying(ruling.open)} open workflows stay with it "
                f"({', '.join(f'{one.count} {one.versioning}' for one in ruling.open if one.stays)}). Let them end, or "
                "move them; or leave them stranded: --skip-drainage"
            )
