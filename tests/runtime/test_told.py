"""Who waits for a run in this process is told once, and some at once."""

from __future__ import annotations

from typing import Any

from perdure.runtime.told import AtOnce, tell


def test_who_is_told_at_once_is_told_once() -> None:
    heard: list[tuple[Any, Exception | None]] = []
    waiting = AtOnce(lambda value, error: heard.append((value, error)))
    assert not waiting.done()
    tell(waiting, "there")
    assert heard == [("there", None)]
    assert waiting.done()
    tell(waiting, "again")
    tell(waiting, ValueError("too late"))
    assert heard == [("there", None)]


def test_an_error_is_told_at_once_too() -> None:
    heard: list[tuple[Any, Exception | None]] = []
    error = ValueError("refused")
    tell(AtOnce(lambda value, error: heard.append((value, error))), error)
    assert heard == [(None, error)]
