"""Odd surroundings: what a process, its tools or its limits do to an app, and what is said where it cannot work."""

from __future__ import annotations

import asyncio
import threading

import pytest

import perdure.sync


def test_a_blocking_app_that_can_make_no_loop_says_so(
    sync_app: perdure.sync.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no file may be opened, for instance: it must not wait for a thread that has ended."""
    make = asyncio.new_event_loop

    def refuse() -> asyncio.AbstractEventLoop:
        if threading.current_thread() is not threading.main_thread():
            raise OSError(24, "Too many open files")
        return make()

    monkeypatch.setattr(asyncio.events, "new_event_loop", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        sync_app.open()
    monkeypatch.undo()
    with sync_app:
        assert sync_app._home.is_open
