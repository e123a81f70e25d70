"""From settings to a store: the one place of the public face that knows how databases are opened."""

from __future__ import annotations

from perdure.errors import ConfigError
from perdure.runtime.face import MakeStoreOf
from perdure.serde.codec import Codec
from perdure.store.base import Store
from perdure.store.open import open_store


def maker(codec: Codec | None) -> MakeStoreOf:
    """How stores are opened. What that gives raises ``ConfigError`` for a URL that names no database known here."""
    if codec is None:
        return open_store
    if not isinstance(codec, Codec):  # pyright: ignore[reportUnnecessaryIsInstance]  what the user gave
        raise ConfigError(f"codec={codec!r} is no Codec; write codec=Codec(encode=…, decode=…)")

    from perdure.store.coded import coded  # noqa: PLC0415  few apps have a codec

    def make_store(url: str, app: str, schema: str) -> Store:
        return coded(open_store(url, app, schema), codec)

    return make_store
