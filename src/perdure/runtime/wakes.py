"""Wakes of what runs here: mail, ends and events of others, commands to cancel and to pause.

A wake row goes only with the record of what it was about: until then it is what finds the workflow again, should it be
evicted or crash meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from perdure.client.line import Line
from perdure.client.questions import EventOf, ResultOf
from perdure.model.records import Wake
from perdure.runtime.execution import Execution
from perdure.runtime.pausing import Pausing
from perdure.runtime.post import Post
from perdure.store.asks import Poll


class Host(Protocol):
    """What acting on wakes needs of an executor."""

    line: Line
    executions: dict[str, Execution]
    post: Post


class Window:
    """Which of an app's wakes are looked at: a bounded number, from where the look before has ended, and round again.

    So a look costs the same however many there are, and whosever they are, and a turn of looks sees them all.
    """

    def __init__(self) -> None:
        self.after = ""

    def moved(self, poll: Poll, *, stays: bool) -> bool:
        """Move on unless it ``stays``, since not all in it was claimed; whether to look again at once."""
        if not stays:
            self.after = poll.after
        return stays or bool(self.after)


async def take_wakes(host: Host, wakes: Iterable[Wake]) -> None:
    """Act on each once: read what it may be about, hand it over, then let the row go with what was recorded."""
    acted: dict[str, list[bytes]] = {}
    for wake in wakes:
        execution = host.executions.get(wake.dest)
        if execution is None or execution.gone or wake.nonce in execution.woken:
            continue
        if wake.cancel is not None:
            execution.own("woken")[wake.nonce] = None
            execution.cancel(wake.cancel, nonce=wake.nonce)
        else:
            if wake.pause is not None and isinstance(execution, Pausing):
                execution.pause(wake.pause)
            acted.setdefault(wake.dest, []).append(wake.nonce)
    # Once for each, not for each wake: one who waits for thousands gets thousands.
    acted = {id: nonces for id, nonces in acted.items() if id in host.executions and not _looks(host.executions[id])}
    if acted:
        # Of children that end here one after the other, a parent of thousands would ask for all that it waits for.
        unheard = [id for id, nonces in acted.items() if not host.executions[id].heard.keys() >= set(nonces)]
        if unheard:
            await _tell_ends(host, {id: acted[id] for id in unheard})
            await host.post.woken(unheard)
        # Only now: trouble with those reads leaves the wakes to the next look.
        _let_go(host, acted)


def _looks(execution: Execution) -> bool:
    """Whether a wait of it is about to begin: it looks, and of what happens meanwhile it cannot be told yet.

    Its wakes stay for the next look. Let go now, they would be missing if it is put away as soon as its wait begins.
    """
    return any(
        isinstance(op.what, (ResultOf, EventOf)) and op.begun and op.path not in execution.waiting
        for op in execution.run.asked.values()
    )


def _let_go(host: Host, acted: Mapping[str, list[bytes]]) -> None:
    """In line behind what was just told: deliveries come first."""
    for id, nonces in acted.items():
        execution = host.executions.get(id)
        if execution is not None:
            execution.own("woken").update(dict.fromkeys(nonces))
            for nonce in execution.heard.keys() & nonces:
                del execution.own("heard")[nonce]
            host.line.loop.call_soon(execution.acted_on, nonces)


async def _tell_ends(host: Host, acted: Mapping[str, Collection[bytes]]) -> None:
    """Tell these executions what they wait for of other workflows, as far as it has happened.

    A wake that says whose end it is about is about nothing else.
    """
    whose = {nonce: host.line.watcher.whose_end(nonce) for nonces in acted.values() for nonce in nonces}
    ids = [id for id, nonces in acted.items() if any(whose[nonce] is None for nonce in nonces)]
    waits = [op.what for id in ids if id in host.executions for op in host.executions[id].waiting.values()]
    targets = {what.id for what in waits if isinstance(what, ResultOf)}
    targets |= {child for child in whose.values() if child is not None}
    events = [(what.id, what.name) for what in waits if isinstance(what, EventOf)]
    if events:
        for key, data in (await host.line.store.events(events)).items():
            host.line.watcher.tell_event(*key, data)
    if targets or events:
        for ended in (await host.line.store.ended(targets | {id for id, _ in events})).values():
            host.line.watcher.tell_end(ended)
