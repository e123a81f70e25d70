"""From a database URL to its store. Dialects are imported only when asked for: SQLite users need no Postgres driver."""

from __future__ import annotations

from urllib.parse import unquote

from perdure.config import masked
from perdure.errors import ConfigError
from perdure.store.base import Store

FORMS = "sqlite:///relative.db, sqlite:////absolute.db, a path ending in .db, or postgresql://user@host/database"

_FILE = "sqlite:///"


def open_store(url: str, app: str, schema: str = "perdure") -> Store:
    """The store that ``url`` names, for ``app``; nothing is connected yet. Raises ``ConfigError`` for another form."""
    if url.startswith(("postgres://", "postgresql://")):
        from perdure.store.postgres import PostgresStore  # noqa: PLC0415 - needs a driver that is an extra

        return PostgresStore(url, app, schema)
    path = sqlite_path(url)
    if path is None:
        raise ConfigError(f"not a database that Perdure knows: {masked(url)!r}.{_hint(url)} Give {FORMS}.")
    from perdure.store.sqlite import SQLiteStore  # noqa: PLC0415 - see above

    return SQLiteStore(path, app)


def _hint(url: str) -> str:
    """What its writer may have meant."""
    if url.startswith(("postgresql+", "postgres+")):
        return " The driver after the + is SQLAlchemy's: leave it out."
    if url.startswith(_FILE):
        return " A file's URL has no options; in its name write %3F for ? and %25 for %."
    return ""


def sqlite_path(url: str) -> str | None:
    """The file that ``url`` names, None if it names none, or perhaps another one than its writer thought."""
    if url.startswith(_FILE):
        path = unquote(url.removeprefix(_FILE))
        return None if "?" in url or "\ufffd" in path else path or None
    if url.endswith(".db") and "://" not in url and not url.startswith(("sqlite:", "file:")):
        return url
    return None
