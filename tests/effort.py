"""How much is tried of what could be: by ``PERDURE_TEST_CRASHES``.

=============  ===========================  ====================================================================
``some``       ``make test`` (the default)  a part, by chance, of the crash points and of what is tried in many kinds; a
                                            twelfth of the tests that kill, wait and simulate for long; on one of the
                                            two databases, by chance, what is there for both, and so with blocking
                                            bodies in threads or in greenlets; a third of the cases of a test that
                                            has four or more
``ci``         ``.ci/run``                  the same, and all that promise a number, on both databases: 1,000 crash
                                            points, mutants, faults; and beside them a whole chaos run
``all``        ``make crashes``             everything, but pairs: an hour
``pairs``      ``make pairs``               two crashes at all pairs of writes
=============  ===========================  ====================================================================

Chance has a seed, which is printed. Whoever runs a few files gets all the tests in them: see ``tests/conftest.py``.
On a machine that is too slow for the promised minutes a share of all this is run: see ``tests/pace.py``.
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

EFFORT = os.environ.get("PERDURE_TEST_CRASHES", "some")
if EFFORT not in {"some", "ci", "all", "pairs"}:
    raise SystemExit(f"PERDURE_TEST_CRASHES={EFFORT!r}; give some (the default), ci, all or pairs")


def by_effort(some: T, ci: T, all: T) -> T:
    """The one of three that this run asks for."""
    return {"some": some, "ci": ci}.get(EFFORT, all)
