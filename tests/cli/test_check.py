"""``perdure check``: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

EXAMPLES = sorted(p.stem for p in (Path(__file__).parents[2] / "examples").glob("*.py") if p.stem != "__init__")


def test_findings_are_shown_with_their_fix(perdure: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(here))
    (here / "clocked.py").write_text(
        "import time\nfrom perdure import App\napp = App('x')\n"
        "@app.workflow\nasync def flow() -> float:\n    return time.time()\n"
    )
    out = perdure("check", "clocked:app", code=1).stdout
    assert "clocked.py:6:12: clock: time.time(…) reads the clock, which has moved on at a replay [flow]" in out
    assert "    fix: perdure.now()" in out
    assert "1 workflow read, 1 finding" in out
    document = json.loads(perdure("check", "clocked:app", "-o", "json", code=1).stdout)
    assert [(f["rule"], f["line"], f["workflow"]) for f in document["findings"]] == [("clock", 6, "flow")]


@pytest.mark.parametrize("example", EXAMPLES)
def test_our_own_examples_are_clean(perdure: Cli, example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    out = perdure("check", f"examples.{example}").stdout
    assert "nothing found" in out
