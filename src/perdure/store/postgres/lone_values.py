"""One unit as the plain parameters of a lone statement, by the names that the SQL gives them."""

from __future__ import annotations

from typing import Any

from perdure.model.states import CODE, VERSIONING
from perdure.model.writes import Close, Send, Start, Unit
from perdure.store.postgres.rows import pack_intents


def of_run(unit: Unit) -> dict[str, Any]:
    """The record of a run, what came with it, and its end."""
    (r,) = unit.records
    values: dict[str, Any] = {
        "id": unit.key.id,
        "run": unit.key.run,
        "claim": unit.claim,
        "h_seq": r.seq,
        "h_path": r.path,
        "h_kind": r.kind,
        "h_name": r.name,
        "h_at": r.at,
        "h_fingerprint": r.fingerprint,
        "h_outcome": r.outcome,
        "h_data": None if r.data is None else r.data.decode(),
        "h_attempt": r.attempt,
        "h_shown": r.shown,
        "h_intents": pack_intents(r.intents),
        "h_version": unit.version,
        "h_nonce": unit.nonce,
        "r_mid": unit.taken[0][0] if unit.taken else None,
        "d_nonce": unit.woken[0] if unit.woken else None,
        "e_name": unit.events[0].name if unit.events else None,
        "e_data": unit.events[0].data.decode() if unit.events else None,
    }
    if isinstance(unit.change, Close):
        end = unit.change
        output = None if end.data is None else end.data.decode()
        values |= {"c_status": CODE[end.status], "c_outcome": end.outcome, "c_output": output}
    return values


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
