"""The two faces offer the same names, sorted, and each name is really there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "perdure"


def names(module: str) -> list[str]:
    if not (SOURCE.parent / module.replace(".", "/") / "__init__.py").is_file():
        pytest.skip(f"no {module} yet")
    return list(importlib.import_module(module).__all__)


@pytest.mark.parametrize("module", ["perdure", "perdure.sync"])
def test_exports_are_sorted_and_there(module: str) -> None:
    exported = names(module)
    assert exported == sorted(exported)
    assert len(exported) == len(set(exported))
    face = importlib.import_module(module)
    assert [name for name in exported if not hasattr(face, name)] == []


def test_both_faces_export_the_same() -> None:
    assert names("perdure") == names("perdure.sync")
