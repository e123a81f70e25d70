"""Launch: which version of the code this process is, and that it is known.

The version is what was given by hand (``App(version=)``, ``PERDURE_VERSION``), else it is computed from the source of
the workflows. It is never empty: a row that has one belongs to the code that can replay it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import partial
from typing import Protocol

import msgspec

from perdure.client.line import Line
from perdure.client.verbs import patiently
from perdure.definitions import Registry, WorkflowDef
from perdure.errors import ConfigError, DatabaseTrouble
from perdure.model.info import to_datetime
from perdure.model.records import Incarnation
from perdure.model.versions import Routing
from perdure.runtime.leases import lives, provably_gone
from perdure.schemes import stored
from perdure.versions.fingerprint import NoSource, Sources, app_version

log = logging.getLogger("perdure")

COUNTED = 10_000  # workflows of one version, at most: to say that there are many, nobody needs them all


class Code(msgspec.Struct, frozen=True):
    """The code of an app, as this process has it."""

    version: str
    fingerprints: Mapping[str, str]  # of each workflow by name; "" where the source was not to be had
    schemes: Mapping[str, str] = {}  # of each process by name


class Host(Protocol):
    """What a launch needs of an executor."""

    line: Line
    me: Incarnation
    code: Code


def code_of(app: str, registry: Registry, given: str) -> Code:
    """The code of an app; ``given`` is the version by hand, "" for none.

    Raises ``ConfigError`` if the version has to be computed and the source of a workflow is not to be had.
    """
    sources = Sources()
    fingerprints: dict[str, str] = {}
    for name, definition in registry.workflows.items():
        try:
            fingerprints[name] = _fingerprint(sources, definition)
        except NoSource as error:
            if not given:
                raise ConfigError(
                    f"the version of app {app!r} cannot be computed from its code, for workflow {name!r} has no "
                    f"source: {error}. Give the version by hand, another one for each deploy: PERDURE_VERSION=… or "
                    "App(version=…)"
                ) from None
            fingerprints[name] = ""
    processes = {name: d.process.scheme for name, d in registry.workflows.items() if d.process is not None}
    schemes = {name: stored.write(scheme) for name, scheme in processes.items()}
    return Code(given or app_version(fingerprints), fingerprints, schemes)


def _fingerprint(sources: Sources, definition: WorkflowDef) -> str:
    """Of a process: its scheme, and the functions that it names. Raises ``NoSource``."""
    process = definition.process
    if process is None:
        return sources.fingerprint(definition.fn)
    digest = hashlib.sha256(process.scheme.text().encode())
    for name, function in sorted(process.functions.items()):
        digest.update(f"\0{name}\0{sources.fingerprint(function)}".encode())
    return digest.hexdigest()[:32]


async def launch(host: Host) -> None:
    """Register this launch; its version may become the one that new work goes to. Says what there is of others."""
    routing = await register(host)
    mine = "the current one" if routing.current == host.code.version else f"current is {routing.current}"
    log.info("app %s: version %s of the code, %s (%s)", host.line.app, host.code.version, mine, routing.because)


async def register(host: Host) -> Routing:
    """Tell the database of the version that runs here; where new work goes now. Waits out trouble with the database."""
    line, code = host.line, host.code
    known: list[Incarnation] = await patiently(line, line.store.incarnations)
    gone = [who.id for who in known if who.id != host.me.id and provably_gone(who)]
    auto = line.routes.rollout == "auto"
    launched = partial(line.store.launched, auto=auto, now=line.clock.stamp())
    routing: Routing = await patiently(line, launched, code.version, code.fingerprints, [host.me.id, *gone])
    if code.schemes:  # for people, where the code is not; nothing goes by them
        await patiently(line, line.store.note_schemes, code.version, code.schemes)
    line.routes.saw(routing)
    return routing


async def living_versions(host: Host) -> frozenset[str]:
    """The versions that some executor serves, this one's among them."""
    now = host.line.clock.now()
    others = await host.line.store.incarnations()
    return frozenset(who.version for who in others if lives(who, now))


async def say_unfinished(host: Host) -> None:
    """Say what there is of unfinished work of other versions, and whether anybody runs it."""
    try:
        found = [one for one in await host.line.store.unfinished(COUNTED) if one.version != host.code.version]
        living = await living_versions(host) if found else frozenset[str]()
    except DatabaseTrouble as trouble:
        log.info("the database is in trouble, unfinished work of other versions is not counted: %s", trouble)
        return
    for one in found:
        count = f"{one.count}{' or more' if one.count >= COUNTED else ''}"
        oldest = to_datetime(one.oldest).isoformat(timespec="seconds")
        what = f"{count} unfinished workflow{'' if one.count == 1 else 's'} of version {one.version}, oldest {oldest}"
        if one.version in living:
            log.info("app %s has %s; an executor of that version is alive and goes on with them", host.line.app, what)
        else:
            log.warning(
                "app %s has %s; no executor of that version is alive. What cannot go on by itself: perdure workflow "
                "list --stranded; whether it fits this code: perdure replay MODULE:APP",
                host.line.app, what,
            )  # fmt: skip
