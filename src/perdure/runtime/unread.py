"""Values that are stored and cannot be read here, for want of a codec or since the code has other types by now.

Promises: whoever would use one is held, never failed, so the same run goes on where it stands as soon as an executor
has the right codec or the right types; no message is taken that nobody could decode; with a codec, what is written down
of the trouble tells nothing of a value.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from perdure.core.run import Op
from perdure.errors import Unserializable
from perdure.model.records import Kind, Outcome, Record
from perdure.model.states import Reason
from perdure.serde.codec import Codec, is_coded, why_coded
from perdure.serde.failures import decode_failure
from perdure.serde.values import Shape

_ERROR = Outcome.ERROR  # before Python 3.12 to look a member up takes as long as a call

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


def value_of(execution: Any, record: Record, shape: Shape) -> Any:
    """What a recorded outcome gives the body: the value, or the exception raised."""
    if record.outcome is _ERROR:
        raise decode_failure(record.data or b"")
    if record.data is None:
        return None
    try:
        return shape.decode(record.data)
    except Unserializable as error:
        execution.run.refuse_value(record, in_words("it", error, execution.host.registry.codec))


def in_words(what: str, error: Exception, codec: Codec | None) -> str:
    """What a row says of a value that does not fit the code: all of it, unless values are not to be seen in rows."""
    text, path = f"{type(error).__name__}: {error}", ""
    if isinstance(error, Unserializable):
        text, path = str(error), error.path
    if codec is None:
        return text
    log.error("%s does not fit the code: %s", what, text)
    where = f" at {path}" if path else ""
    return f"{what} does not fit the code{where}: {type(error).__name__}; the executor's log says more"
