"""Fingerprints: pinned bytes, the same under every hash seed, and what does and does not count."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import os
import pathlib
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from perdure.serde import Opaque, Secret, fingerprint, fingerprint_data
from tests.serde import kinds as k


class Client:
    """No data."""


class Raising:
    """Fields that fail when they are read."""

    __attrs_attrs__ = (type("Field", (), {"name": "a"}),)

    @property
    def a(self) -> int:
        raise RuntimeError


@dataclass
class Cached:
    a: int
    cache: dict[str, int] = field(default_factory=dict, compare=False)


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@dataclass
class Twig:
    name: str
    parent: Twig | None = None
    twigs: list[Twig] = field(default_factory=list)


def tree(*names: str) -> Twig:
    """Children that point to their parent."""
    root = Twig("root")
    root.twigs = [Twig(name, root) for name in names]
    return root


def doubled(times: int) -> list[Any]:
    """Nothing refers back, but each level holds the next twice."""
    value: list[Any] = [1.5]
    for _ in range(times):
        value = [value, value]
    return value


def nested(times: int) -> dict[str, Any]:
    value: dict[str, Any] = {"a": 1.5}
    for _ in range(times):
        value = {"a": [value, ()], "b": k.Line("x")}
    return value


# Stored with running workflows: a change of these bytes makes every one of them mismatch. Never edit, only add.
GOLDEN: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "": ((), {}),
    "a": ((7,), {}),
    "b": (("x", 1999), {}),
    "c": ((True, None, -(2**70)), {}),
    "d": (('h\u00e9llo \U0001f600 \\ " \n \x7f \0', ""), {}),
    "e": (("\ud800",), {}),
    "f": ((1.5, -0.0, math.nan, math.inf, 1e300), {}),
    "g": (([1, (2, [3])], {"b": 1, "a": {"z": None, "\u00e9": [True]}}), {}),
    "h": (({3, 1, 2}, frozenset({"b", "a"}), {(1, 2), (0, 5)}), {}),
    "i": (({1: "a", (1, 2): "b", None: "c"},), {}),
    "j": ((), {"b": 1, "a": "x"}),
    "k": ((b"abc", bytearray(b"abc")), {}),
    "l": ((dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.date(2024, 1, 1), dt.time(1), dt.timedelta(days=-1)), {}),
    "m": ((uuid.UUID(int=5), decimal.Decimal("1.10"), pathlib.PurePosixPath("/a")), {}),
    "n": ((k.Color.RED, k.Level.HIGH, k.Mode.FAST, k.Shape2.LINE, k.Perm.READ | k.Perm.WRITE), {}),
    "o": ((k.Line("a", 2), k.Plain(1), k.Point(1), k.Part("a"), k.Team(name="t", members={"a": [1]})), {}),
    "p": ((Client(), len, Client, Secret("pw"), ValueError("x")), {}),
    "q": ((10**5000,), {}),
    "r": ((k.Text("abc"),), {"order": k.Order("1", [k.Line("a")], None, decimal.Decimal(1), {"b", "a"})}),
    "s": ((cyclic(), tree("a"), nested(5), nested(50), doubled(10)), {}),
    "t": (([nested(4)] * 2_000,), {}),
    "u": ((tree("a", "b", "c"),), {}),
    "v": ((doubled(60),), {"a": tree("a", "b")}),
}
EXPECTED: dict[str, str] = {
    "": "a16a560afeb7098b",
    "a": "0b81b8829698d6b1",
    "b": "eca955301ae8787f",
    "c": "fa8f54dea1432930",
    "d": "2e2adeea671e7c35",
    "e": "e9438eab6393fb69",
    "f": "d2bba89ea1bf8a00",
    "g": "80a7137100f71c02",
    "h": "7f3480bf70791815",
    "i": "a594b56e10ef068e",
    "j": "a6a567a15024ca10",
    "k": "a0615faa905b2008",
    "l": "99c69d1409c5d153",
    "m": "a2cecaaabe716663",
    "n": "731a2b8fef89813b",
    "o": "71e41d016081dba1",
    "p": "16063bb357f7669b",
    "q": "818948197ae71e10",
    "r": "d99ba3326a76e12d",
    "s": "93df8e5741581546",
    "t": "812742b9d51b6f41",
    "u": "b10232d3d30e03e8",
    "v": "ccfa2dde16fd52f5",
}


def all_golden() -> dict[str, str]:
    return {name: fingerprint(f"step-{name}", args, kwargs).hex() for name, (args, kwargs) in GOLDEN.items()}


def test_golden() -> None:
    assert all_golden() == EXPECTED


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_every_process_gives_the_same(seed: str) -> None:
    code = "from tests.serde.test_fingerprint import all_golden; print(all_golden())"
    root = pathlib.Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env, cwd=root)
    assert run.stdout.strip() == str(EXPECTED)


SAME: list[tuple[Any, Any]] = [
    ([1, 2], (1, 2)),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1, 2, 3}, {3, 2, 1}),
    (k.Line("a"), {"sku": "a", "qty": 1}),
    (k.Color.RED, "red"),
    (Secret("a"), Secret("b")),
    (Client(), Client()),
    (lambda: 1, lambda: 2),
    (Cached(1, {"x": 1}), Cached(1)),
    (math.nan, math.nan),
    (Opaque("gone:Line", {"sku": "a", "qty": 1}), k.Line("a")),
    (["a"] * 3, ("a", k.Text("a"), "a")),
    ({"a": "b", "c": 1.5}, {"c": 1.5, "a": "b"}),
    (cyclic(), cyclic()),
    (Raising(), Raising()),
]


@pytest.mark.parametrize(("left", "right"), SAME, ids=lambda value: type(value).__name__)
def test_same(left: Any, right: Any) -> None:
    assert fingerprint("f", (left,), {}) == fingerprint("f", (right,), {})
    assert fingerprint("f", (), {"a": [left]}) == fingerprint("f", (), {"a": [right]})


def test_what_points_back_to_its_parent_counts_in_bounded_time() -> None:
    """Its whole text would be of 2 ** 20 nodes and more; what it holds counts all the same."""
    wide = [str(n) for n in range(100)]
    prints = [fingerprint("f", (tree(*names),), {}) for names in (wide, wide[1:], ["x", *wide[1:]])]
    assert len(set(prints)) == 3


def test_a_large_deep_value_that_shares_nothing_counts_whole() -> None:
    large = [nested(4) for _ in range(4_000)]
    changed = [*large[:-1], {**nested(4), "a": 2}]
    assert fingerprint("f", (large,), {}) != fingerprint("f", (changed,), {})


def test_different() -> None:
    values: list[Any] = [
        None,
        True,
        1,
        "1",
        1.0,
        "",
        [],
        {},
        set(),
        b"",
        [1],
        [[1]],
        {"a": 1},
        {1},
        -0.0,
        0.0,
        0,
        "a",
        b"a",
    ]
    values += [Client(), "?Client", {"1": 1}, {1: 1}, [[], []], [[[]]], dt.date(2024, 1, 1), "2024-01-01"]
    prints = [fingerprint("f", (value,), {}) for value in values]
    assert len(set(prints)) == len(values)
    calls = [((1, 2), {}), ((12,), {}), ((1,), {"a": 2}), (([1, 2],), {}), ((), {"a": 2}), ((), {})]
    assert len({fingerprint("f", args, kwargs) for args, kwargs in calls}) == len(calls)
    assert fingerprint("f", (1,), {}) != fingerprint("g", (1,), {})


def test_plain_containers_give_one_text_however_they_are_reached() -> None:
    from perdure.serde import fingerprint as module_function
    from perdure.serde.fingerprint import _canonical

    assert module_function is fingerprint
    for value in ([1, "a", None, True], {"b": 1, "a!": 2, "a": "x", "\u00e9": 3, "\U0001f600": 4, "\uffff": 5}):
        # With a float beside, the same parts take the slow way.
        slow = _canonical([*value, 1.5] if isinstance(value, list) else {**value, "~~": 1.5}, 0)
        fast = msgspec.json.Encoder(order="deterministic").encode(value).decode()
        if isinstance(value, list):
            assert slow == fast[:-1] + ",f0x1.8000000000000p+0]"
        else:
            assert slow.replace(',"~~":f0x1.8000000000000p+0', "") == fast


def test_workflow_inputs() -> None:
    assert fingerprint_data("checkout", b'["42",1999]').hex() == "72e973875210e739"
    assert fingerprint_data("a", b"bc") != fingerprint_data("ab", b"c")
