"""A database behind a proxy that fails on order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import pytest

from chaos.proxy import Proxy


class Proxied(NamedTuple):
    """The proxy, the database's URL through it, and the one that goes past it."""

    proxy: Proxy
    url: str
    direct: str


async def proxied_url(direct: str) -> Proxied:
    parts = urlsplit(direct)
    proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    port = await proxy.start()
    user = parts.netloc.rpartition("@")[0]
    netloc = f"{user}@127.0.0.1:{port}" if user else f"127.0.0.1:{port}"
    return Proxied(proxy, urlunsplit(parts._replace(netloc=netloc)), direct)


@pytest.fixture
async def proxied(postgres_url: Any) -> AsyncIterator[Proxied]:
    found = await proxied_url(postgres_url)
    yield found
    await found.proxy.close()
