"""Unfinished work of a version that nobody runs any more, and why it could not be adopted by another."""

from __future__ import annotations

import msgspec


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One run, tried against the code of ``version`` and found not to go on there."""

    id: str
    run: int
    last_seq: int  # how far its history went
    version: str  # what it was tried against
    reason: str  # of runtime.replay_check.Finding
    detail: str
    at: int = 0  # when; the store fills it in


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay of a workflow on some version's code came to, as an executor of it tells who asks."""

    id: str
    finding: str  # of ``runtime.replay_check.Finding``
    detail: str = ""
    path: str = ""  # of the call where the code differs
    recorded: str = ""
    called: str = ""
    where: str = ""  # file:line
