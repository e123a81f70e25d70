"""Values that are stored coded and cannot be decoded here: whoever would use one is held, never failed.

Promises: no body sees such a value and no message is taken with it, so the same run goes on where it stands as soon as
an executor has the right codec; what is written down of the trouble tells nothing of a value.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from perdure.core.run import Op
from perdure.errors import Unserializable
from perdure.model.records import Kind, Record
from perdure.model.states import Reason
from perdure.serde.codec import Codec, is_coded, why_coded

log = logging.getLogger("perdure")


def why_unread(input: bytes, history: Iterable[Record], codec: Codec | None) -> str:
    """Why a run cannot be replayed here; "" if all that it rests on can be read."""
    if is_coded(input):
        return why_coded("its input", input, codec)
    for record in history:
        if record.data is not None and is_coded(record.data) and record.holds_value:
            what = f"{record.kind.name.lower()} {record.name}".rstrip()
            return why_coded(f"what its history has at {record.path} ({what})", record.data, codec)
    return ""


def unread(execution: Any, op: Op, data: bytes | None) -> bool:
    """Hold a live run if what is about to be handed to it cannot be read here."""
    if data is None or not is_coded(data) or execution.gone or not op.is_open:
        return False
    what = {Kind.RECV: f"a message on {op.name!r}" if op.name else "a message", Kind.RESULT: f"the end of {op.name}"}
    execution.hold(Reason.UNDECODABLE, why_coded(what.get(op.kind, op.name), data, execution.host.registry.codec))
    return True


def in_words(error: Exception, codec: Codec | None) -> str:
    """What a row says of an input that does not fit the code: all of it, unless values are not to be seen in rows."""
    text, path = f"{type(error).__name__}: {error}", ""
    if isinstance(error, Unserializable):
        text, path = str(error), error.path
    if codec is None:
        return text
    log.error("an input does not fit the code: %s", text)
    where = f" at {path}" if path else ""
    return f"its input does not fit the code{where}: {type(error).__name__}; the executor's log says more"
