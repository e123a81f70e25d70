"""Every rule of the engine names the tests that show it, and they exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/internals/rules.md"
RULES = range(1, 26)
LINE = re.compile(r"\| (?P<rule>\d+) \| (?P<words>[^|]+) \| `(?P<file>tests/[\w/]+\.py)::(?P<test>test_\w+)` \|")


@cache
def named_in(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return frozenset(node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_each_rule_is_shown_by_tests_that_exist() -> None:
    table = [line for line in (ROOT / PAGE).read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    read = [LINE.fullmatch(line) for line in table]
    unread = [line for line, match in zip(table, read, strict=True) if match is None]
    assert not unread, f"{PAGE}: | rule | in a few words | `file::test` |, not:\n" + "\n".join(unread)
    shown = [match for match in read if match is not None]
    missing = [f"{m['file']}::{m['test']}" for m in shown if m["test"] not in named_in(m["file"])]
    assert not missing, f"{PAGE} names tests that do not exist (renamed?):\n" + "\n".join(missing)
    silent = sorted(set(RULES) - {int(m["rule"]) for m in shown})
    assert not silent, f"{PAGE}: no test is named for rules {silent}"
