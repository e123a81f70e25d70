"""Named queries, and from a URL to a store."""

from __future__ import annotations

import pytest

from perdure.errors import ConfigError
from perdure.store.open import masked, open_store
from perdure.store.sql import parse, queries
from perdure.store.sqlite import SQLiteStore


def test_queries_are_read_once_with_their_names() -> None:
    found = queries("perdure.store.sqlite")
    assert found is queries("perdure.store.sqlite")
    assert found["payload_insert"] == "insert into payload (app, id, run, input) values (?1, ?2, ?3, ?4)"
    assert not any(text.endswith((";", "\n")) or text.startswith("--") for text in found.values())


def test_a_file_is_parsed_by_its_form() -> None:
    text = (
        "-- About.\n\n-- Reads.\n-- name: a_get\nselect 1 -- inside\nfrom t;\n\n"
        "-- Writes\n-- much.\n-- name: a_put\ninsert\n"
    )
    assert parse(text, "a.sql") == {"a_get": "select 1 -- inside\nfrom t", "a_put": "insert"}


@pytest.mark.parametrize(
    "text",
    [
        "-- name: no_purpose\nselect 1\n",
        "-- Twice.\n-- name: a\nselect 1\n\n-- Twice.\n-- name: a\nselect 1\n",
        "-- Empty.\n-- name: a\n",
    ],
)
def test_a_file_that_does_not_follow_the_form_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"a\.sql"):
        parse(text, "a.sql")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////tmp/x/perdure.db", "/tmp/x/perdure.db"),
        ("/tmp/x/y.db", "/tmp/x/y.db"),
        ("sqlite:////tmp/a%20b.db", "/tmp/a b.db"),
    ],
)
def test_sqlite_urls(url: str, path: str) -> None:
    store = open_store(url, "app")
    assert isinstance(store, SQLiteStore)
    assert (str(store.path), store.app, store.url) == (path, "app", f"sqlite:///{path}")


def test_a_relative_url_is_under_the_working_directory(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert open_store("sqlite:///x.db", "app").url == f"sqlite:///{tmp_path}/x.db"


@pytest.mark.parametrize(
    "url", ["", "mysql://u:secret@h/d", "sqlite:///", "perdure", "sqlite:///:memory:", "http://x/y.db"]
)
def test_other_urls_are_refused_with_what_is_accepted(url: str) -> None:
    with pytest.raises(ConfigError) as e:
        open_store(url, "app")
    assert "secret" not in str(e.value)
    assert "perdure.db" in str(e.value) or "postgresql://" in str(e.value)


def test_passwords_are_masked() -> None:
    assert masked("postgresql://u:secret@h:5/d?x=1") == "postgresql://u:********@h:5/d?x=1"
    assert masked("postgresql://h/d") == "postgresql://h/d"
    assert "secret" not in masked("postgresql://u:secret@[h/d")
