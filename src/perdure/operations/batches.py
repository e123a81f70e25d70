"""Batches: ordered, carried out chunk by chunk, cancelled, retried. See docs/internals/batches.md.

Promise: whatever dies wherever, each target is acted on once; who orders the same again is answered with what there is.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NoReturn

import msgspec

from perdure.errors import BatchConflict, BatchNotFound, ConfigError
from perdure.model.acts import Act, Leave
from perdure.model.batches import CHUNK_SHARE, Ask, BatchRow, BatchState, Fate, NewBatch, TargetRow
from perdure.model.ids import TokenMaker
from perdure.model.verbs import Verb, options_of, read_verb
from perdure.operations.look import Order
from perdure.operations.resume import Check
from perdure.operations.targets import acts_of, check_verb
from perdure.query.conditions import Query
from perdure.query.read import read_query
from perdure.store.base import Store

KEY_MAX = 200  # characters
LOOKS_MAX = 5  # at a target that is another each time
LOOK_SECONDS = 0.05  # before a target is looked at again
WAIT_SECONDS = 1.0  # of one step, at most: for the rate, or for who carries it out

Sleep = Callable[[float], Awaitable[None]]


# -- ordering


def batch_query(text: str, app: str) -> Query:
    """The targets that a text names. Raises ``QueryError``, and ``ConfigError`` for none at all."""
    if not text.strip():
        raise ConfigError("a batch takes a query, such as 'status = failed AND version = v2'; all: 'id IS NOT NULL'")
    return read_query(text, app, use="set")


def batch_key(verb: Verb, text: str, reason: str) -> str:
    """The key of an order that gives none: the same for the same verb, options, query and reason.

    >>> from perdure.model.verbs import Cancel
    >>> batch_key(Cancel(), "status = open", "over")
    'cancel-585bc4b1066e'
    """
    said = msgspec.json.encode([verb.name, options_of(verb).decode(), text.strip(), reason])
    return f"{verb.name}-{hashlib.sha256(said).hexdigest()[:12]}"


def check_key(key: object) -> str:
    """A key of a caller's: 1 to 200 printable characters. Raises ``ConfigError`` showing it."""
    if isinstance(key, str) and 0 < len(key) <= KEY_MAX and key.isprintable():
        return key
    raise ConfigError(f"{key!r} is no key of a batch: give 1 to {KEY_MAX} printable characters")


def check_rate(rate: object) -> float | None:
    """So many a second, more than none; None: as fast as it goes. Raises ``ConfigError`` showing it."""
    if rate is None:
        return None
    if isinstance(rate, int | float) and not isinstance(rate, bool) and math.isfinite(rate) and rate > 0:
        return float(rate)
    raise ConfigError(f"rate={rate!r} is no rate: give workflows a second, such as 100 or 0.5")


def check_reason(reason: object) -> str:
    """Why, in words. Raises ``ConfigError`` for none."""
    if isinstance(reason, str) and reason.strip():
        return reason
    raise ConfigError("a batch takes a reason: it is kept with the batch, in the audit, and with each workflow")


class BatchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a person orders."""

    verb: Verb
    query: str
    order: Order
    key: str | None = None
    rate: float | None = None
    again: bool = False  # another one, though the key is taken

    @property
    def base(self) -> str:
        """Its key, or with ``again`` how it begins."""
        return batch_key(self.verb, self.query, self.order.reason) if self.key is None else self.key


async def create(store: Store, order: BatchOrder, token: TokenMaker, owner: bytes) -> tuple[BatchRow, bool]:
    """Freeze what the query names; or the batch that was ordered by the same words before, and whether it is new.

    Raises ``QueryError``, ``ConfigError``, ``BatchConflict``, ``VersionNotFound``.
    """
    query = batch_query(order.query, store.app)
    key, number = order.base, 1
    while True:
        new = NewBatch(
            key=key, verb=order.verb.name, options=options_of(order.verb), query=order.query.strip(), by=order.order.by,
            reason=order.order.reason, rate=order.rate, owner=owner, nonce=token(),
        )  # fmt: skip
        there = await store.batches.get(key)
        if there is None:
            await check_verb(store, order.verb)  # what was ordered is answered, whatever was deleted since
        if not order.again or there is None:
            row, made = await store.batches.create(new, query)
            if made or not order.again:
                if not new.same(row):
                    _refuse_key(new, row)
                return row, made
        number += 1
        key = f"{order.base}-{number}"


def _refuse_key(new: NewBatch, row: BatchRow) -> NoReturn:
    raise BatchConflict(
        f"the key {row.key!r} is that of the batch {shown(row)}; this one is {shown(new)}. Give another --key"
    )


def shown(row: BatchRow | NewBatch) -> str:
    """What a batch does, for people."""
    options = {name: value for name, value in msgspec.json.decode(row.options).items() if value not in (None, False)}
    with_ = "".join(f" {name}={value}" for name, value in options.items())
    return f"{row.verb}{with_}: {row.query}"


# -- orders about a batch


def not_found(key: str, app: str) -> BatchNotFound:
    return BatchNotFound(f"app {app!r} has no batch {key!r}; see: perdure batch list")


async def find(store: Store, key: str) -> BatchRow:
    """The batch. Raises ``BatchNotFound``."""
    row = await store.batches.get(key)
    if row is None:
        raise not_found(key, store.app)
    return row


async def cancel(store: Store, key: str, order: Order, token: TokenMaker) -> BatchRow:
    """Act on no more targets: final. Done already, it stays done. Raises ``BatchNotFound``."""
    ask = Ask(kind="cancel", by=order.by, reason=order.reason, owner=b"", nonce=token())
    return await _changed(store, key, ask)


async def take(store: Store, key: str, order: Order, token: TokenMaker, owner: bytes) -> BatchRow:
    """Carry it out from here on, whoever did. Raises ``BatchNotFound``, ``BatchConflict`` if it was cancelled."""
    return await _taken(store, key, Ask(kind="take", by=order.by, reason=order.reason, owner=owner, nonce=token()))


async def retry(store: Store, key: str, order: Order, token: TokenMaker, owner: bytes) -> BatchRow:
    """Put all that has failed back. Raises ``BatchNotFound``, ``BatchConflict`` if it was cancelled."""
    return await _taken(store, key, Ask(kind="retry", by=order.by, reason=order.reason, owner=owner, nonce=token()))


async def _taken(store: Store, key: str, ask: Ask) -> BatchRow:
    row = await _changed(store, key, ask)
    if row.state is BatchState.CANCELLED:
        raise BatchConflict(
            f"batch {key!r} was cancelled with {row.waiting} left, which is final. For those that its query still "
            f"names, order it anew: perdure batch apply {row.verb} … --again"
        )
    return row


async def _changed(store: Store, key: str, ask: Ask) -> BatchRow:
    row = await store.batches.change(key, ask)
    if row is None:
        raise not_found(key, store.app)
    return row


# -- carrying out


class Work:
    """A batch in the hands of this process, as long as no other has taken it over."""

    def __init__(
        self, store: Store, row: BatchRow, owner: bytes, token: TokenMaker, *, check: Check | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:  # fmt: skip
        self.row = row
        self._store = store
        self._owner = owner
        self._token = token
        self._check = check
        self._sleep = sleep
        self._verb = read_verb(row.verb, row.options)
        self._order = Order(by=row.by, reason=row.reason)
        self._after = ""
        self._looks: Counter[str] = Counter()
        self._now: int | None = None  # of the database, as of the latest chunk

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of the batch."""
        return self.row.state is not BatchState.RUNNING

    async def step(self) -> BatchRow:
        """A chunk; or a moment's wait, for the rate or for the process that carries it out. The batch afterwards."""
        if self.finished:
            return self.row
        if self.row.owner not in (None, self._owner):
            return await self._follow()
        if self._now is not None and (left := self.row.next - self._now) > 0:
            self._now += await self._rest(left)
            return self.row
        targets = await self._next()
        if not targets:  # another has settled the last of them
            self.row = await find(self._store, self.row.key)
            return self.row
        acts = await acts_of(self._store, self._verb, targets, self._order, self._token, self._check, self.row.key)
        before = self.row
        applied = await self._store.batches.apply(self.row.key, self._owner, [self._patient(act) for act in acts])
        if applied.batch is None:
            raise not_found(self.row.key, self._store.app)
        self.row, self._now = applied.batch, applied.now
        if applied.mine:
            self._looks.update(applied.again)
            if self.row.next <= applied.now or self.row.waiting < before.waiting:
                self._after = targets[-1].id
            if applied.again and self.row.waiting == before.waiting:
                await self._sleep(LOOK_SECONDS)
        return self.row

    async def _next(self) -> list[TargetRow]:
        """Waiting ones in the order of ids; those that were not as seen come in the next round."""
        for after in dict.fromkeys((self._after, "")):
            found = await self._store.batches.targets(self.row.key, Fate.WAITING, after, self._size)
            if found:
                return found
        return []

    @property
    def _size(self) -> int:
        rate = self.row.rate
        return self._verb.chunk if rate is None else min(self._verb.chunk, max(1, int(rate / CHUNK_SHARE)))

    def _patient(self, act: Act) -> Act:
        """The act; after so many looks at a target that was another each time, it has failed."""
        if self._looks[act.id] < LOOKS_MAX:
            return act
        why = f"it was another each of the {LOOKS_MAX} times that it was looked at: it is hard at work; retry later"
        return Leave(id=act.id, run=act.run, nonce=act.nonce, fate=Fate.FAILED, detail=why)

    async def _follow(self) -> BatchRow:
        """Another process is at it: look on, until nothing has been heard of it for its time."""
        self.row = await find(self._store, self.row.key)
        if not self.finished and self.row.owner not in (None, self._owner):
            now = (await self._store.poll(None, None)).now
            if self.row.until > now:
                await self._rest(self.row.until - now)
                return self.row
            self.row = msgspec.structs.replace(self.row, owner=None)  # nobody's: the next chunk is ours
        return self.row

    async def _rest(self, left: int) -> int:
        wait = min(left / 1e6, WAIT_SECONDS)
        await self._sleep(wait)
        return math.ceil(wait * 1e6)
