"""What the rest of the house knows of the schemes in a database: the part of the store's protocol about them.

Promises: those of ``Store``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class SchemeStore(Protocol):
    """See the head of this file."""

    async def note_schemes(self, version: str, schemes: Mapping[str, str]) -> None:
        """Note the schemes of a version that was launched, by name of the process. Repeated, it changes nothing."""
        ...

    async def schemes(self) -> dict[str, dict[str, str]]:
        """Of all versions that have some, by version and name, the latest launched first."""
        ...
