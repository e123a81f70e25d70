"""What is called while the garbage collector is at work: nothing of a body.

It comes by at another moment in each process, in whichever body is running, and what it ends there (a generator left
in its middle, an object with a ``__del__``, in a cycle of references) may be another workflow's, which may only have
been put away. Its calls are refused: as those of the body they would stand in a history that no replay repeats, outside
of any they would run unrecorded, and a wait would stop the collector itself.
"""

from __future__ import annotations

import gc
from threading import get_ident
from typing import Any

from perdure.errors import NotDurable


class Collector:
    """``thread`` is the one in which it is at work, else 0: there is one collector, and it is not entered twice."""

    thread = 0

    def told(self, phase: str, _info: dict[str, Any]) -> None:
        self.thread = get_ident() if phase == "start" else 0

    def refuse(self) -> None:
        """Raises ``NotDurable`` for who is called by it. To be asked only where ``thread`` is set, which costs less."""
        if self.thread == get_ident():
            raise NotDurable(
                "The garbage collector called Perdure (the finally of a generator that was left in its middle, a "
                "__del__ or a weakref callback, in a cycle of references). It comes by at another moment in each "
                "process, in whichever workflow is running, so the call was refused and did not run. Clean up where "
                "the object is left: with contextlib.closing(…) as …, or contextlib.ExitStack."
            )


COLLECTOR = Collector()
gc.callbacks.append(COLLECTOR.told)
