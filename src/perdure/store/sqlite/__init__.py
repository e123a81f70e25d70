"""The SQLite dialect: one file, many processes of one host."""

from perdure.store.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
