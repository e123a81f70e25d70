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
