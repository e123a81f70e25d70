"""From settings to a store: the one place of the public face that knows how databases are opened."""

from __future__ import annotations

from perdure.store.base import Store
from perdure.store.open import open_store


def make_store(url: str, app: str, schema: str) -> Store:
    """The store of an app. Raises ``ConfigError`` for a URL that names no database known to Perdure."""
    return open_store(url, app, schema)
