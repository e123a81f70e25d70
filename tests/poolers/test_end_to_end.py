"""Workflows, messages, events, cancels and a SIGKILL by way of PgBouncer: the tests that a direct connection passes."""

from __future__ import annotations

import pytest

from tests.crash.test_fleet import (
    test_killed_on_this_machine_another_goes_on_within_two_seconds as _takeover,
)
from tests.crash.test_fleet import (
    test_one_that_was_stopped_and_comes_back_writes_nothing_and_rejoins as _zombie,
)
from tests.runtime import test_cancel, test_events, test_messages

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.sampled(5)]

for _module in (test_cancel, test_events, test_messages):
    globals().update({name: test for name, test in vars(_module).items() if name.startswith("test_")})

test_killed_with_sigkill_another_goes_on = pytest.mark.crash(_takeover)
test_a_stopped_one_that_comes_back_writes_nothing = pytest.mark.crash(_zombie)
