"""The two faces offer the same names, sorted, and each name is really there; so is what the agreed face has."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from perdure import errors

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "perdure"
STUBS = sorted((ROOT / "tests" / "typing" / "face" / "perdure").glob("*.pyi"))
FOR_CHECKERS = {"Opening", "StepDecorator", "Unary"}  # how a stub says it; nobody names them


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


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.stem)
def test_what_the_agreed_face_has_is_there(stub: Path) -> None:
    module = importlib.import_module("perdure" if stub.stem == "__init__" else f"perdure.{stub.stem}")
    agreed = set(re.findall(r"^(?:class|def|async def) ([A-Za-z]\w*)", stub.read_text(), re.MULTILINE))
    assert agreed, "the stub was not read"
    assert {name for name in agreed - FOR_CHECKERS if not hasattr(module, name)} == set()


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []  # the errors that the line stands under, from the root
    for branch, name in re.findall(r"^    ([ │├└─]*)(\w+)(?:  .*)?$", errors.__doc__ or "", re.MULTILINE):
        above = [*above[: len(branch) // 4], name]
        drawn[name] = above[-2] if len(above) > 1 else ""
    there = {
        name: found.__bases__[0].__name__
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, BaseException)
    }
    assert {name: parent for name, parent in drawn.items() if parent} == there
