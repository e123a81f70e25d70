"""A store whose values are coded: encrypted or compressed on their way in, plain again on their way out.

Promises, over those of the store below:

- every value and failure passes the codec: inputs, results, errors, messages, events, streams. Names, ids, keys,
  topics, attributes, reasons and fingerprints do not;
- what was stored before the codec was set is read as it stands;
- a value that cannot be decoded comes out as it is stored (``is_coded``), and goes in again so, unharmed: who would
  use it says so; a batch of histories is not lost for one of them;
- a value that the codec cannot encode is ``Unserializable``, and nothing of its batch is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar, cast

import msgspec

from perdure.errors import Unserializable
from perdure.model.acts import Act, ForkIt, RewindIt, SkipIt
from perdure.model.batches import Applied
from perdure.model.ids import RunKey
from perdure.model.orders import Answered, SkipOrder
from perdure.model.problems import ProblemRow, Trouble
from perdure.model.records import Claimed, DecisionRow, Ended, Message, Record, WorkflowRow
from perdure.model.schedules import Reschedule
from perdure.model.streams import StreamAsk, StreamPage
from perdure.model.writes import Change, Close, Continue, Decided, Receipt, Rewind, Start, Unit, Verdict
from perdure.serde.codec import Codec
from perdure.store.asks import ClaimRequest, Fates
from perdure.store.base import Store
from perdure.store.batches import Batches
from perdure.store.lines import Deduplicated, LineClaim, LineRequest
from perdure.store.within import Within

T = TypeVar("T", Record, Message, Ended, ProblemRow)

log = logging.getLogger("perdure")
replaced = msgspec.structs.replace


def coded(store: Store, codec: Codec) -> Store:
    """The same store, its values coded."""
    return cast(Store, CodedStore(store, codec))  # what it does not do itself, it passes on


class CodedStore:
    """See the head of this file."""

    def __init__(self, store: Store, codec: Codec) -> None:
        self._store = store
        self._codec = codec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @property
    def batches(self) -> Batches:
        return cast("Batches", CodedBatches(self._store.batches, self._coded))

    # -- in

    async def commit(self, batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        return await self._store.commit([self._unit(unit) for unit in batch], now=now)

    def within(self, unit: Unit, before: int = 0, *, now: int | None = None) -> Within[Verdict]:
        return self._store.within(self._unit(unit), before, now=now)

    def within_once(self, start: Start, how: Deduplicated, *, now: int | None = None) -> Within[WorkflowRow | None]:
        return self._store.within_once(self._start(start), how, now=now)

    async def replace(self, old: RunKey, next: Start, nonce: bytes, *, now: int | None = None) -> bool:
        return await self._store.replace(old, self._start(next), nonce, now=now)

    async def rewind(self, seen: WorkflowRow, change: Rewind, *, now: int | None = None) -> bool:
        return await self._store.rewind(seen, self._rewind(change), now=now)

    async def skip(self, order: SkipOrder, *, now: int | None = None) -> Answered:
        return await self._store.skip(self._skip(order), now=now)

    async def fork(
        self, source: RunKey, start: Start, mark: Record, *, end: str | None = None, now: int | None = None
    ) -> WorkflowRow | None:
        return await self._store.fork(source, self._start(start), mark, end=end, now=now)

    async def start_once(self, start: Start, how: Deduplicated, *, now: int | None = None) -> WorkflowRow | None:
        return await self._store.start_once(self._start(start), how, now=now)

    async def change_schedule(self, order: Reschedule, *, now: int | None = None) -> bool:
        starts = tuple(self._start(start) for start in order.starts)
        return await self._store.change_schedule(replaced(order, starts=starts), now=now)

    def _coded(self, act: Act) -> Act:
        match act:
            case RewindIt(change=change):
                return replaced(act, change=self._rewind(change))
            case ForkIt(start=start):
                return replaced(act, start=self._start(start))
            case SkipIt(order=order):
                return replaced(act, order=self._skip(order))
            case _:
                return act

    def _skip(self, order: SkipOrder) -> SkipOrder:
        return replaced(order, data=self._codec.encode(order.data))

    def _unit(self, unit: Unit) -> Unit:
        encode = self._codec.encode
        return replaced(
            unit,
            start=None if unit.start is None else self._start(unit.start),
            records=[self._record(record) for record in unit.records],
            events=[replaced(event, data=encode(event.data)) for event in unit.events],
            appends=[a if a.data is None else replaced(a, data=encode(a.data)) for a in unit.appends],
            sends=[replaced(send, data=encode(send.data)) for send in unit.sends],
            children=[self._start(child) for child in unit.children],
            change=self._change(unit.change),
            decision=None if unit.decision is None else self._decided(unit.decision),
            trouble=None if unit.trouble is None else self._trouble(unit.trouble),
        )

    def _trouble(self, trouble: Trouble) -> Trouble:
        encode = self._codec.encode
        told = tuple(one if one.data is None else replaced(one, data=encode(one.data)) for one in trouble.told)
        return replaced(trouble, told=told)

    def _rewind(self, change: Rewind) -> Rewind:
        then = tuple(self._record(record) for record in change.then)
        return replaced(change, next=self._start(change.next), then=then)

    def _start(self, start: Start) -> Start:
        return replaced(start, input=self._codec.encode(start.input))

    def _record(self, record: Record) -> Record:
        if record.data is None or not record.holds_value:
            return record
        return replaced(record, data=self._codec.encode(record.data))

    def _change(self, change: Change | None) -> Change | None:
        match change:
            case Close(data=bytes() as data):
                return replaced(change, data=self._codec.encode(data))
            case Continue(next=start):
                return replaced(change, next=self._start(start))
            case Rewind():
                return self._rewind(change)
            case _:
                return change

    def _decided(self, decided: Decided) -> Decided:
        if decided.parameters is None:
            return decided
        return replaced(decided, parameters=self._codec.encode(decided.parameters))

    # -- out

    async def claim(self, want: ClaimRequest, *, now: int | None = None) -> list[Claimed]:
        return self._claimed(await self._store.claim(want, now=now))

    async def adopt(self, gone: Collection[bytes], want: ClaimRequest, **how: Any) -> list[Claimed]:
        return self._claimed(await self._store.adopt(gone, want, **how))

    async def claim_line(self, want: LineRequest, *, now: int | None = None) -> LineClaim:
        claim = await self._store.claim_line(want, now=now)
        return replaced(claim, claimed=self._claimed(claim.claimed))

    async def reclaim(self, keys: Sequence[RunKey], want: ClaimRequest, *, now: int | None = None) -> list[Claimed]:
        return self._claimed(await self._store.reclaim(keys, want, now=now))

    async def histories(self, keys: Sequence[RunKey]) -> dict[RunKey, list[Record]]:
        found = await self._store.histories(keys)
        return {
            key: [self._with_data(record) if record.holds_value else record for record in records]
            for key, records in found.items()
        }

    async def inbox(self, ids: Collection[str]) -> list[Message]:
        return [self._with_data(message) for message in await self._store.inbox(ids)]

    async def inputs(self, keys: Collection[RunKey]) -> dict[RunKey, bytes]:
        return {key: self._decode(input) for key, input in (await self._store.inputs(keys)).items()}

    async def ended(self, ids: Collection[str]) -> dict[str, Ended]:
        return {id: self._with_data(ended) for id, ended in (await self._store.ended(ids)).items()}

    async def fates(self, ids: Collection[str]) -> Fates:
        found = await self._store.fates(ids)
        return Fates({id: self._with_data(ended) for id, ended in found.ended.items()}, found.gone)

    async def events(self, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        return {key: self._decode(data) for key, data in (await self._store.events(wanted)).items()}

    async def streams(self, asks: Sequence[StreamAsk]) -> list[StreamPage | None]:
        pages = await self._store.streams(asks)
        return [p and replaced(p, values=tuple(self._decode(value) for value in p.values)) for p in pages]

    async def records_after(self, key: RunKey, seq: int, limit: int) -> list[Record]:
        records = await self._store.records_after(key, seq, limit)
        return [self._with_data(record) if record.holds_value else record for record in records]

    async def decisions(self, ids: Collection[str]) -> list[DecisionRow]:
        found = await self._store.decisions(ids)
        return [r if r.parameters is None else replaced(r, parameters=self._decode(r.parameters)) for r in found]

    async def problems(self, ids: Collection[str]) -> list[ProblemRow]:
        return [self._with_data(row) for row in await self._store.problems(ids)]

    def _claimed(self, claimed: list[Claimed]) -> list[Claimed]:
        return [replaced(one, input=self._decode(one.input)) for one in claimed]

    def _with_data(self, of: T) -> T:
        return of if of.data is None else replaced(of, data=self._decode(of.data))

    def _decode(self, data: bytes) -> bytes:
        try:
            return self._codec.decode(data)
        except Unserializable as error:
            log.debug("%s", error, exc_info=error)
            return data


class CodedBatches:
    """Batches whose acts are coded: what begins a run anew carries its input, a skip its result."""

    def __init__(self, batches: Batches, encode: Callable[[Act], Act]) -> None:
        self._batches = batches
        self._encode = encode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    async def apply(self, key: str, owner: bytes, acts: Sequence[Act], *, now: int | None = None) -> Applied:
        return await self._batches.apply(key, owner, [self._encode(act) for act in acts], now=now)
