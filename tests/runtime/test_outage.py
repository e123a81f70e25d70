"""What the log says of a trouble that lasts."""

from __future__ import annotations

import logging

import pytest

from perdure.runtime.outage import Outage


def test_an_outage_is_told_when_it_begins_once_a_minute_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    outage = Outage("no renewal", "renewed again", logging.WARNING, lambda: now)
    outage.passed()  # all is well, and nothing is said of it
    for _ in range(150):
        outage.met("refused")
        now += 1
    outage.passed()
    outage.passed()
    outage.met("full")
    assert caplog.messages == [
        "no renewal: refused",
        "no renewal, for 60 s now: refused",
        "no renewal, for 120 s now: refused",
        "renewed again, after 150 s",
        "no renewal: full",
    ]
