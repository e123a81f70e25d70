"""Every Python block of the README and of docs/ runs.

The blocks of a page are one program: they run in order, in one process, in an empty folder. A block after a line
``<!-- not run: reason -->`` is left out, but it must parse.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.is_file()]
BLOCK = re.compile(
    r"""
    (?P<not_run> <!--\ not\ run:\ * (?P<reason>[^>]*?)\ * -->\s*\n )?
    (?P<indent>[ ]*) ```python[^\n]*\n
    (?P<code> .*? )
    ^(?P=indent)```
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)

# Runs the blocks under the page's own line numbers; top-level await is allowed, as a reader would type it.
RUNNER = """
import ast, asyncio, inspect, linecache, sys
page = sys.argv[1]
sys.modules["page"] = type(sys)("page")  # a module of its own, so that type hints can be looked up in it
namespace = sys.modules["page"].__dict__
source = sys.stdin.read()
linecache.cache[page] = (len(source), None, source.splitlines(True), page)  # for those who ask for a function's source
code = compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
async def main(coroutine):
    await coroutine
result = eval(code, namespace)
if inspect.iscoroutine(result):
    asyncio.run(main(result))
"""


def blocks(page: Path) -> list[tuple[int, str, str | None]]:
    """(line, code, reason why it is not run)."""
    text = page.read_text(encoding="utf-8")
    found: list[tuple[int, str, str | None]] = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        found.append((line, textwrap.dedent(match["code"]), match["reason"] if match["not_run"] else None))
    return found


def program(page: Path) -> str:
    """The page's blocks at the lines where they stand, so that a traceback points into the page."""
    lines: list[str] = []
    for at, code, reason in blocks(page):
        if reason is None:
            lines += [""] * (at - 1 - len(lines))
            lines += code.splitlines()
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page: Path, tmp_path: Path) -> None:
    if not program(page).strip():
        pytest.skip("no Python to run on this page")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE_")}
    command = [sys.executable, "-W", "error", "-c", RUNNER, str(page)]
    done = subprocess.run(
        command,
        input=program(page),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{page.relative_to(ROOT)}:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_left_out_have_a_reason_and_parse(page: Path) -> None:
    for line, code, reason in blocks(page):
        if reason is not None:
            assert reason, f"{page.name}:{line}: say why the block is not run"
            compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_finder_of_blocks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n\n```python\nx = 1\n```\n\n<!-- not run: needs a server -->\n```python\ny = 2\n```\n"
        "- item\n\n  ```python\n  z = x\n  ```\n\n```sh\nls\n```\n"
    )
    assert blocks(page) == [(4, "x = 1\n", None), (9, "y = 2\n", "needs a server"), (14, "z = x\n", None)]
    assert program(page).splitlines()[3] == "x = 1"
    assert program(page).splitlines()[13] == "z = x"
