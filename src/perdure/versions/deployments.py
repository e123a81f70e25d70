"""Deployments: the state of a version, and what an operator's order changes. Pure functions, tested as tables.

Stores call ``rule`` inside the transaction that has locked the routing row, with what they see there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.model.deployments import (
    Abort,
    DeleteVersion,
    OpenWork,
    Order,
    Ruling,
    SetCurrent,
    SetMetadata,
    SetRamping,
    State,
    UnsetRamping,
    Verb,
    Why,
)
from perdure.model.versions import Routing, Version, Watch
from perdure.versions.routing import gets, still_watched

_metadata = msgspec.json.Decoder(dict[str, Any])
_json = msgspec.json.Encoder(order="sorted")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the transaction of an order sees."""

    now: int
    routing: Routing | None
    version: Version | None = None  # the one that the order names
    alive: tuple[str, ...] = ()  # the labels of executors that run it and take on new work
    draining: tuple[str, ...] = ()  # … and of those that are about to leave
    open: tuple[OpenWork, ...] = ()  # of it, where it is to be deleted
    workflows: tuple[str, ...] = ()  # those that the current version has


class Mark(msgspec.Struct, frozen=True):
    """A version that gets or loses its part of new work."""

    version: str
    gets: bool


def state_of(routing: Routing | None, version: Version, work: Iterable[OpenWork]) -> State:
    """What state a version is in; ``work``: the open work of all versions, or of this one."""
    role = _role(routing, version.name)
    if role is not None:
        return role
    if not version.routed:
        return State.INACTIVE
    stays = any(one.stays and one.count for one in work if one.version == version.name)
    return State.DRAINING if stays else State.DRAINED


def marks(before: Routing | None, after: Routing) -> list[Mark]:
    """The versions whose part changes: from none to current or ramping, from one to the other, or to none."""
    known = {one for routing in (before, after) if routing is not None for one in (routing.current, routing.ramping)}
    changed = [name for name in known if name is not None and _role(before, name) != _role(after, name)]
    return [Mark(name, _role(after, name) is not None) for name in sorted(changed)]


def rule(order: Order, seen: Seen) -> tuple[Ruling, Routing | None, bytes | None]:
    """The answer; where new work goes after it (None: nothing changes); the version's metadata, if they change."""
    before, verb = seen.routing, order.verb
    if before is None:
        return _refused(seen, Why.NOTHING), None, None
    metadata = _metadata_after(verb, seen.version)
    if _is_so(verb, before, seen.version, metadata):
        return Ruling(before=before, after=before, executors=seen.alive), None, None
    why = _stale(order, before) or _in_the_way(order, before, seen)
    if why is not None:
        return _refused(seen, why, _missing(verb, seen)), None, None
    after = _watched(verb, before, _after(verb, before), seen.now)
    after = msgspec.structs.replace(after, revision=before.revision + 1)
    if gets(after) != gets(before) or after.percentage != before.percentage:
        after = msgspec.structs.replace(after, changed=seen.now, because=order.reason or f"set by {order.by}")
    ruling = Ruling(
        before=before, after=after, changed=True, executors=seen.alive, open=seen.open, missing=_missing(verb, seen)
    )  # fmt: skip
    return ruling, after, metadata


def _refused(seen: Seen, why: Why, missing: tuple[str, ...] = ()) -> Ruling:
    executors = (*seen.alive, *seen.draining)
    return Ruling(
        before=seen.routing, after=seen.routing, why=why, executors=executors, open=seen.open, missing=missing
    )  # fmt: skip


def _is_so(verb: Verb, before: Routing, version: Version | None, metadata: bytes | None) -> bool:
    """Whether what is ordered holds already: said twice, it changes nothing."""
    match verb:
        case SetCurrent(version=name):
            return before.current == name and before.ramping != name
        case SetRamping(version=name, percentage=share):
            if share == 0:
                return name not in (before.ramping, before.current) and _is_there(version)
            watched = () if before.watch is None else before.watch.bounds
            return (before.ramping, before.percentage) == (name, share) and verb.abort_if in ((), watched)
        case UnsetRamping():
            return before.ramping is None
        case Abort(version=name):
            return before.watch is None or before.watch.version != name
        case SetMetadata():
            return _is_there(version) and version is not None and metadata == version.metadata
        case DeleteVersion():
            return version is not None and version.deleted is not None


def _stale(order: Order, before: Routing) -> Why | None:
    return Why.STALE if order.revision not in (None, before.revision) else None


def _in_the_way(order: Order, before: Routing, seen: Seen) -> Why | None:
    match order.verb:
        case SetCurrent():
            return _unserved(order, seen) or _lacking(order, before, seen)
        case SetRamping(version=name, percentage=share):
            if before.current == name:
                return Why.IS_CURRENT
            if before.ramping == name:
                return None
            return _unserved(order, seen) or _lacking(order, before, seen) if share > 0 else Why.UNKNOWN
        case UnsetRamping() | Abort():
            return None
        case SetMetadata():
            return None if _is_there(seen.version) else Why.UNKNOWN
        case DeleteVersion(version=name, skip_drainage=skip):
            return _undeletable(name, before, seen, skip=skip)


def _unserved(order: Order, seen: Seen) -> Why | None:
    if order.allow_no_executors or seen.alive:
        return None
    known = _is_there(seen.version) and seen.version is not None and seen.version.first_launched
    return Why.NO_EXECUTORS if known else Why.NEVER_LAUNCHED


def _lacking(order: Order, before: Routing, seen: Seen) -> Why | None:
    """Not asked of a version that goes back to what it had: a rollback waits for nobody."""
    version = seen.version
    back = version is not None and version.routed and _role(before, version.name) is None
    if back or order.allow_missing_workflows or not _missing(order.verb, seen):
        return None
    return Why.LACKS_WORKFLOWS


def _missing(verb: Verb, seen: Seen) -> tuple[str, ...]:
    """The workflows of the current version that the one which is to get traffic has not, as far as it was launched."""
    version = seen.version
    gives = isinstance(verb, SetCurrent) or (isinstance(verb, SetRamping) and verb.percentage > 0)
    if not gives or version is None or not version.first_launched:
        return ()
    return tuple(sorted(set(seen.workflows) - set(version.fingerprints)))


def _undeletable(name: str, before: Routing, seen: Seen, *, skip: bool) -> Why | None:
    if seen.version is None:
        return Why.UNKNOWN
    role = _role(before, name)
    if role is not None:
        return Why.IS_CURRENT if role is State.CURRENT else Why.IS_RAMPING
    if seen.alive or seen.draining:
        return Why.HAS_EXECUTORS
    return Why.DRAINING if not skip and staying(seen.open) else None


def staying(work: Sequence[OpenWork]) -> int:
    """How much open work stays with its version."""
    return sum(one.count for one in work if one.stays)


def _after(verb: Verb, before: Routing) -> Routing:
    match verb:
        case SetCurrent(version=name):
            return _unramped(msgspec.structs.replace(before, current=name), {name})
        case SetRamping(version=name, percentage=share) if share > 0:
            return msgspec.structs.replace(before, ramping=name, percentage=share)
        case SetRamping(version=name) | DeleteVersion(version=name):
            return _unramped(before, {name})
        case UnsetRamping():
            return _unramped(before, {before.ramping})
        case Abort(version=name):
            back = before.current if before.watch is None or before.current != name else before.watch.back
            return _unramped(msgspec.structs.replace(before, current=back, watch=None), {name, back})
        case SetMetadata():
            return before


def _watched(verb: Verb, before: Routing, after: Routing, now: int) -> Routing:
    """With the watch that holds then: a version is watched on when its share grows, and when it becomes current."""
    watch = after.watch
    match verb:
        case SetRamping(version=name, percentage=share, abort_if=bounds) if share > 0 and bounds:
            since = watch.since if watch is not None and watch.version == name else now
            watch = Watch(version=name, since=since, back=before.current, bounds=bounds)
        case SetCurrent(version=name) if watch is not None and watch.version == name:
            watch = msgspec.structs.replace(watch, back=before.current)
        case _:
            pass
    return still_watched(msgspec.structs.replace(after, watch=watch))


def _unramped(routing: Routing, names: Collection[str | None]) -> Routing:
    if routing.ramping not in names:
        return routing
    return msgspec.structs.replace(routing, ramping=None, percentage=0.0)


def _metadata_after(verb: Verb, version: Version | None) -> bytes | None:
    if not isinstance(verb, SetMetadata) or version is None:
        return None
    found: Mapping[str, Any] = _metadata.decode(version.metadata)
    kept = {key: value for key, value in found.items() if key not in verb.remove}
    return _json.encode({**kept, **verb.put})


def _role(routing: Routing | None, name: str) -> State | None:
    """Whether a version gets new work; a ramp of 0 is none."""
    if routing is None or name not in gets(routing):
        return None
    return State.CURRENT if routing.current == name else State.RAMPING


def _is_there(version: Version | None) -> bool:
    return version is not None and version.deleted is None
