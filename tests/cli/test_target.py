"""Which database, which app: every source, and every way to get it wrong."""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
import pytest

from perdure.store.open import open_store, sqlite_path
from tests.cli.conftest import Cli, play


async def _nothing(app: object, shop: object) -> None:
    """An app that was opened once."""


def migrated(path: Path) -> None:
    async def go() -> None:
        store = open_store(f"sqlite:///{path}", "")
        await store.open()
        await store.migrate()
        await store.close()

    asyncio.run(go())


def one(url: str, name: str = "shop") -> None:
    """A database in which the app has run one workflow."""

    async def scene(app: object, shop: object) -> None:
        from perdure.api.workflow import Workflow

        workflow: Workflow[..., object] = app.client.workflow("checkout", returns=object)  # type: ignore[attr-defined]
        await (await workflow.options(id=f"{name}-1").start("a", 1)).result()

    play(url, scene, name)


def ids(perdure: Cli, *args: object) -> list[str]:
    return perdure("workflow", "list", "--output", "ids", *args).stdout.split()


def test_no_database_at_all(perdure: Cli, here: Path) -> None:
    said = perdure("workflow", "list", code=4).stderr
    assert f"there is no database here: no file in {here}/.perdure" in said
    assert "--database URL" in said
    assert "perdure demo" in said
    assert not (here / ".perdure").exists()


def test_the_single_file(perdure: Cli, url: str) -> None:
    one(url)
    assert ids(perdure) == ["shop-1"]


def test_several_files_are_listed_and_the_app_chooses(perdure: Cli, here: Path) -> None:
    one(f"sqlite:///{here}/.perdure/shop.db")
    one(f"sqlite:///{here}/.perdure/other.db", "other")
    said = perdure("workflow", "list", code=2).stderr
    assert "there are several databases" in said
    assert "--database .perdure/other.db" in said
    assert "--database .perdure/shop.db" in said
    assert ids(perdure, "--app", "other") == ["other-1"]
    assert ids(perdure, "--database", ".perdure/shop.db") == ["shop-1"]


def test_database_from_the_environment_from_toml_and_before_the_verb(
    perdure: Cli, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one(f"sqlite:///{here}/a.db", "first")
    one(f"sqlite:///{here}/b.db", "second")
    (here / "pyproject.toml").write_text('[tool.perdure]\ndatabase = "sqlite:///a.db"\n')
    assert ids(perdure) == ["first-1"]
    monkeypatch.setenv("PERDURE_DATABASE_URL", "sqlite:///b.db")
    assert ids(perdure) == ["second-1"]
    assert ids(perdure, "-d", "a.db") == ["first-1"]
    assert perdure("--database", "a.db", "--output", "ids", "workflow", "list").stdout == "first-1\n"


def test_settings_that_cannot_work(perdure: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not a database that Perdure knows" in perdure("workflow", "list", "-d", "mysql://h/d", code=2).stderr
    said = perdure("workflow", "list", "-d", "mysql://u:secret@h/d", code=2).stderr
    assert "secret" not in said
    monkeypatch.setenv("PERDURE_DATABSE_URL", "x")
    assert "did you mean 'PERDURE_DATABASE_URL'" in perdure("workflow", "list", code=2).stderr


@pytest.mark.parametrize("mark", ["/", "#", "?", "?a=", "@", "@/", "[", "/#@?"])
def test_a_password_that_is_not_encoded_is_not_shown(perdure: Cli, mark: str) -> None:
    for first in ("123", "sec"):  # a number would pass for a port
        for command in (("workflow", "list"), ("doctor",)):
            result = perdure(*command, "-d", f"postgresql://u:{first}{mark}word@127.0.0.1:1/db", code=None)
            said = result.stdout + result.stderr
            assert first not in said
            assert "word" not in said.replace("password", "")
            assert "u:********@127.0.0.1:1/db" in said or "postgresql://…" in said
    said = perdure("workflow", "list", "-d", f"mysql://u:sec{mark}word@h/db", code=2).stderr
    assert "sec" not in said
    assert "word" not in said


def test_what_a_password_must_encode_is_told(perdure: Cli) -> None:
    for mark in "/@":  # by the second one the driver would look for another host
        said = perdure("workflow", "list", "-d", f"postgresql://u:sec{mark}ret@127.0.0.1:1/db", code=2).stderr
        assert "u:********@127.0.0.1:1/db cannot be read" in said
        assert "/ # ? @ % must be percent-encoded" in said


def test_a_file_that_is_not_there_is_not_made(perdure: Cli, here: Path) -> None:
    said = perdure("workflow", "list", "-d", "nope.db", code=4).stderr
    assert "there is no database file nope.db (from --database)" in said
    assert "perdure db migrate --database nope.db" in said
    assert not (here / "nope.db").exists()


def test_a_database_without_tables_and_one_from_the_future(perdure: Cli, here: Path) -> None:
    (here / "new.db").touch()
    said = perdure("workflow", "list", "-d", "new.db", code=4).stderr
    assert "has no tables of Perdure yet" in said
    assert "perdure db migrate --database" in said
    migrated(here / "new.db")
    connection = apsw.Connection(str(here / "new.db"))
    connection.pragma("user_version", 99)
    connection.close()
    assert "has schema version 99" in perdure("workflow", "list", "-d", "new.db", code=4).stderr


def hinted(said: str) -> list[str]:
    """The arguments of the command that a message ends with, as a shell reads them."""
    return shlex.split(said[said.rindex("perdure db migrate") :])[1:]


@pytest.mark.parametrize("name", ["a%41.db", "with a space.db", "it's.db"])
@pytest.mark.parametrize("form", ["path", "url", "found"])
def test_what_is_hinted_at_is_the_same_file(perdure: Cli, here: Path, name: str, form: str) -> None:
    (here / ".perdure").mkdir()
    path = here / ".perdure" / name
    url = "sqlite:///" + quote(str(path))
    at = {"path": ("-d", str(path)), "url": ("-d", url), "found": ()}[form]
    if form != "found":  # there is none to be found
        perdure(*hinted(perdure("workflow", "list", *at, code=4).stderr))
        path.unlink()
    path.touch()
    perdure(*hinted(perdure("workflow", "list", *at, code=4).stderr))
    assert path.stat().st_size
    assert [file.name for file in path.parent.glob("*.db")] == [name]
    assert "no app has used" in perdure("workflow", "list", *at, code=3).stderr


def test_the_url_of_a_store_leads_to_its_file(here: Path) -> None:
    store = open_store(str(here / "a%41.db"), "app")
    assert sqlite_path(store.url) == str(here / "a%41.db")


def test_an_empty_file_is_not_written_to(perdure: Cli, here: Path) -> None:
    (here / "e.db").touch()
    assert "has no tables of Perdure yet" in perdure("workflow", "list", "-d", "e.db", code=4).stderr
    assert [file.name for file in here.iterdir()] == ["e.db"]
    assert not (here / "e.db").stat().st_size


@pytest.mark.parametrize("command", [("db", "status"), ("doctor",), ("workflow", "list"), ("executor", "list")])
@pytest.mark.parametrize("state", ["missing", "folder missing", "empty", "migrated"])
def test_who_only_looks_writes_nothing(perdure: Cli, here: Path, command: tuple[str, ...], state: str) -> None:
    """No header, no log, no shared memory is left, and no folder is made; also where all is well."""
    path = here / "in" / "e.db" if state == "folder missing" else here / "e.db"
    if state == "empty":
        path.touch()
    elif state == "migrated":
        perdure("db", "migrate", "-d", path)
    before = contents(here)
    perdure(*command, "-d", path, code=None)
    assert contents(here) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def test_what_is_no_database(perdure: Cli, here: Path) -> None:
    (here / "text.db").write_text("not a database, but long enough to be looked at by SQLite" * 10)
    for command in (("workflow", "list"), ("db", "status"), ("doctor",)):
        result = perdure(*command, "-d", "text.db", code=4)
        assert "is not a SQLite database" in result.stdout + result.stderr
        assert "sqlite3 " in result.stdout + result.stderr
        assert "server" not in result.stdout + result.stderr


def test_a_database_that_is_a_directory(perdure: Cli, here: Path) -> None:
    (here / "some.db").mkdir()
    assert "is a directory" in perdure("workflow", "list", "-d", "some.db", code=4).stderr
    assert "server" not in perdure("doctor", "-d", "some.db", code=4).stdout


def test_a_file_that_this_user_cannot_write(perdure: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    migrated(here / "x.db")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)  # the owner of this process may be let in anywhere
        assert "cannot read and write" in perdure("workflow", "list", "-d", "x.db", code=4).stderr
    real = os.statvfs(here)
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda _: os.statvfs_result([*real[:8], real.f_flag | os.ST_RDONLY, real[9]]))
        assert "mounted read-only" in perdure("workflow", "list", "-d", "x.db", code=4).stderr
        assert "mounted read-only" in perdure("doctor", "-d", "x.db", code=4).stdout


def test_a_damaged_file_says_how_to_save_what_can_be_read(perdure: Cli, here: Path) -> None:
    one(f"sqlite:///{here}/x.db")
    with (here / "x.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * ((here / "x.db").stat().st_size - 4096))
    for command in (("workflow", "list"), ("doctor",)):
        result = perdure(*command, "-d", "x.db", code=4)
        said = result.stdout + result.stderr
        assert "malformed" in said
        assert f"sqlite3 {here}/x.db .recover | sqlite3 {here}/x.db.recovered.db" in said
        assert "server" not in said


def test_apps(perdure: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    migrated(here / "x.db")
    assert "no app has used" in perdure("workflow", "list", "-d", "x.db", code=3).stderr
    play("sqlite:///x.db", _nothing, "first")  # it is gone again, and there is no other that could be meant
    assert ids(perdure, "-d", "x.db") == []
    one("sqlite:///x.db", "first")
    assert ids(perdure, "-d", "x.db") == ["first-1"]
    play("sqlite:///x.db", _nothing, "idle")  # forgotten when it left: it has no workflows
    assert ids(perdure, "-d", "x.db") == ["first-1"]
    one("sqlite:///x.db", "second")
    said = perdure("workflow", "list", "-d", "x.db", code=2).stderr
    assert "--app first | second" in said
    assert ids(perdure, "-d", "x.db", "--app", "second") == ["second-1"]
    monkeypatch.setenv("PERDURE_APP", "first")
    assert ids(perdure, "-d", "x.db") == ["first-1"]
    said = perdure("workflow", "list", "-d", "x.db", "--app", "thrid", code=3).stderr
    assert "there is no app 'thrid'" in said
    assert "it holds: first, second" in said


# -- the same for programs


async def test_a_client_without_an_app_finds_the_only_one(here: Path) -> None:
    from perdure import Client
    from perdure.errors import ConfigError

    with pytest.raises(ConfigError, match="a client needs a database or an app"):
        await Client().open()
    with pytest.raises(ConfigError, match="no app has used it yet; say Client"):
        await Client("sqlite:///x.db").open()
    await asyncio.to_thread(one, "sqlite:///x.db", "first")
    async with Client("sqlite:///x.db") as client:
        assert [info.id async for info in client.list()] == ["first-1"]
    await asyncio.to_thread(one, "sqlite:///x.db", "second")
    with pytest.raises(ConfigError, match="it holds several: first, second"):
        await Client("sqlite:///x.db").open()


def test_a_blocking_client_too(here: Path) -> None:
    from perdure.errors import ConfigError
    from perdure.sync import Client

    one("sqlite:///x.db", "first")
    with Client("sqlite:///x.db") as client:
        assert [info.id for info in client.list()] == ["first-1"]
    one("sqlite:///x.db", "second")
    with pytest.raises(ConfigError, match="it holds several"), Client("sqlite:///x.db"):
        pass


def test_a_start_without_the_code_by_names(url: str) -> None:
    async def scene(app: Any, shop: object) -> object:
        workflow = app.client.workflow("checkout", returns=object).options(id="named")
        return await (await workflow.start("a", cents=8)).result()

    assert play(url, scene) == {"charge": "charge-a", "cents": 8}
