"""Routes: what a caller knows of where new work goes, and the version that a start of its own takes by it.

Under ``rollout="auto"`` a start runs here with this executor's version, or goes without one to whoever claims it; but
where an operator has parted new work (a version ramps, or traffic was taken from this one) and under ``"manual"`` the
database says where. What it said is believed for a second, or for five while it parts nothing; an executor, which
follows it anyway, does not ask until then.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from perdure.client.questions import StartOrder
from perdure.model.real import time
from perdure.model.versions import Routing
from perdure.versions.routing import leads, version_for

BELIEVED_SECONDS = 1.0
QUIET_SECONDS = 5.0  # where starts go nowhere by it: as long as executors believe it


class Routes:
    """Of one line. ``routing`` is None until it was asked for, or nothing was launched yet."""

    def __init__(self, app: str, new_id: Callable[[], str]) -> None:
        self.rollout = "auto"
        self.routing: Routing | None = None
        self.left = False  # an operator took traffic from the version that runs here, and others serve the current one
        self._app = app
        self._new_id = new_id
        self._believed_until = 0.0

    def saw(self, routing: Routing | None) -> None:
        """What the database says now."""
        self.routing = routing
        self._believed_until = time.monotonic() + (BELIEVED_SECONDS if self.leads else QUIET_SECONDS)

    @property
    def leads(self) -> bool:
        """Whether starts go where the routing says, and not to whatever version is at hand."""
        return leads(self.rollout, self.routing, left=self.left)

    def stale(self, *, told: bool) -> bool:
        """Whether the database is to be asked before a start. ``told``: an executor here sees it in its rounds."""
        return (self.leads or not told) and time.monotonic() >= self._believed_until

    def version(self, id: str, pinned_parent: str | None = None) -> str:
        """The version that a start of this id takes, if nobody asked for one; "" for that of whoever claims it."""
        return version_for(
            self.rollout, self._app, id, pinned_parent=pinned_parent, routing=self.routing, left=self.left
        )

    def routed(self, order: StartOrder, id: str | None = None, pinned_parent: str | None = None) -> StartOrder:
        """The order with the version that it takes, and with an id, if the version depends on that."""
        options = order.options
        if options.version is not None or not (self.leads or pinned_parent is not None):
            return order
        id = id or options.id or self._new_id()
        version = self.version(id, pinned_parent)
        if not version:
            return order
        chosen = options.id if pinned_parent is not None else id
        return msgspec.structs.replace(order, options=msgspec.structs.replace(options, id=chosen, version=version))
