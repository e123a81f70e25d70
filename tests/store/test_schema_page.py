"""``docs/internals/schema.md`` explains every table, and every column of it, of both databases."""

from __future__ import annotations

import re
from pathlib import Path

import apsw
import asyncpg
import pytest

from perdure.store.open import open_store

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "internals" / "schema.md").read_text(encoding="utf-8")
LIKE = {"past_run": "workflow"}  # the same columns


def told(table: str) -> str:
    """The table's line in the list of all, and its own section."""
    line = re.search(rf"^\| `{table}` \|.*$", PAGE, re.MULTILINE)
    assert line, f"{table} is not in the list of tables"
    section = re.search(rf"^## `{LIKE.get(table, table)}`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return line[0] + (section[1] if section else "")


def check(columns: list[tuple[str, str]]) -> None:
    assert len(columns) > 200
    missing = [f"{table}.{column}" for table, column in columns if not re.search(rf"\b{column}\b", told(table))]
    assert not missing, f"not explained: {', '.join(missing)}"


async def test_of_sqlite(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/page.db", "page")
    await store.open()
    await store.migrate()
    await store.close()
    asked = "select t.name, c.name from sqlite_schema t, pragma_table_info(t.name) c where t.type = 'table'"
    check([(str(table), str(column)) for table, column in apsw.Connection(f"{tmp_path}/page.db").execute(asked)])


@pytest.mark.postgres
async def test_of_postgres(postgres_url: str) -> None:
    store = open_store(postgres_url, "page")
    await store.open()
    await store.migrate()
    await store.close()
    conn = await asyncpg.connect(postgres_url)
    rows = await conn.fetch(
        "select table_name, column_name from information_schema.columns where table_schema = 'perdure'"
    )
    await conn.close()
    check([(row[0], row[1]) for row in rows])
