"""Settings: argument, then environment, then pyproject.toml, then default; nothing unknown is passed over."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from perdure import App, Client
from perdure.config import masked, read_settings
from perdure.errors import ConfigError


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERDURE_DATABASE_URL", "PERDURE_EXECUTOR_ID", "PERDURE_VERSION", "DBOS__VMID", "DBOS__APPVERSION"):
        monkeypatch.delenv(name, raising=False)


def test_an_argument_wins_over_environment_over_pyproject_over_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def database(**arguments: str) -> tuple[str, str]:
        settings = read_settings("shop", arguments, folder=tmp_path)
        return settings.database, settings.database_from

    assert database() == (f"sqlite:///{tmp_path}/.perdure/shop.db", "default")
    (tmp_path / "pyproject.toml").write_text('[tool.perdure]\ndatabase = "sqlite:///toml.db"\n')
    assert database() == ("sqlite:///toml.db", "[tool.perdure] in pyproject.toml")
    monkeypatch.setenv("PERDURE_DATABASE_URL", "sqlite:///env.db")
    assert database() == ("sqlite:///env.db", "PERDURE_DATABASE_URL")
    assert database(database="sqlite:///arg.db") == ("sqlite:///arg.db", "App(database=…)")


def test_the_names_of_the_field_work_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBOS__VMID", "vm-7")
    monkeypatch.setenv("DBOS__APPVERSION", "v9")
    settings = read_settings("shop", {}, folder=tmp_path)
    assert (settings.executor_id, settings.version) == ("vm-7", "v9")
    monkeypatch.setenv("PERDURE_EXECUTOR_ID", "ours")
    assert read_settings("shop", {}, folder=tmp_path).executor_id == "ours"


def test_an_unknown_variable_is_an_error_with_a_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_DATABSE_URL", "x")
    with pytest.raises(ConfigError, match=r"PERDURE_DATABSE_URL \(did you mean 'PERDURE_DATABASE_URL'\?\); known: "):
        read_settings("shop", {}, folder=tmp_path)


def test_what_only_tests_read_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_TEST_CRASHES", "some")
    assert read_settings("shop", {}, folder=tmp_path).app == "shop"


def test_an_unknown_key_of_pyproject_is_an_error_with_a_guess(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.perdure]\nleese = 3\n")
    with pytest.raises(ConfigError, match=r"unknown setting 'leese' in \[tool\.perdure\] of .*did you mean 'lease'\?"):
        read_settings("shop", {}, folder=tmp_path)


def test_a_table_of_pyproject_that_is_none_is_shown(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("tool.perdure = 3\n")
    with pytest.raises(ConfigError, match=r"tool.perdure = 3 in .* is no table of settings"):
        read_settings("shop", {}, folder=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"recovery": "later"}, r"recovery='later' \(from App\(recovery=…\)\) is none of fleet, own, single, manual"),
        ({"recovery": "all"}, "none of fleet, own, single, manual"),
        ({"lease": "soon"}, r"lease='soon' \(from App\(lease=…\)\) must be a number of seconds, from 1 to a year"),
        ({"lease": 0.5}, "from 1 to"),
        ({"lease": timedelta(days=1000)}, "to a year"),
        ({"listen": 5}, r"listen=5 \(from App\(listen=…\)\) is no list of names"),
        ({"executor_id": 5}, r"executor_id=5 \(from App\(executor_id=…\)\) cannot be used: .* 1 to 200 printable"),
        ({"executor_id": "pod\0"}, "printable characters"),
        ({"executor_id": ""}, "printable characters"),
        ({"schema": "Shop; drop"}, "cannot be used"),
        ({"threads": 0}, "a whole number of at least 1"),
        ({"threads": 2.5}, "a whole number"),
        ({"patience": 0}, r"patience=0 \(from App\(patience=…\)\) must be a number of seconds, from 0.1"),
    ],
)
def test_a_value_that_cannot_be_is_shown_with_where_it_came_from(
    arguments: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        read_settings("shop", arguments, folder=tmp_path)


def test_a_duration_is_a_timedelta_or_seconds(tmp_path: Path) -> None:
    assert read_settings("shop", {"lease": timedelta(seconds=7)}, folder=tmp_path).lease == 7.0
    assert read_settings("shop", {"lease": 7}, folder=tmp_path).lease == 7.0
    assert read_settings("shop", {"patience": timedelta(seconds=2)}, folder=tmp_path).patience == 2.0
    assert read_settings("shop", {}, folder=tmp_path).patience is None


async def test_what_a_client_was_given_is_not_called_an_apps() -> None:
    with pytest.raises(ConfigError, match=r"patience=0 \(from Client\(patience=…\)\)"):
        await Client("sqlite:///x.db", app="shop", patience=0).open()
    with pytest.raises(ConfigError, match=r"patience=0 \(from Client\(patience=…\)\)"):
        await Client("sqlite:///x.db", patience=0).open()


async def test_settings_are_read_at_launch_never_at_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    app = App("shop")  # nothing is read here
    monkeypatch.setenv("PERDURE_DATABASE_URL", f"sqlite:///{tmp_path}/late.db")
    async with app:
        assert (tmp_path / "late.db").is_file()
    monkeypatch.setenv("PERDURE_LEESE", "1")
    with pytest.raises(ConfigError, match="did you mean 'PERDURE_LEASE'"):
        await app.open()


def test_a_masked_url_shows_no_password() -> None:
    assert masked("postgresql://ann:s3cret@host:5432/shop") == "postgresql://ann:********@host:5432/shop"
    assert masked("postgresql://ann:s3:cr@t@host/shop") == "postgresql://ann:********@host/shop"
    assert (
        masked("postgresql://h/shop?user=a&password=s3cret&x=1") == "postgresql://h/shop?user=a&password=********&x=1"
    )
    assert masked("postgresql://ann:s3cret@[broken/shop") == "postgresql://…"
    assert masked("sqlite:///shop.db") == "sqlite:///shop.db"
    assert masked("postgresql://ann:s3cret/shop") == "postgresql://…"  # its host was forgotten
    assert masked("sqlite:///x.db") == "sqlite:///x.db"
    assert masked("sqlite:////at:home@h/x.db") == "sqlite:////at:home@h/x.db"


@pytest.mark.parametrize("mark", ["/", "#", "?", "@", "%", ":", "/@", "?a=b"])
def test_a_masked_url_shows_no_part_of_a_password_that_is_not_encoded(mark: str) -> None:
    for scheme in ("postgresql://", "mysql://", ""):
        assert masked(f"{scheme}ann:s3c{mark}ret@host:5/shop") == f"{scheme}ann:********@host:5/shop"


def test_pyproject_is_read_as_utf_8_and_what_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under LC_ALL=C, too."""
    file = tmp_path / "pyproject.toml"
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, encoding=None: read(path, encoding or "ascii"))
    file.write_bytes("# Jürgen\n[tool.perdure]\nlease = 7\n".encode())
    assert read_settings("shop", {}, folder=tmp_path).lease == 7
    file.write_bytes("# Jürgen\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"pyproject\.toml cannot be read for \[tool\.perdure\]: 'utf-8' codec"):
        read_settings("shop", {}, folder=tmp_path)


def test_a_working_directory_that_was_removed_matters_only_to_the_embedded_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("os.getcwd", gone)
    assert read_settings("shop", {"database": "sqlite:////x.db"}).database == "sqlite:////x.db"
    with pytest.raises(ConfigError, match=r"the working directory has been removed.*PERDURE_DATABASE_URL"):
        read_settings("shop", {})
