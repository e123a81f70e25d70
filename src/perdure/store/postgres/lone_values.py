"""One unit as the plain parameters of a lone statement, by the names that the SQL gives them."""

from __future__ import annotations

from typing import Any

from perdure.model.records import Record
from perdure.model.states import CODE, VERSIONING
from perdure.model.writes import Close, Send, Start, Unit
from perdure.store.postgres.rows import pack_intents


def of_run(unit: Unit) -> dict[str, Any]:
    """The records of a run, what came with them, and its end."""
    values: dict[str, Any] = {
        "id": unit.key.id,
        "run": unit.key.run,
        "claim": unit.claim,
        "h_version": unit.version,
        "h_nonce": unit.nonce,
        "r_mid": None,
        "r_seq": None,
        "d_nonce": unit.woken[0] if unit.woken else None,
        "e_name": None,
        "e_data": None,
    }
    for prefix, record in zip("hg", unit.records, strict=False):
        values |= _of_record(prefix, record)
    if unit.taken:
        ((values["r_mid"], values["r_seq"]),) = unit.taken
    if unit.events:
        values |= {"e_name": unit.events[0].name, "e_data": unit.events[0].data.decode()}
    end = unit.change
    if isinstance(end, Close):
        output = None if end.data is None else end.data.decode()
        last = unit.records[-1].seq
        values |= {"c_status": CODE[end.status], "c_outcome": end.outcome, "c_output": output, "c_last": last}
    return values


def _of_record(prefix: str, r: Record) -> dict[str, Any]:
    return {
        prefix + "_seq": r.seq,
        prefix + "_path": r.path,
        prefix + "_kind": r.kind,
        prefix + "_name": r.name,
        prefix + "_at": r.at,
        prefix + "_fingerprint": r.fingerprint,
        prefix + "_outcome": r.outcome,
        prefix + "_data": None if r.data is None else r.data.decode(),
        prefix + "_attempt": r.attempt,
        prefix + "_shown": r.shown,
        prefix + "_intents": pack_intents(r.intents),
    }


def of_start(s: Start) -> dict[str, Any]:
    """A new workflow, held from the first moment or by nobody."""
    held = s.claim is not None
    return {
        "s_id": s.id,
        "s_run": s.run,
        "s_lineage": s.lineage,
        "s_name": s.name,
        "s_version": s.version,
        "s_status": CODE[s.status],
        "s_claim": s.claim,
        "s_owner": s.owner if held else None,
        "s_until": None if held else s.until,
        "s_delay": None if held else s.delay,
        "s_timeout": s.timeout,
        "s_deadline": s.deadline,
        "s_began": s.began,
        "s_parent": s.parent,
        "s_parent_run": s.parent_run,
        "s_parent_path": s.parent_path,
        "s_on_close": s.on_parent_close,
        "s_queue": s.queue,
        "s_priority": s.priority,
        "s_fingerprint": s.fingerprint,
        "s_attributes": None if s.attributes is None else s.attributes.decode(),
        "s_intents": pack_intents(s.intents),
        "s_nonce": s.nonce,
        "s_versioning": VERSIONING[s.versioning],
        "s_partition": s.partition,
        "s_lane": s.lane,
        "s_input": s.input.decode(),
    }


def of_send(s: Send) -> dict[str, Any]:
    """A message of a caller outside."""
    return {
        "m_dest": s.dest,
        "m_mid": s.mid,
        "m_topic": s.topic,
        "m_data": s.data.decode(),
        "m_sender": s.sender,
        "m_key": s.key,
        "m_known": s.known,
        "m_wake": s.wake,
    }
