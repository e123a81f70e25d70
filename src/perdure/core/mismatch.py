"""What differs between a history and the code that replays it, in words for a person who compares the two."""

from __future__ import annotations

import msgspec

from perdure.model.records import Kind


class Mismatch(msgspec.Struct, frozen=True):
    """What history recorded, beside what the code asked. Either may be missing."""

    path: str
    recorded: str
    called: str

    def __str__(self) -> str:
        # Arguments that are not shown, or not to their end, may be all that differs.
        called = self.called if self.called != self.recorded else "the same call with other arguments"
        return f"at {self.path}: history has {self.recorded}; the code has {called}"


def describe(kind: Kind, name: str, shown: str = "") -> str:
    """A call in words, for a person who compares two."""
    return f"{kind.name.lower()} {name}({shown})" if shown else f"{kind.name.lower()} {name}"
