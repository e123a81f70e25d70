"""The rules of deployments as tables: the state of a version, and what an order changes."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from perdure.model.deployments import (
    Abort,
    DeleteVersion,
    OpenWork,
    Order,
    SetCurrent,
    SetMetadata,
    SetRamping,
    State,
    UnsetRamping,
    Verb,
    Why,
)
from perdure.model.states import Versioning
from perdure.model.versions import Bound, Routing, Version, Watch
from perdure.versions.deployments import Mark, Seen, marks, rule, state_of

AT = 1_000
WATCH = Watch(version="v2", since=500, back="v1", bounds=(Bound("failure_rate", 2.0),))
PLAIN = Routing(current="v1", revision=7, changed=1, because="before")
RAMP = Routing(current="v1", ramping="v2", percentage=20.0, revision=7, changed=1, because="before")
OTHER_RAMP = Routing(current="v1", ramping="v3", percentage=5.0, revision=7, changed=1, because="before")
WATCHED = msgspec.structs.replace(RAMP, watch=WATCH)
STOPPED = Routing(current="v1", ramping="v2", percentage=0.0, revision=7, changed=1, because="before")  # as it once was
NEVER, KNOWN, GONE = None, "known", "deleted"


def version(name: str = "v2", **more: Any) -> Version:
    fields: dict[str, Any] = {"fingerprints": {}, "first_launched": 5, "launched": 6, "since": 5, "routed": True}
    return Version(name=name, **{**fields, **more})


def work(count: int, versioning: Versioning = Versioning.PINNED, name: str = "v2") -> OpenWork:
    return OpenWork(name, versioning, count)


# -- states


@pytest.mark.parametrize(
    ("routing", "name", "routed", "open", "expected"),
    [
        (PLAIN, "v1", True, [], State.CURRENT),
        (PLAIN, "v1", True, [work(3, name="v1")], State.CURRENT),
        (RAMP, "v2", True, [], State.RAMPING),
        (STOPPED, "v2", True, [], State.DRAINED),
        (STOPPED, "v2", True, [work(1)], State.DRAINING),
        (PLAIN, "v2", False, [], State.INACTIVE),
        (PLAIN, "v2", False, [work(1)], State.INACTIVE),
        (PLAIN, "v2", True, [], State.DRAINED),
        (PLAIN, "v2", True, [work(1)], State.DRAINING),
        (PLAIN, "v2", True, [work(1, Versioning.UNDECLARED)], State.DRAINING),
        (PLAIN, "v2", True, [work(9, Versioning.AUTO_UPGRADE)], State.DRAINED),
        (PLAIN, "v2", True, [work(9, name="v1")], State.DRAINED),
        (PLAIN, "v2", True, [work(0)], State.DRAINED),
        (None, "v2", False, [], State.INACTIVE),
    ],
)
def test_states(routing: Routing | None, name: str, routed: bool, open: list[OpenWork], expected: State) -> None:
    assert state_of(routing, version(name, routed=routed), open) is expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, PLAIN, [Mark("v1", True)]),
        (PLAIN, RAMP, [Mark("v2", True)]),
        (PLAIN, STOPPED, []),
        (RAMP, PLAIN, [Mark("v2", False)]),
        (RAMP, STOPPED, [Mark("v2", False)]),
        (RAMP, Routing(current="v2"), [Mark("v1", False), Mark("v2", True)]),
        (RAMP, OTHER_RAMP, [Mark("v2", False), Mark("v3", True)]),
        (RAMP, msgspec.structs.replace(RAMP, percentage=30.0), []),
        (PLAIN, Routing(current="v2"), [Mark("v1", False), Mark("v2", True)]),
    ],
)
def test_whose_part_changes(before: Routing | None, after: Routing, expected: list[Mark]) -> None:
    assert marks(before, after) == expected


# -- orders


def ruled(
    verb: Verb, before: Routing | None = PLAIN, known: str | None = KNOWN, *, alive: tuple[str, ...] = ("e",),
    draining: tuple[str, ...] = (), open: tuple[OpenWork, ...] = (), metadata: bytes = b"{}",
    routed: bool = True, has: str = "", workflows: str = "", **how: Any,
) -> tuple[Why | str, Routing | None, bytes | None]:  # fmt: skip
    """Why it is refused, or ``done``, or ``already``."""
    row = None if known is NEVER else version(
        deleted=9 if known == GONE else None, metadata=metadata, routed=routed, fingerprints=dict.fromkeys(has, "f"),
    )  # fmt: skip
    seen = Seen(
        now=AT, routing=before, version=row, alive=alive, draining=draining, open=open, workflows=tuple(workflows)
    )  # fmt: skip
    ruling, after, put = rule(Order(verb=verb, nonce=b"n", by="ann", **how), seen)
    assert ruling.changed is (after is not None)
    assert (ruling.why is None) or not ruling.changed
    if after is not None and before is not None:
        assert after.revision == before.revision + 1
        assert ruling.after == after
    return ruling.why or ("done" if ruling.changed else "already"), after, put


ORDERS: list[tuple[Verb, Routing | None, str | None, dict[str, Any], Why | str]] = [
    (SetCurrent("v2"), None, KNOWN, {}, Why.NOTHING),
    (SetCurrent("v2"), PLAIN, KNOWN, {}, "done"),
    (SetCurrent("v2"), RAMP, KNOWN, {}, "done"),
    (SetCurrent("v2"), PLAIN, NEVER, {"alive": ()}, Why.NEVER_LAUNCHED),
    (SetCurrent("v2"), PLAIN, GONE, {"alive": ()}, Why.NEVER_LAUNCHED),
    (SetCurrent("v2"), PLAIN, KNOWN, {"alive": ()}, Why.NO_EXECUTORS),
    (SetCurrent("v2"), PLAIN, KNOWN, {"alive": (), "draining": ("d",)}, Why.NO_EXECUTORS),
    (SetCurrent("v2"), PLAIN, KNOWN, {"alive": (), "allow_no_executors": True}, "done"),
    (SetCurrent("v2"), PLAIN, NEVER, {"alive": (), "allow_no_executors": True}, "done"),
    (SetCurrent("v1"), PLAIN, KNOWN, {"alive": ()}, "already"),
    (SetCurrent("v2"), PLAIN, KNOWN, {"revision": 7}, "done"),
    (SetCurrent("v2"), PLAIN, KNOWN, {"revision": 6}, Why.STALE),
    (SetCurrent("v2"), PLAIN, NEVER, {"revision": 6, "alive": ()}, Why.STALE),
    (SetCurrent("v1"), PLAIN, KNOWN, {"revision": 6}, "already"),
    (SetRamping("v2", 20.0), None, KNOWN, {}, Why.NOTHING),
    (SetRamping("v2", 20.0), PLAIN, KNOWN, {}, "done"),
    (SetRamping("v2", 20.0), RAMP, KNOWN, {}, "already"),
    (SetRamping("v2", 0.5), RAMP, KNOWN, {}, "done"),
    (SetRamping("v2", 100.0), RAMP, KNOWN, {"alive": ()}, "done"),  # it ramps: who serves it was asked then
    (SetRamping("v2", 20.0), OTHER_RAMP, KNOWN, {}, "done"),
    (SetRamping("v1", 20.0), PLAIN, KNOWN, {}, Why.IS_CURRENT),
    (SetRamping("v2", 20.0), PLAIN, KNOWN, {"alive": ()}, Why.NO_EXECUTORS),
    (SetRamping("v2", 20.0), PLAIN, NEVER, {"alive": ()}, Why.NEVER_LAUNCHED),
    (SetRamping("v2", 20.0), PLAIN, NEVER, {"alive": (), "allow_no_executors": True}, "done"),
    (SetRamping("v2", 0.0), RAMP, KNOWN, {"alive": ()}, "done"),
    (SetRamping("v2", 0.0), STOPPED, KNOWN, {}, "done"),
    (SetRamping("v2", 0.0), PLAIN, KNOWN, {}, "already"),
    (SetRamping("v2", 0.0), OTHER_RAMP, KNOWN, {}, "already"),
    (SetRamping("v2", 0.0), PLAIN, NEVER, {}, Why.UNKNOWN),  # a slip of the hand in an emergency
    (SetRamping("v1", 0.0), PLAIN, KNOWN, {}, Why.IS_CURRENT),
    (SetRamping("v2", 0.0), RAMP, KNOWN, {"revision": 3}, Why.STALE),
    (SetCurrent("v2"), PLAIN, KNOWN, {"routed": False, "has": "ab", "workflows": "ab"}, "done"),
    (SetCurrent("v2"), PLAIN, KNOWN, {"routed": False, "has": "abc", "workflows": "ab"}, "done"),
    (SetCurrent("v2"), PLAIN, KNOWN, {"routed": False, "has": "ac", "workflows": "ab"}, Why.LACKS_WORKFLOWS),
    (SetCurrent("v2"), RAMP, KNOWN, {"has": "a", "workflows": "ab"}, Why.LACKS_WORKFLOWS),  # asked again when it is all
    (SetCurrent("v2"), PLAIN, KNOWN, {"has": "a", "workflows": "ab"}, "done"),  # a rollback
    (SetCurrent("v2"), PLAIN, KNOWN, {"routed": False, "workflows": "a", "alive": ()}, Why.NO_EXECUTORS),
    (SetCurrent("v2"), PLAIN, KNOWN, {"routed": False, "workflows": "a", "allow_no_executors": True},
     Why.LACKS_WORKFLOWS),
    (SetCurrent("v2"), PLAIN, KNOWN, {"routed": False, "workflows": "a", "allow_missing_workflows": True}, "done"),
    (SetCurrent("v2"), PLAIN, NEVER, {"workflows": "a", "allow_no_executors": True}, "done"),  # not known yet
    (SetCurrent("v2"), PLAIN, KNOWN, {"routed": False, "workflows": "a", "revision": 6}, Why.STALE),
    (SetRamping("v2", 1.0), PLAIN, KNOWN, {"routed": False, "has": "a", "workflows": "ab"}, Why.LACKS_WORKFLOWS),
    (SetRamping("v2", 1.0), OTHER_RAMP, KNOWN, {"routed": False, "workflows": "ab"}, Why.LACKS_WORKFLOWS),
    (SetRamping("v2", 1.0), PLAIN, KNOWN, {"routed": False, "workflows": "a", "allow_missing_workflows": True}, "done"),
    (SetRamping("v2", 90.0), RAMP, KNOWN, {"workflows": "ab"}, "done"),  # a larger share: it was asked then
    (SetRamping("v2", 0.0), RAMP, KNOWN, {"workflows": "ab"}, "done"),
    (Abort("v2"), WATCHED, KNOWN, {"workflows": "ab"}, "done"),
    (UnsetRamping(), None, NEVER, {}, Why.NOTHING),
    (UnsetRamping(), RAMP, KNOWN, {}, "done"),
    (UnsetRamping(), STOPPED, KNOWN, {}, "done"),
    (UnsetRamping(), PLAIN, NEVER, {}, "already"),
    (SetMetadata("v2", {"a": 1}), PLAIN, KNOWN, {}, "done"),
    (SetMetadata("v2", {"a": 1}), PLAIN, NEVER, {}, Why.UNKNOWN),
    (SetMetadata("v2", {"a": 1}), PLAIN, GONE, {}, Why.UNKNOWN),
    (SetMetadata("v2", {}, ("a",)), PLAIN, KNOWN, {}, "already"),
    (SetMetadata("v2", {"a": 1}), PLAIN, KNOWN, {"metadata": b'{"a":1}'}, "already"),
    (DeleteVersion("v2"), PLAIN, KNOWN, {"alive": ()}, "done"),
    (DeleteVersion("v2"), STOPPED, KNOWN, {"alive": ()}, "done"),
    (DeleteVersion("v2"), PLAIN, NEVER, {"alive": ()}, Why.UNKNOWN),
    (DeleteVersion("v2"), PLAIN, GONE, {"alive": ()}, "already"),
    (DeleteVersion("v1"), PLAIN, KNOWN, {"alive": ()}, Why.IS_CURRENT),
    (DeleteVersion("v2"), RAMP, KNOWN, {"alive": ()}, Why.IS_RAMPING),
    (DeleteVersion("v2"), PLAIN, KNOWN, {}, Why.HAS_EXECUTORS),
    (DeleteVersion("v2", True), PLAIN, KNOWN, {"alive": (), "draining": ("d",)}, Why.HAS_EXECUTORS),
    (DeleteVersion("v2"), PLAIN, KNOWN, {"alive": (), "open": (work(2),)}, Why.DRAINING),
    (DeleteVersion("v2", True), PLAIN, KNOWN, {"alive": (), "open": (work(2),)}, "done"),
    (DeleteVersion("v2"), PLAIN, KNOWN, {"alive": (), "open": (work(2, Versioning.AUTO_UPGRADE),)}, "done"),
    (DeleteVersion("v2", True), RAMP, KNOWN, {"alive": ()}, Why.IS_RAMPING),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "before", "known", "how", "expected"), ORDERS)
def test_what_is_done_and_what_is_in_the_way(
    verb: Verb, before: Routing | None, known: str | None, how: dict[str, Any], expected: Why | str
) -> None:
    assert ruled(verb, before, known, **how)[0] == expected


@pytest.mark.parametrize(("verb", "before", "known", "how", "expected"), ORDERS)
def test_said_twice_it_is_done_once(
    verb: Verb, before: Routing | None, known: str | None, how: dict[str, Any], expected: Why | str
) -> None:
    """Whatever revision was given, and whoever is there by then."""
    said, after, put = ruled(verb, before, known, **how)
    if said == "done":
        if isinstance(verb, DeleteVersion):
            known = GONE
        again = {**how, "metadata": put or b"{}", "alive": ()}
        assert ruled(verb, after, known or KNOWN, **again)[0] == "already"


@pytest.mark.parametrize(
    ("verb", "before", "current", "ramping", "percentage"),
    [
        (SetCurrent("v2"), PLAIN, "v2", None, 0.0),
        (SetCurrent("v2"), RAMP, "v2", None, 0.0),
        (SetCurrent("v2"), OTHER_RAMP, "v2", "v3", 5.0),
        (SetRamping("v2", 12.5), PLAIN, "v1", "v2", 12.5),
        (SetRamping("v2", 12.5), OTHER_RAMP, "v1", "v2", 12.5),
        (SetRamping("v2", 0.0), RAMP, "v1", None, 0.0),
        (UnsetRamping(), RAMP, "v1", None, 0.0),
    ],
)
def test_where_new_work_goes_then(
    verb: Verb, before: Routing, current: str, ramping: str | None, percentage: float
) -> None:
    _, after, _ = ruled(verb, before, reason="a test")
    assert after == Routing(
        current=current, ramping=ramping, percentage=percentage, revision=8, changed=AT, because="a test"
    )
    _, after, _ = ruled(verb, before)
    assert after is not None
    assert after.because == "set by ann"


@pytest.mark.parametrize("verb", [SetMetadata("v2", {"a": 1}), DeleteVersion("v2")])
def test_what_changes_no_routing_leaves_its_reason(verb: Verb) -> None:
    _, after, _ = ruled(verb, alive=(), reason="tidy")
    assert after == msgspec.structs.replace(PLAIN, revision=8)


def test_metadata_are_put_over_what_is_there_and_removed_by_name() -> None:
    verb = SetMetadata("v2", {"a": 2, "c": [1]}, ("b", "unknown"))
    assert ruled(verb, metadata=b'{"a":1,"b":2}')[2] == b'{"a":2,"c":[1]}'


# -- ramps that watch themselves

TWO = WATCH.bounds
ONE = (Bound("problem_rate", 1.0),)
PROMOTED = Routing(current="v2", revision=7, changed=1, because="before", watch=WATCH)


@pytest.mark.parametrize(
    ("verb", "before", "expected"),
    [
        (SetRamping("v2", 5.0), PLAIN, None),
        (SetRamping("v2", 5.0, TWO), PLAIN, Watch(version="v2", since=AT, back="v1", bounds=TWO)),
        (SetRamping("v2", 50.0), WATCHED, WATCH),  # a larger share is watched on
        (SetRamping("v2", 50.0, ONE), WATCHED, Watch(version="v2", since=500, back="v1", bounds=ONE)),
        (SetRamping("v2", 20.0, ONE), WATCHED, Watch(version="v2", since=500, back="v1", bounds=ONE)),
        (SetRamping("v2", 20.0, ONE), RAMP, Watch(version="v2", since=AT, back="v1", bounds=ONE)),
        (SetRamping("v3", 5.0), WATCHED, None),
        (SetRamping("v3", 5.0, ONE), WATCHED, Watch(version="v3", since=AT, back="v1", bounds=ONE)),
        (SetRamping("v2", 0.0), WATCHED, None),
        (UnsetRamping(), WATCHED, None),
        (SetCurrent("v2"), WATCHED, WATCH),  # it became current: watched on
        (SetCurrent("v3"), WATCHED, msgspec.structs.replace(WATCH, back="v1")),
        (SetCurrent("v1"), PROMOTED, None),
        (SetRamping("v3", 5.0), PROMOTED, WATCH),
        (SetMetadata("v2", {"a": 1}), WATCHED, WATCH),
        (Abort("v2"), WATCHED, None),
        (Abort("v2"), PROMOTED, None),
    ],
)
def test_which_version_is_watched_then(verb: Verb, before: Routing, expected: Watch | None) -> None:
    said, after, _ = ruled(verb, before)
    assert said == "done"
    assert after is not None
    assert after.watch == expected


@pytest.mark.parametrize(
    ("before", "ramping"),
    [(WATCHED, None), (PROMOTED, None), (msgspec.structs.replace(PROMOTED, ramping="v3", percentage=5.0), "v3")],
)
def test_where_new_work_goes_after_an_abort(before: Routing, ramping: str | None) -> None:
    _, after, _ = ruled(Abort("v2"), before, alive=())
    assert after is not None
    assert (after.current, after.ramping) == ("v1", ramping)
    assert ruled(Abort("v2"), after)[0] == "already"
    assert ruled(Abort("v2"), before, revision=6)[0] == Why.STALE, "a person was quicker"


def test_the_same_share_under_another_watch_is_a_change() -> None:
    assert ruled(SetRamping("v2", 20.0, TWO), WATCHED)[0] == "already"
    assert ruled(SetRamping("v2", 20.0), WATCHED)[0] == "already"
    assert ruled(SetRamping("v2", 20.0, ONE), WATCHED)[0] == "done"


def test_no_order_leaves_a_current_version_that_ramps() -> None:
    """Over every order and every state of the routing."""
    verbs: list[Verb] = [SetCurrent(name) for name in ("v1", "v2", "v3")]
    verbs += [SetRamping(name, share) for name, share in product(("v1", "v2", "v3"), (0.0, 5.0, 100.0))]
    verbs += [UnsetRamping(), DeleteVersion("v2"), DeleteVersion("v3")]
    for verb, before, skip in product(verbs, (PLAIN, RAMP, OTHER_RAMP, STOPPED), (True, False)):
        _, after, _ = ruled(verb, before, alive=("e",) if skip else ())
        if after is not None:
            assert after.ramping != after.current
            assert (after.ramping is None) is (after.percentage == 0.0) or before is STOPPED
