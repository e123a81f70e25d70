"""Mutants of how a replay hands over what is recorded: in programs that nobody wrote."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from perdure.runtime.async_body import AsyncExecution
from tests.mutants.base import DEATHS, Mutant


class TwoAtOnce(Mutant):
    """A replay hands over two outcomes before the body has gone on from the first."""

    number = "R1"
    kinds = ("program",)
    known = 4
    faults: ClassVar[dict[str, float]] = DEATHS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain: Any = AsyncExecution._hand_over

        def hand_over(self: Any) -> bool:
            return bool(plain(self) | plain(self))

        patch.setattr(AsyncExecution, "_hand_over", hand_over)


class CutIsQuiet(Mutant):
    """A burst that was cut counts as one that has drained: what comes meanwhile enters the body in its middle."""

    number = "R2"
    kinds = ("program",)
    known = 8
    faults: ClassVar[dict[str, float]] = DEATHS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = AsyncExecution.__setattr__

        def never_cut(self: Any, name: str, value: Any) -> None:
            plain(self, name, False if name == "_cut" else value)

        patch.setattr(AsyncExecution, "__setattr__", never_cut, raising=False)
