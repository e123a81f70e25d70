"""Routes: what a caller knows of where new work goes, and the version that a start of its own takes by it.

Under ``rollout="auto"`` nothing is asked: a start runs here with this executor's version, or goes without one to
whoever claims it. Under ``"manual"`` the database says where; what it said is believed for a second.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import msgspec

from perdure.client.questions import StartOrder
from perdure.model.versions import Routing
from perdure.versions.routing import version_for

BELIEVED_SECONDS = 1.0


class Routes:
    """Of one line. ``routing`` is None until it was asked for, or nothing was launched yet."""

    def __init__(self, app: str, new_id: Callable[[], str]) -> None:
        self.rollout = "auto"
        self.routing: Routing | None = None
        self._app = app
        self._new_id = new_id
        self._believed_until = 0.0

    def saw(self, routing: Routing | None) -> None:
        """What the database says now."""
        self.routing = routing
        self._believed_until = monotonic() + BELIEVED_SECONDS

    @property
    def stale(self) -> bool:
        """Whether the database is to be asked before a start."""
        return self.rollout != "auto" and monotonic() >= self._believed_until

    def routed(self, order: StartOrder, id: str | None = None, pinned_parent: str | None = None) -> StartOrder:
        """The order with the version that it takes, and with an id, if the version depends on that."""
        options = order.options
        if options.version is not None or (self.rollout == "auto" and pinned_parent is None):
            return order
        id = id or options.id or self._new_id()
        version = version_for(self.rollout, self._app, id, pinned_parent=pinned_parent, routing=self.routing)
        if not version:
            return order
        chosen = options.id if pinned_parent is not None else id
        return msgspec.structs.replace(order, options=msgspec.structs.replace(options, id=chosen, version=version))
