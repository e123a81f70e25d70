"""Settings: argument, then ``PERDURE_*``, then ``[tool.perdure]`` in pyproject.toml, then default.

Read at launch, never at import. An unknown key is an error with a guess, so that a typing mistake never means a
default.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from perdure.errors import ConfigError, did_you_mean
from perdure.model.text import VERSION_MAX, is_version

KEYS: Mapping[str, tuple[str, ...]] = {
    # setting: the environment variables that give it, first one wins (the second ones are names of the field)
    "database": ("PERDURE_DATABASE_URL",),
    "executor_id": ("PERDURE_EXECUTOR_ID", "DBOS__VMID"),
    "version": ("PERDURE_VERSION", "DBOS__APPVERSION"),
    "recovery": ("PERDURE_RECOVERY",),
    "rollout": ("PERDURE_ROLLOUT",),
    "adopt": ("PERDURE_ADOPT",),
    "lease": ("PERDURE_LEASE",),
    "max_stall": ("PERDURE_MAX_STALL",),
    "schema": ("PERDURE_SCHEMA",),
    "threads": ("PERDURE_THREADS",),
    "bodies": ("PERDURE_BODIES",),
    "grace": ("PERDURE_GRACE",),
    "listen": ("PERDURE_LISTEN",),
    "patience": ("PERDURE_PATIENCE",),
}
SECONDS_MIN: Mapping[str, float] = {"lease": 1.0, "grace": 0.0, "max_stall": 1.0, "patience": 0.1}
SECONDS_MAX = 86400 * 365
OTHER_VARIABLES = frozenset({"PERDURE_SEED", "PERDURE_APP"})
OF_TESTS = "PERDURE_TEST_"  # read by this project's own tests
CHOICES: Mapping[str, tuple[str, ...]] = {
    "recovery": ("fleet", "own", "single", "manual"),
    "rollout": ("auto", "manual"),
    "adopt": ("replay_safe", "never"),
    "bodies": ("threads", "greenlets"),
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a launch goes by, and where the database was chosen."""

    app: str
    database: str
    database_from: str
    executor_id: str
    version: str
    recovery: str = "fleet"
    rollout: str = "auto"
    adopt: str = "replay_safe"
    lease: float = 15.0
    max_stall: float = 0.0  # 0: an event loop that stands still is told of, and keeps its lease
    schema: str = "perdure"
    threads: int = 128
    bodies: str = "threads"  # where blocking ones stand
    grace: float = 5.0
    listen: tuple[str, ...] | None = None  # queues; None: all
    patience: float | None = None  # of calls from outside, while the database is away; None: for ever

    @property
    def chosen(self) -> bool:
        """Whether somebody chose the database."""
        return self.database_from != "default"


def read_settings(
    app: str, arguments: Mapping[str, Any], *, given_to: str = "App", folder: Path | None = None
) -> Settings:
    """Gather the settings of a launch. Raises ``ConfigError`` showing the value and where it came from.

    ``given_to``: whose ``arguments`` they are, ``App`` or ``Client``, as messages name it.
    """
    if not isinstance(app, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", app):  # pyright: ignore[reportUnnecessaryIsInstance]  users without a checker
        raise ConfigError(f"app name {app!r} cannot be used: 1 to 100 letters, digits, '_', '.', '-'")
    folder = folder or _here()
    _refuse_unknown(os.environ)
    table: Mapping[str, Any] = _tool_table(folder) if folder is not None else {}
    found: dict[str, tuple[Any, str]] = {}
    for key, variables in KEYS.items():
        if arguments.get(key) is not None:
            found[key] = (arguments[key], f"{given_to}({key}=…)")
            continue
        named = next((v for v in variables if os.environ.get(v)), None)
        if named is not None:
            found[key] = (os.environ[named], named)
        elif key in table:
            found[key] = (table[key], "[tool.perdure] in pyproject.toml")
    values = {key: _checked(key, value, where) for key, (value, where) in found.items()}
    if "database" not in found and folder is None:
        raise ConfigError(
            "the working directory has been removed, which would have held the embedded database: change to another, "
            "or set PERDURE_DATABASE_URL"
        )
    default = "" if folder is None else file_url(folder / ".perdure" / f"{app}.db")
    database, where = found.get("database", (default, "default"))
    values |= {"database": str(database), "database_from": where}
    values.setdefault("executor_id", socket.gethostname())
    values.setdefault("version", "")
    return Settings(app=app, **values)


def _here() -> Path | None:
    """The working directory; None if it has been removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = [v for variables in KEYS.values() for v in variables] + sorted(OTHER_VARIABLES)
    for name in environment:
        if name.startswith("PERDURE_") and not name.startswith(OF_TESTS) and name not in known:
            raise ConfigError(f"unknown setting {name}{did_you_mean(name, known)}; known: {', '.join(sorted(known))}")


def _tool_table(folder: Path) -> Mapping[str, Any]:
    path = folder / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        text = path.read_text("utf-8")  # as TOML is, whatever the locale says
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read for [tool.perdure]: {error}") from None
    table = _parsed(path, text)
    for key in table:
        if key not in KEYS:
            raise ConfigError(f"unknown setting {key!r} in [tool.perdure] of {path}{did_you_mean(key, KEYS)}")
    return table


@lru_cache(maxsize=1)  # tests open hundreds of apps in one folder
def _parsed(path: Path, text: str) -> Mapping[str, Any]:
    import tomllib  # noqa: PLC0415 - a service has no such file

    try:
        table = tomllib.loads(text).get("tool", {}).get("perdure", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    if not isinstance(table, dict):
        raise ConfigError(f"tool.perdure = {table!r} in {path} is no table of settings: write [tool.perdure]")
    return cast("dict[str, Any]", table)


def _checked(key: str, value: Any, where: str) -> Any:
    if key in CHOICES and value not in CHOICES[key]:
        raise ConfigError(f"{key}={value!r} (from {where}) is none of {', '.join(CHOICES[key])}")
    computed = key == "version" and value == ""
    if key in ("executor_id", "version") and not is_version(value) and not computed:
        raise ConfigError(
            f"{key}={value!r} (from {where}) cannot be used: give text of 1 to {VERSION_MAX} printable characters"
        )
    if key == "max_stall" and value in (0, "0"):
        return 0.0
    if key in SECONDS_MIN:
        return _seconds(key, value, where)
    if key == "listen":
        return _names(key, value, where)
    if key == "threads":
        return _threads(value, where)
    if key == "schema" and not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", str(value)):
        raise ConfigError(
            f"schema {value!r} (from {where}) cannot be used: lower-case letters, digits and '_', not a digit first"
        )
    return value


def _seconds(key: str, value: Any, where: str) -> float:
    given = value.total_seconds() if hasattr(value, "total_seconds") else value
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = -1.0
    if not SECONDS_MIN[key] <= seconds <= SECONDS_MAX:
        raise ConfigError(
            f"{key}={value!r} (from {where}) must be a number of seconds, from {SECONDS_MIN[key]:g} to a year"
        )
    return seconds


def _threads(value: Any, where: str) -> int:
    try:
        number = int(value)  # of an environment variable it is text
    except (OverflowError, TypeError, ValueError):
        number = 0
    if number < 1 or (isinstance(value, float) and not value.is_integer()):
        raise ConfigError(f"threads={value!r} (from {where}) must be a whole number of at least 1")
    return number


def _names(key: str, value: Any, where: str) -> tuple[str, ...]:
    """Names in a list, or in one text with commas."""
    names: tuple[Any, ...]
    try:
        names = tuple(value.split(",") if isinstance(value, str) else value)
    except TypeError:
        names = (value,)
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{key}={value!r} (from {where}) is no list of names: give such as emails,reports")
    return tuple(name.strip() for name in names if name.strip())


def file_url(path: Path) -> str:
    """The URL of a SQLite file. What follows a percent sign in a URL is read as a code."""
    return f"sqlite:///{path}".replace("%", "%25")


_PASSWORD = re.compile(r"([?&]password=)[^&]+", re.IGNORECASE)


def masked(url: str) -> str:
    """A database URL that is safe to print: passwords are hidden, before the host as in the query.

    A password may hold what belongs percent-encoded, so it is taken to reach up to the last ``@``, whatever is between.
    """
    if url.startswith("sqlite:") or ("://" not in url and url.endswith(".db")):
        return url  # a file, whose name may hold anything
    try:
        parts = urlsplit(url)
        if "@" not in url and "," not in parts.netloc:
            _ = parts.port  # what is no number may be the password of a URL without its host
    except ValueError:  # not even a URL: show nothing of what may be a secret
        return url.partition("://")[0] + "://…"
    scheme, rest = url.split("://", 1) if "://" in url else ("", url)
    login, host = rest.rpartition("@")[::2]
    if ":" in login:
        rest = f"{login.partition(':')[0]}:********@{host}"
    return _PASSWORD.sub(r"\1********", f"{scheme}://{rest}" if scheme else rest)
