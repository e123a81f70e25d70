"""Versions of an app's code as the database has them: which were launched, where new work goes, what is unfinished.

Times are integers: microseconds since 1970-01-01 UTC, by the database's clock.
"""

from __future__ import annotations

import msgspec

from perdure.model.states import Versioning


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version of the code that an executor was launched with."""

    name: str
    fingerprints: dict[str, str]  # of its workflows, by name; "" where the source was not to be had
    first_launched: int  # 0: an operator has named it, and nobody has launched it yet
    launched: int  # the last time
    withdrawn: bool = False  # an operator took traffic from it: no launch gives it any again
    since: int = 0  # when it last got or lost traffic or, if it never had any, when it was first launched
    routed: bool = False  # it has, or had, traffic
    metadata: bytes = b"{}"  # what people noted of it: a JSON object
    deleted: int | None = None  # when an operator deleted it; a launch brings it back, and what is known of it


class Bound(msgspec.Struct, frozen=True):
    """What is too much: ``failure_rate`` or ``problem_rate`` above so many percent."""

    measure: str
    above: float


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """A ramp that watches itself: past a bound it ends or, if its version is current by then, is rolled back."""

    version: str
    since: int  # what began before is not looked at
    back: str  # the current version before it
    bounds: tuple[Bound, ...]


class Sample(msgspec.Struct, frozen=True):
    """Workflows that a version began since some time, the latest of them."""

    begun: int
    ended: int  # completed, failed or timed out: not by a person's hand
    failed: int  # or timed out
    problems: int  # have one now: the latest attempt did not get them on


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """Where new work of an app goes. ``revision`` counts changes: whoever changes it says which one was seen."""

    current: str
    ramping: str | None = None  # gets this share of new work ...
    percentage: float = 0.0  # ... of 100
    revision: int = 1
    changed: int = 0
    because: str = ""
    watch: Watch | None = None


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the code declares of a workflow, for one that was started without it."""

    id: str
    versioning: Versioning
    timeout: int | None  # microseconds


class Unfinished(msgspec.Struct, frozen=True, kw_only=True):
    """Open work of one version. ``count`` stops at a bound, and ``oldest`` is the oldest of what was counted."""

    version: str
    count: int
    oldest: int  # when it was created
