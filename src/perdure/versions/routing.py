"""Routing: which version a start takes, and what a launch changes. Pure functions; the rules are tested as a table.

Where it stands is one row per app (``Routing``). Executors and clients follow it; only launches and operators change
it, each in one transaction.
"""

from __future__ import annotations

import hashlib

import msgspec

from perdure.model.versions import Routing

FIRST_EVER = "the first version launched"
FIRST_LAUNCH = "launched for the first time"
RELAUNCH = "launched again, and no executor of the current version is alive"


def ramps(app: str, id: str, percentage: float) -> bool:
    """Whether this workflow id is among the ``percentage`` (0 to 100) that the ramping version gets.

    The same for every process, and for ever: a larger percentage only adds ids.
    """
    point = int.from_bytes(hashlib.sha256(f"{app}{id}".encode()).digest()[:8]) / 2**64
    return percentage >= 100 or point * 100 < percentage  # the largest points round up to 1


def share(percentage: float) -> bytes:
    """The bound below which the first eight bytes of ``sha256(app ‖ id)`` lie for ids that ``ramps``, as SQL compares.

    Exactly the same ids, as floats are rounded there. Longer than eight bytes where all of them are below.
    """
    if percentage >= 100:
        return b"\xff" * 9
    low, high = 0, 2**64
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle / 2**64 * 100 < percentage else (low, middle)
    return low.to_bytes(8)


def target(routing: Routing, app: str, id: str) -> str:
    """The version that routing gives to a new workflow of this id."""
    if routing.ramping is not None and ramps(app, id, routing.percentage):
        return routing.ramping
    return routing.current


def version_for(
    rollout: str,
    app: str,
    id: str,
    *,
    asked: str | None = None,
    pinned_parent: str | None = None,
    own: str | None = None,
    routing: Routing | None = None,
    left: bool = False,
) -> str:
    """The version that a start takes; "" for that of whoever claims it.

    ``asked``: by ``options(version=)``. ``pinned_parent``: the version of its parent, if that is pinned. ``own``: the
    executor's, if the start can run where it is made. ``routing``: None while nothing was ever launched. ``left``: an
    operator took traffic from the version that runs here, and executors of the current one are there to take it.
    """
    if asked is not None:
        return asked
    if pinned_parent is not None:
        return pinned_parent
    if routing is None or not leads(rollout, routing, left=left):
        return own or ""
    return target(routing, app, id)


def leads(rollout: str, routing: Routing | None, *, left: bool = False) -> bool:
    """Whether starts go where the routing says: always, or under ``auto`` where an operator has parted new work."""
    return rollout != "auto" or left or (routing is not None and len(gets(routing)) > 1)


def after_launch(
    before: Routing | None, version: str, *, auto: bool, first: bool, withdrawn: bool, served: bool, now: int
) -> Routing | None:
    """Where new work goes after a launch of ``version``; None: where it went before.

    ``auto``: of ``rollout``. ``first``: no executor was ever launched with this version. ``withdrawn``: an operator
    took traffic from it. ``served``: an executor of the current version is alive, this one apart.
    """
    if before is None:
        return Routing(current=version, changed=now, because=FIRST_EVER)
    if not auto or withdrawn or before.current == version or (served and not (first and version not in gets(before))):
        return None  # an operator may have given it a part of new work before it was there: that holds
    ramps_on = before.ramping != version
    after = msgspec.structs.replace(
        before,
        current=version,
        ramping=before.ramping if ramps_on else None,
        percentage=before.percentage if ramps_on else 0.0,
        revision=before.revision + 1,
        changed=now,
        because=FIRST_LAUNCH if first else RELAUNCH,
    )
    return still_watched(after)


def still_watched(routing: Routing) -> Routing:
    """Without a watch over a version that gets nothing any more."""
    if routing.watch is None or routing.watch.version in gets(routing):
        return routing
    return msgspec.structs.replace(routing, watch=None)


def gets(routing: Routing) -> frozenset[str]:
    """The versions that get new work."""
    if routing.ramping is None or routing.percentage <= 0:
        return frozenset({routing.current})
    return frozenset({routing.current, routing.ramping})
