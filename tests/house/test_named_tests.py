"""Whatever test a page names exists: a promise that names its test is one that can be checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.test_rules import named_in

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")
PAGES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if NAMED.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    found = NAMED.findall(page.read_text(encoding="utf-8"))
    missing = [f"{file}::{test}" for file, test in found if test not in named_in(file)]
    assert not missing, f"{page.name} names tests that do not exist (renamed?):\n" + "\n".join(missing)


def test_every_promise_to_operators_names_a_test() -> None:
    page = (ROOT / "docs" / "guide" / "operators.md").read_text(encoding="utf-8")
    rows = [
        line for line in page.partition("## What happens when")[2].partition("\n## ")[0].splitlines() if "|" in line
    ]
    silent = [row for row in rows[2:] if not NAMED.search(row)]
    assert not silent, "no test is named for:\n" + "\n".join(silent)
