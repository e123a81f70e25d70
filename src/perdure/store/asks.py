"""What is asked of a store, and how it answers, where that takes more than a value."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from perdure.model.ids import Holding
from perdure.model.records import Ended, Wake, WorkflowRow
from perdure.store.lines import Line

WAKES = 1000  # wakes that one look reads, whosever they are


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for up to ``limit`` workflows that are ready: due (scheduled, queued, waiting with time up) or woken."""

    owner: bytes
    token: bytes  # becomes the claim token of every row claimed by this call
    version: str
    limit: int
    fresh: bool = True  # also what has no version yet
    suspect: bool = True  # also one that was in flight at two deaths in a row, but not two of them at once
    full: tuple[str, ...] = ()  # queues that let the owner have nothing more, of what went through their lines, either
    some: tuple[tuple[str, int], ...] = ()  # queues that let it have so many more
    series: int | None = None  # where these are an executor's own limits: see `new_series`
    after: str = ""  # of the woken, those among the wakes that a look reads from here on: see `Poll.after`


class Poll(msgspec.Struct, frozen=True):
    """What one look at the database tells an executor or a waiting caller."""

    now: int
    wakes: list[Wake]  # for workflows that `owner` holds (running)
    claimable: int | None  # when the next unclaimed workflow becomes due (microseconds), now if one is, None if none
    lost: list[Holding]  # what `owner` holds by its row, and not by `held`: the answer to a claim was lost
    lines: list[Line] = msgspec.field(default_factory=lambda: [])  # of queues; this and the next only for an `owner`
    due: int | None = None  # when something is to be lined up, or will have been in line for too long
    told: list[tuple[str, str]] = msgspec.field(default_factory=lambda: [])  # in line and told to cancel: id, reason
    revision: int = 0  # of all queues together: another one if any was changed
    schedule: int | None = None  # when the next schedule fires, now if one has something to do, None if none
    after: str = ""  # there may be wakes beyond this id, which were not looked at; "" if all that followed were


class Found(msgspec.Struct, frozen=True):
    """A page of a listing, in the order asked for; ``cursor``: what the next one begins after, None if none does."""

    rows: list[WorkflowRow]
    cursor: str | None


class Counted(NamedTuple):
    """How many workflows have these values of what a count is grouped by; none, where it is not."""

    values: tuple[str | int | float | bool | None, ...]
    total: int


class Fates(msgspec.Struct, frozen=True):
    """What has become of awaited workflows, as far as there is nothing more to wait for."""

    ended: dict[str, Ended]
    gone: list[str]  # no workflow has these ids: they were deleted, or never were


class Health(msgspec.Struct, frozen=True):
    """What ``doctor`` wants to know: facts with a verdict, most severe first."""

    facts: list[tuple[str, str, bool]]  # (what, value, good)
