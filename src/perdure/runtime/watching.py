"""Watching a ramp: part of each round of every executor, whichever version it runs. There is no coordinator.

Whoever sees a bound passed orders the end of it for the revision that it has seen. Who comes second finds another
revision, or no watch any more; a person's change in the meantime stands. Nothing is rolled back to a version that
nobody runs: new work that fails is no worse than new work that waits for nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Protocol

from perdure.client.line import Line
from perdure.model.deployments import Abort, Order
from perdure.model.versions import Routing
from perdure.versions.watch import passed

log = logging.getLogger("perdure")


class Host(Protocol):
    """What watching needs of an executor."""

    line: Line
    executor_id: str


async def watch(host: Host, routing: Routing, served: Collection[str]) -> Routing:
    """Judge the ramp that is watched, if one is; where new work goes then. ``served``: versions that somebody runs."""
    watched, store = routing.watch, host.line.store
    if watched is None:
        return routing
    evidence = passed(watched, await store.sample(watched.version, watched.since))
    if evidence is None:
        return routing
    if routing.current == watched.version and watched.back not in served:
        log.error(
            "version %s does badly, %s; it stays the current one, since no executor of version %s is alive",
            watched.version, evidence, watched.back,
        )  # fmt: skip
        return routing
    order = Order(
        verb=Abort(watched.version), nonce=host.line.new_token(), by=f"executor {host.executor_id}", reason=evidence,
        revision=routing.revision,
    )  # fmt: skip
    ruling = await store.change_deployment(order, now=host.line.clock.stamp())
    if not ruling.changed or ruling.after is None:
        return routing if ruling.after is None else ruling.after
    log.error(
        "the rollout of version %s was stopped, %s; new work goes to version %s. See: perdure deployment describe",
        watched.version, evidence, ruling.after.current,
    )  # fmt: skip
    store.hint()
    return ruling.after
