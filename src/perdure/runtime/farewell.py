"""What an executor says when it has closed: what is left unfinished, and of each kind what becomes of it.

Only what rows say now. Whether code to come fits what is stranded, nobody knows before it is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from perdure.model.records import WorkflowRow
from perdure.model.states import Status
from perdure.query.conditions import where
from perdure.runtime.launch import Host
from perdure.runtime.leases import lives

LOOKED_AT = 1000  # of the unfinished: to say what there is, nobody needs them all
OPEN = frozenset(status for status in Status if status.open)


async def farewell(host: Host) -> str:
    """What to say, "" if nothing is unfinished; ``host`` has handed back what it had. Raises ``DatabaseTrouble``."""
    store = host.line.store
    found = await store.list(where(statuses=OPEN), limit=LOOKED_AT)
    if not found.rows:
        return ""
    many = "+" if found.cursor else ""
    count = f"{len(found.rows)}{many} unfinished workflow{'' if len(found.rows) == 1 else 's'}"
    now, me = host.line.clock.now(), host.me.id
    known = await store.incarnations()
    others = {who.version for who in known if who.id != me and who.state == "alive" and lives(who, now)}
    kinds = "; ".join(kinds_of(found.rows, host.code.version, others, many))
    return f"app {store.app} closed with {count}: {kinds}; see: perdure workflow list --status open"


def kinds_of(rows: Sequence[WorkflowRow], mine: str, living: Collection[str], many: str = "") -> Iterator[str]:
    """What becomes of them, kind by kind. ``mine``: the version that closes. ``living``: those that others serve."""
    held = sum(row.status is Status.HELD for row in rows)
    versions = Counter(row.version for row in rows if row.status is not Status.HELD)
    if mine in versions and mine not in living:
        yield f"{versions.pop(mine)}{many} of version {mine}, for the next start of an executor of it"
    if "" in versions:
        yield f"{versions.pop('')}{many} not begun, for {'an executor that is alive' if living else 'any executor'}"
    for version in sorted(versions.keys() & set(living)):
        yield f"{versions.pop(version)}{many} of version {version}, for its executors that are alive"
    for version, count in sorted(versions.items()):
        nobody = "stranded: no executor of it is alive (perdure workflow list --stranded)"
        yield f"{count}{many} of version {version}, {nobody}"
    if held:
        yield f"{held}{many} held, for a person or other code (perdure workflow list --status held)"
