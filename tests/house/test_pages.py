"""The pages hang together: no link is dead, an index names each page, every setting and package is told of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perdure.config import KEYS, Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
INDEXES = (DOCS / "README.md", DOCS / "internals" / "README.md")
LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[tuple[Path, str]]:
    """Where a page leads: the file, and the heading in it."""
    found = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    return [((page.parent / path).resolve() if path else page, heading) for path, heading in found]


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    dead = [
        f"{target}#{heading}"
        for target, heading in links(page)
        if not target.exists() or (heading and heading not in anchors(target))
    ]
    assert not dead, f"{page.name} leads nowhere:\n" + "\n".join(dead)


def test_every_page_is_named_by_an_index() -> None:
    named = {target for index in INDEXES for target, _ in links(index)}
    lost = [str(page.relative_to(ROOT)) for page in DOCS.rglob("*.md") if page not in {*named, INDEXES[0]}]
    assert not lost, "nobody finds these pages; name them in docs/README.md or docs/internals/README.md:\n" + "\n".join(
        lost
    )


def test_every_package_is_told_of() -> None:
    section = INDEXES[1].read_text(encoding="utf-8").partition("## What stands where")[2].partition("\n## ")[0]
    told = {
        name for row in section.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    there = {path.stem for path in (ROOT / "src" / "perdure").iterdir() if not path.name.startswith(("_", ".", "py."))}
    assert told == there


def test_every_setting_is_told_of() -> None:
    rows = {
        (cells := [cell.strip() for cell in line.split("|")])[1].strip("`"): cells
        for line in (DOCS / "reference" / "settings.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    }
    assert rows.keys() == KEYS.keys()
    defaults = dict(zip(Settings.__struct_fields__[::-1], Settings.__struct_defaults__[::-1], strict=False))
    for key, variables in KEYS.items():
        assert set(re.findall(r"\b[A-Z]+_[A-Z_]+", rows[key][2])) == set(variables), key
        default = defaults.get(key)
        if default is not None:
            assert rows[key][4] == f"`{default:g}`" if isinstance(default, float | int) else f"`{default}`", key
