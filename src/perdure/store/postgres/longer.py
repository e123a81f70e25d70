"""The longer way of a commit: several statements in one transaction, for what one statement cannot do soundly.

- a row named twice in a batch, or started and written in it: the batch goes in *waves* that name each row once;
- a first unit that also starts children: they must not exist if its own start does not take;
- closing or setting events of a watched run: its watchers are read by a statement begun after its row was locked;
- parking while watching others: their rows are locked and marked first, so that whoever closes one of them either has
  done so before (then the waiter is woken here) or will see the watch;
- the end of a run that does not know all children of its workflow: they are read after its row was locked, when nobody
  starts more;
- a run that continues as the next, or goes on from records of its own as the next: two rows of the same id;
- what a recovery policy decided, with its effect;
- what a run tells of its problems;
- children that a run gives up on, which the same unit may have begun.

All rows are locked by the first statement in id order. Equally fenced, equally safe to repeat. The waves do not show:
mail reaches whom it would have reached before the first of them, or who was begun since; and of taken ids the rows are
shown as the last left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.model.ids import RunKey
from perdure.model.states import CLOSED, CODE, FIRST_CLOSED, Status
from perdure.model.writes import Close, Continue, Delete, Onward, Park, Receipt, Release, Rewind, Unit, Verdict
from perdure.store.postgres import decisions, problems, reads, streams
from perdure.store.postgres.columns import Columns
from perdure.store.postgres.commit import Place, fenced_in, finish, read_rows, write
from perdure.store.postgres.connection import Link, Transaction
from perdure.store.postgres.next import go_on, rewind
from perdure.store.postgres.trouble import sqlstate


def record_is_taken(error: BaseException) -> bool:
    """Whether a record could not be written because another write put one there: its nonce came out null."""
    return sqlstate(error) == "23502" and getattr(error, "table_name", "") == "history"


PARKED = frozenset(CODE[status] for status in (Status.WAITING, *CLOSED))


class Longer:
    """One batch on its way."""

    def __init__(self, link: Link, place: Place, now: int | None) -> None:
        self.link = link
        self.place = place
        self.now = now
        self.stamp = 0
        self.locked: dict[str, Any] = {}  # the batch's own rows as they were before it, and those that it watches
        self.begun: set[str] = set()  # runs that an earlier statement of this batch has started
        self.news: set[str] = set()  # runs whose events this batch changes
        self.verdicts: dict[int, Verdict] = {}
        self.forgotten: dict[str, bytes] = {}  # by whose unit: to be deleted when all else of the batch is done

    async def commit(self, batch: Sequence[Unit], *, doubtful: bool, unproven: Sequence[Unit] = ()) -> Receipt:
        """``doubtful``: some record was found taken, so units whose records are another's are refused first.

        ``unproven``: of these, those whose run is ahead of its history are refused.
        """
        async with self.link.transaction() as tx:
            await self._lock(tx, batch)
            if doubtful:
                await self._refuse(tx, batch)
            if unproven:
                await self._prove(tx, batch, unproven)
            await self._recognise_deleted(tx, batch)
            await self._look_for_news(tx, batch)
            waiting = [(n, unit) for n, unit in enumerate(batch) if n not in self.verdicts]
            while waiting:
                wave, waiting = _wave(waiting)
                await self._write(tx, wave)
            await self._watch(tx, batch)
            await problems.write(
                tx, self.place, [u for n, u in enumerate(batch) if self.verdicts[n].applied], self.stamp
            )
            await self._show(tx)
            for id, nonce in sorted(self.forgotten.items()):
                await decisions.forget(tx, self.place, id, nonce)
        return Receipt(self.stamp, [self.verdicts[n] for n in range(len(batch))])

    async def _lock(self, tx: Transaction, batch: Sequence[Unit]) -> None:
        ids: set[str] = set()
        for unit in batch:
            if unit.start is not None or unit.claim is not None:
                ids.add(unit.key.id)
            if isinstance(unit.change, Park):
                ids.update(unit.change.watching)
        for row in await tx.fetch(self.place.sql["lock"], self.place.app, sorted(ids)):
            self.locked[row["id"]] = row
        self.stamp = self.now if self.now is not None else (await tx.fetchrow(self.place.sql["clock"]))[0]

    async def _refuse(self, tx: Transaction, batch: Sequence[Unit]) -> None:
        """Refuse the units whose records another unit wrote; their rows are locked, so nobody writes more.

        Not those that begin their run: their records fall with their start, which tells who has the id.
        """
        mine = [(n, unit.key, r.seq) for n, unit in enumerate(batch) if unit.start is None for r in unit.records]
        ids, runs, seqs = [key.id for _, key, _ in mine], [key.run for _, key, _ in mine], [seq for _, _, seq in mine]
        for row in await tx.fetch(self.place.sql["history_nonces"], self.place.app, ids, runs, seqs):
            nth: int = row[0]
            n = mine[nth - 1][0]
            if row[1] != batch[n].nonce:
                self.verdicts[n] = Verdict(applied=False)

    async def _prove(self, tx: Transaction, batch: Sequence[Unit], unproven: Sequence[Unit]) -> None:
        """Refuse the units of runs that remember more than the server has of them (``timeline.py``)."""
        ids, runs = [unit.key.id for unit in unproven], [unit.key.run for unit in unproven]
        ends = {row[0]: row[1] for row in await tx.fetch(self.place.sql["history_ends"], self.place.app, ids, runs)}
        for nth, unit in enumerate(unproven, 1):
            if ends.get(nth, 0) < unit.after:
                self.verdicts[batch.index(unit)] = Verdict(applied=False)

    async def _recognise_deleted(self, tx: Transaction, batch: Sequence[Unit]) -> None:
        """A unit whose first try has deleted its workflow stands, though nothing is there to fence it."""
        for n, unit in enumerate(batch):
            if isinstance(unit.change, Delete) and n not in self.verdicts:
                row = self.locked.get(unit.key.id)
                lost = row is None or (row["claim"], row["run"]) != (unit.claim, unit.key.run)
                if lost and await decisions.deleted(tx, self.place, unit.key, unit.claim):
                    self.verdicts[n] = Verdict(applied=True)

    async def _look_for_news(self, tx: Transaction, batch: Sequence[Unit]) -> None:
        """See whose events or streams will change: a second try of what set them has nothing to tell."""
        values = {(unit.key.id, event.name): event.data.decode() for unit in batch for event in unit.events}
        if values:
            ids, names = zip(*values, strict=True)
            found = await tx.fetch(self.place.sql["events"], self.place.app, ids, names)
            had = {(id, name): data for id, name, data in found}
            self.news = {key[0] for key, data in values.items() if had.get(key) != data}
        self.news |= await streams.who_wrote(tx, self.place, batch)

    def _as_it_was(self, unit: Unit) -> Unit:
        """A unit whose mail arrives at runs that this batch found open or has begun, whichever wave may close them."""

        def open(dest: str) -> bool:
            row = self.locked.get(dest)
            return dest in self.begun or (row is not None and row["status"] < FIRST_CLOSED)

        sends = [msgspec.structs.replace(s, known=True) if open(s.dest) else s for s in unit.sends]
        return msgspec.structs.replace(unit, sends=sends) if sends else unit

    async def _write(self, tx: Transaction, wave: list[tuple[int, Unit]]) -> None:
        """Units that name each row once: the statement of the straight way, then what it leaves out."""
        left: list[tuple[int, Unit, Unit]] = []
        for n, unit in wave:
            if self._has_continued(unit):
                self.verdicts[n] = await self._second_try(tx, unit)
            else:
                left.append((n, unit, _plain(self._as_it_was(unit))))
        while left:
            columns = Columns([u for _, _, u in left]).silent()
            written = await write(tx, self.place, columns, self.stamp, watchers_seen=True)
            if not written.refused:
                break
            for n, _, unit in left:
                if fenced_in(unit, written.refused):
                    self.verdicts[n] = Verdict(applied=False)
            left = [item for item in left if item[0] not in self.verdicts]
        else:
            return
        for n, _, _ in left:
            self.verdicts[n] = Verdict(applied=True)
        await finish(tx, self.place, [(u, self.verdicts[n]) for n, _, u in left], written)
        await self._expire_later(tx, [u for _, _, u in left])
        stand = [(n, unit) for n, unit, _ in left if self.verdicts[n].applied]
        self.begun |= {unit.key.id for _, unit in stand if unit.start is not None} - self.locked.keys()
        await self._tell_watchers(tx, [unit for _, unit in stand])
        await self._decide(tx, [unit for _, unit in stand if unit.decision is not None])
        await self._go_on(tx, [unit for _, unit in stand if isinstance(unit.change, Onward)])
        await self._tell_children(tx, [unit for _, unit in stand])
        found = [(unit.key.id, unit.change.attributes) for _, unit in stand if isinstance(unit.change, Close)]
        told = [(self.place.app, id, data.decode()) for id, data in found if data is not None]
        if told:
            await tx.fetch_many(self.place.sql["workflow_attributes"], told)
        for n, unit in stand:
            if isinstance(unit.change, Release) and unit.change.anew:
                await tx.fetch(self.place.sql["workflow_anew"], self.place.app, unit.key.id)
            if unit.start is not None and unit.children:
                await self._children(tx, unit, self.verdicts[n])
            for child in unit.given_up:
                given = (self.place.app, child.child, child.wake, child.reason, unit.key.id)
                await tx.fetch(self.place.sql["wake_child"], *given)

    def _has_continued(self, unit: Unit) -> bool:
        """Whether a first try of this unit has begun the next run."""
        row = self.locked.get(unit.key.id)
        if row is None or not isinstance(unit.change, Onward):
            return False
        following = unit.change.next
        return bool(row["run"] == following.run and row["nonce"] == following.nonce)

    async def _second_try(self, tx: Transaction, unit: Unit) -> Verdict:
        """The verdict of a unit that has continued its run by a first try: it stands unless another holds the next."""
        assert isinstance(unit.change, Onward)
        claim = unit.change.next.claim
        verdict = Verdict(applied=claim in (None, self.locked[unit.key.id]["claim"]))
        if verdict.applied and (unit.children or unit.sends):
            await self._children(tx, unit, verdict)  # as good as written: this says what became of them
        return verdict

    async def _show(self, tx: Transaction) -> None:
        """Show the rows that have the taken ids as the whole batch left them."""
        shown = [verdict for verdict in self.verdicts.values() if verdict.exists]
        rows = await read_rows(tx, self.place, [id for verdict in shown for id in verdict.exists])
        for verdict in shown:
            verdict.exists = {id: rows.get(id, row) for id, row in verdict.exists.items()}

    async def _children(self, tx: Transaction, unit: Unit, verdict: Verdict) -> None:
        """A unit's children, and its mail, which may be for them, once the rest of it stands."""
        sends = self._as_it_was(unit).sends
        later = Unit(key=unit.key, nonce=unit.nonce, version=unit.version, children=unit.children, sends=sends)
        written = await write(tx, self.place, Columns([later]), self.stamp, watchers_seen=True)
        await finish(tx, self.place, [(later, verdict)], written)
        await self._expire_later(tx, [later])
        if isinstance(unit.change, Close) and unit.key.id not in self.locked:  # else a first try did this
            own = {child.id for child in unit.children if child.parent == unit.key.id}
            for child in sorted(own & set(unit.change.children) - set(verdict.exists)):
                await tx.fetch(self.place.sql["wake_one"], self.place.app, child, unit.change.wake, "")

    async def _expire_later(self, tx: Transaction, units: Sequence[Unit]) -> None:
        """Remember when those of the new ones that may stand in line for so long only have stood there too long."""
        starts = [s for unit in units for s in (unit.start, *unit.children) if s is not None and s.expires is not None]
        if starts:
            await tx.fetch(self.place.sql["expiry_insert"], self.place.app, sorted({s.id for s in starts}))

    async def _tell_children(self, tx: Transaction, units: Sequence[Unit]) -> None:
        """Cancel what a workflow leaves open whose end does not name all of it."""
        told = {
            unit.key.id: unit.change.wake
            for unit in units
            if isinstance(unit.change, Close) and unit.change.family and not self._has_closed(unit)
        }
        if told:
            await tx.fetch(self.place.sql["wake_children"], self.place.app, list(told), list(told.values()))

    async def _tell_watchers(self, tx: Transaction, units: Sequence[Unit]) -> None:
        """Wake who watches a run that has closed, continued or set an event."""
        told: dict[str, bytes] = {}
        for unit in units:
            if self._has_closed(unit):
                continue  # a first try has told them
            news = unit.nonce if unit.key.id in self.news else None
            nonce = unit.change.wake if isinstance(unit.change, Close | Onward) else news
            if nonce is not None:
                told[unit.key.id] = nonce
        if told:
            await tx.fetch(self.place.sql["wake_watchers"], self.place.app, list(told), list(told.values()))

    def _has_closed(self, unit: Unit) -> bool:
        """Whether a first try of a unit has closed its run."""
        row = self.locked.get(unit.key.id)
        return row is not None and row["status"] >= FIRST_CLOSED

    async def _watch(self, tx: Transaction, batch: Sequence[Unit]) -> None:
        """Write down who waits for whom, now that the rows watched are locked, and wake who would wait in vain."""
        pairs: list[tuple[str, str, bytes]] = []
        parked: list[tuple[Unit, Park]] = []
        for n, unit in enumerate(batch):
            if isinstance(unit.change, Park) and self.verdicts[n].applied:
                row = self.locked.get(unit.key.id)
                if row is None or row["status"] not in PARKED:  # else a first try did all this
                    pairs += [(target, unit.key.id, unit.nonce) for target in unit.change.watching]
                    parked.append((unit, unit.change))
        if pairs:
            sql, app = self.place.sql, self.place.app
            targets, waiters, nonces = zip(*sorted(pairs), strict=True)
            await tx.fetch(sql["watch_insert"], app, targets, waiters)
            for target in sorted(set(targets)):
                await tx.fetch(sql["watch_mark"], app, target)
            await tx.fetch(sql["watch_missed"], app, targets, waiters, nonces)
            await self._look_again(tx, parked)

    async def _look_again(self, tx: Transaction, parked: Sequence[tuple[Unit, Park]]) -> None:
        """Wake those for whom there is by now what they have looked for in vain."""
        there = await reads.events(tx, self.place, {event for _, park in parked for event in park.events})
        asks = list(dict.fromkeys(ask for _, park in parked for ask in park.reads))
        pages = dict(zip(asks, await streams.streams(tx, self.place, asks), strict=True))
        for unit, park in parked:
            found = (pages[ask] for ask in park.reads)
            if not there.keys().isdisjoint(park.events) or any(page is not None and page.news for page in found):
                await tx.fetch(self.place.sql["wake_one"], self.place.app, unit.key.id, unit.nonce, None)

    async def _decide(self, tx: Transaction, units: Sequence[Unit]) -> None:
        """Write down decisions, and what of their effects the one statement cannot do."""
        if units:
            await decisions.put_all(tx, self.place, units, self.stamp)
        for unit in units:
            match unit.change:
                case Release(version=str() as version):
                    await tx.fetch(self.place.sql["workflow_moved"], self.place.app, unit.key.id, version)
                case Delete(others=others):
                    if others:  # whoever works on them waits, and is then refused
                        await tx.fetch(self.place.sql["lock"], self.place.app, sorted(others))
                    self.forgotten |= dict.fromkeys((unit.key.id, *others), unit.nonce)
                case _:
                    pass

    async def _go_on(self, tx: Transaction, units: Sequence[Unit]) -> None:
        """Put the ended runs away and begin the next in their rows."""
        continued: list[tuple[RunKey, Continue]] = []
        for unit in units:
            if self._has_closed(unit):
                continue
            if isinstance(unit.change, Rewind):
                await rewind(tx, self.place, unit.key, unit.change, self.stamp)
            elif isinstance(unit.change, Continue):
                continued.append((unit.key, unit.change))
        if continued:
            await go_on(tx, self.place, continued, self.stamp)


def _plain(unit: Unit) -> Unit:
    """What of a unit the one statement can carry."""
    if isinstance(unit.change, Onward | Delete):
        unit = msgspec.structs.replace(unit, change=None)
    elif isinstance(unit.change, Park) and unit.change.watching:
        unit = msgspec.structs.replace(unit, change=msgspec.structs.replace(unit.change, watching=()))
    if unit.start is not None and unit.children:
        unit = msgspec.structs.replace(unit, children=[], sends=[])
    return unit


def _wave(waiting: list[tuple[int, Unit]]) -> tuple[list[tuple[int, Unit]], list[tuple[int, Unit]]]:
    """The units that can go together, each row named once and no run written before its start; and the others."""
    begun = {unit.start.id: n for n, unit in waiting if unit.start is not None}
    begun.update({child.id: n for n, unit in waiting for child in unit.children})
    wave: list[tuple[int, Unit]] = []
    others: list[tuple[int, Unit]] = []
    used: set[str] = set()
    for n, unit in waiting:
        names = [child.id for child in unit.children]
        outside = unit.start is None and unit.claim is None
        if not outside:
            names.append(unit.key.id)
        early = unit.start is None and not outside and begun.get(unit.key.id, n) != n
        if early or len(set(names)) < len(names) or not used.isdisjoint(names):
            others.append((n, unit))
        else:
            wave.append((n, unit))
            used.update(names)
    if not wave:  # two starts of one id in one unit, or a ring: one at a time
        return [waiting[0]], waiting[1:]
    return wave, others
