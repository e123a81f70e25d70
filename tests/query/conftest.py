"""Stores to ask, on every dialect."""

from __future__ import annotations

from tests.store.conftest import make_store, store

__all__ = ["make_store", "store"]
