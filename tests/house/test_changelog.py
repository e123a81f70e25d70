"""One version, said in three places: pyproject.toml, the changelog, and perdure.__version__ where there is one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import perdure

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == VERSION


def test_the_package_says_the_same_version() -> None:
    assert getattr(perdure, "__version__", VERSION) == VERSION
