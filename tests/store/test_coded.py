"""The coded store, over both dialects: nothing plain below it, the same values above it."""

from __future__ import annotations

import msgspec
import pytest

from perdure.errors import Unserializable
from perdure.model.acts import SkipIt
from perdure.model.batches import NewBatch
from perdure.model.ids import RunKey
from perdure.model.orders import SkipOrder, digest_of
from perdure.model.records import Intent, Kind, Outcome
from perdure.model.states import Status
from perdure.model.writes import Continue, SetEvent
from perdure.query.read import read_query
from perdure.serde.codec import Codec, is_coded
from perdure.store.base import Store
from perdure.store.coded import coded
from tests.store.build import (
    ME,
    OTHER,
    SECOND,
    T,
    close,
    dump,
    history,
    one,
    outside,
    own,
    queued,
    record,
    running,
    send,
    start,
    tok,
    unit,
    want,
)

PLAIN = b'{"card":"4242"}'


def turn(data: bytes) -> bytes:
    return bytes(byte ^ 0xA5 for byte in data)


CODEC = Codec(encode=turn, decode=turn)


def fails(data: bytes) -> bytes:
    raise ValueError("wrong key")


@pytest.fixture
def above(store: Store) -> Store:
    return coded(store, CODEC)


async def test_every_payload_is_coded_below_and_plain_above(store: Store, above: Store) -> None:
    claim = tok("claim")
    intents = (Intent("2", "next", b"fp"),)
    assert (await one(above, own("w", claim, start=start("w", claim, input=PLAIN)))).applied
    await queued(above, "child", input=PLAIN)
    records = [record(1, data=PLAIN, intents=intents), record(2, Kind.CHILD, b"child")]
    more = unit("w", claim, records=records, events=[SetEvent("e", PLAIN)], sends=[send("child", data=PLAIN)])
    assert (await one(above, more)).applied
    assert [claimed.input for claimed in await above.claim(want(), now=T)] == [PLAIN]
    assert [message.data for message in await above.inbox(["child"])] == [PLAIN]
    assert await above.events([("w", "e")]) == {("w", "e"): PLAIN}
    assert await above.inputs([RunKey("w", 1)]) == {RunKey("w", 1): PLAIN}
    kept = await history(above, "w")
    assert [(r.data, r.intents) for r in kept] == [(PLAIN, intents), (b"child", ())]
    assert (await one(above, unit("w", claim, change=msgspec.structs.replace(close(), data=PLAIN)))).applied
    assert (await above.ended(["w"]))["w"].data == PLAIN
    assert "4242" not in repr(await dump(store))
    below = await history(store, "w")
    assert [r.data for r in below] == [CODEC.encode(PLAIN), b"child"], "ids stay as they are"
    assert is_coded((await store.ended(["w"]))["w"].data or b"")


@pytest.mark.usefixtures("serving")
async def test_the_runs_that_follow_are_coded_too(store: Store, above: Store) -> None:
    claim = await running(above, "w")
    change = Continue(start("w", run=2, input=PLAIN), tok("wake"))
    assert (await one(above, unit("w", claim, change=change))).applied
    assert [claimed.input for claimed in await above.claim(want(), now=T)] == [PLAIN]
    claim = await running(above, "x")
    assert (await one(above, unit("x", claim, change=close()))).applied
    assert await above.replace(RunKey("x", 1), start("x", run=2, input=PLAIN), tok("nonce"), now=T)
    assert "4242" not in repr(await dump(store))
    (claimed,) = await above.claim(want(), now=T)
    assert (claimed.row.run, claimed.input) == (2, PLAIN)
    (again,) = await above.reclaim([claimed.row.key], want(), now=T)
    assert again.input == PLAIN
    adopted = await above.adopt([again.row.owner or b""], want(owner=OTHER), now=T + SECOND)
    assert {each.input for each in adopted} == {PLAIN}


async def test_an_error_is_a_value_whatever_it_is_the_outcome_of(store: Store, above: Store) -> None:
    claim = await running(above, "w")
    failed = msgspec.structs.replace(record(1, Kind.CHILD, PLAIN), outcome=Outcome.ERROR)
    assert (await one(above, unit("w", claim, records=[failed]))).applied
    assert "4242" not in repr(await dump(store))
    assert [r.data for r in await history(above, "w")] == [PLAIN]


async def test_plain_rows_are_read_and_unreadable_ones_spoil_no_others(store: Store, above: Store) -> None:
    await queued(store, "before", input=PLAIN)
    await queued(above, "after", input=PLAIN)
    await queued(coded(store, Codec(encode=lambda data: b"?" + data, decode=fails)), "strange", input=PLAIN)
    keys = [RunKey(id, 1) for id in ("before", "after", "strange")]
    found = await above.inputs(keys)
    assert [found[key] for key in keys[:2]] == [PLAIN, PLAIN]
    assert is_coded(found[keys[2]])
    assert found[keys[2]] == (await store.inputs(keys))[keys[2]], "as it is stored"


async def test_what_cannot_be_encoded_writes_nothing(store: Store) -> None:
    above = coded(store, Codec(encode=fails, decode=fails))
    with pytest.raises(Unserializable, match="could not encode"):
        await one(above, outside(children=[start("a"), start("b")]))
    assert await store.rows(["a", "b"]) == {}


async def test_all_else_is_the_store_below(store: Store, above: Store) -> None:
    await queued(above, "w")
    assert above.app == store.app
    row = await above.cancel("w", "not wanted", tok("nonce"), now=T)
    assert row is not None
    assert row.status is Status.CANCELLED


async def test_a_result_that_skips_a_step_is_coded_by_hand_and_in_a_batch(store: Store, above: Store) -> None:
    claim = await running(above, "w", "v")
    for id in ("w", "v"):
        assert (await one(above, unit(id, claim, records=[record(1, intents=(Intent("2", "charge", b"fp"),))]))).applied
    orders = [
        SkipOrder(id=id, step="charge", data=PLAIN, digest=digest_of(PLAIN), nonce=tok("skip"), shown="", at=T)
        for id in ("w", "v")
    ]
    await above.skip(orders[0], now=T)
    new = NewBatch(
        key="k", verb="skip", options=b"{}", query="id = v", by="ann", reason="why", rate=None, owner=ME, nonce=tok("b")
    )
    await above.batches.create(new, read_query("id = v", "app", use="set"), now=T)
    await above.batches.apply("k", ME, [SkipIt(id="v", run=1, nonce=tok("act"), order=orders[1])], now=T + 1)
    for id in ("w", "v"):
        assert [(await history(each, id))[-1].data for each in (above, store)] == [PLAIN, CODEC.encode(PLAIN)]
