"""Launch: which version of the code this process is, and that it is known.

The version is what was given by hand (``App(version=)``, ``PERDURE_VERSION``), else it is computed from the source of
the workflows. It is never empty: a row that has one belongs to the code that can replay it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

import msgspec

from perdure.client.line import Line
from perdure.definitions import Registry
from perdure.errors import ConfigError
from perdure.model.records import Incarnation
from perdure.runtime.leases import provably_gone
from perdure.versions.fingerprint import NoSource, Sources, app_version

log = logging.getLogger("perdure")


class Code(msgspec.Struct, frozen=True):
    """The code of an app, as this process has it."""

    version: str
    fingerprints: Mapping[str, str]  # of each workflow by name; "" where the source was not to be had


class Host(Protocol):
    """What a launch needs of an executor."""

    line: Line
    me: Incarnation
    code: Code
    rollout: str


def code_of(app: str, registry: Registry, given: str) -> Code:
    """The code of an app; ``given`` is the version by hand, "" for none.

    Raises ``ConfigError`` if the version has to be computed and the source of a workflow is not to be had.
    """
    sources = Sources()
    fingerprints: dict[str, str] = {}
    for name, definition in registry.workflows.items():
        try:
            fingerprints[name] = sources.fingerprint(definition.fn)
        except NoSource as error:
            if not given:
                raise ConfigError(
                    f"the version of app {app!r} cannot be computed from its code, for workflow {name!r} has no "
                    f"source: {error}. Give the version by hand, another one for each deploy: PERDURE_VERSION=… or "
                    "App(version=…)"
                ) from None
            fingerprints[name] = ""
    return Code(given or app_version(fingerprints), fingerprints)


async def launch(host: Host) -> None:
    """Register this launch; its version may become the one that new work goes to."""
    store, stamp = host.line.store, host.line.clock.stamp
    gone = [who.id for who in await store.incarnations() if who.id != host.me.id and provably_gone(who)]
    routing = await store.launched(
        host.code.version, host.code.fingerprints, [host.me.id, *gone], auto=host.rollout == "auto", now=stamp()
    )
    host.line.routing = routing
    mine = "the current one" if routing.current == host.code.version else f"current is {routing.current}"
    log.info("app %s: version %s of the code, %s (%s)", host.line.app, host.code.version, mine, routing.because)
