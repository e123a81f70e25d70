"""What ``write_stream`` and ``close_stream`` do of either face: for whom the caller speaks, and the value as bytes.

What becomes of it is the execution's own part (``streaming``).
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from perdure.errors import OutsideWorkflow
from perdure.runtime.context import STEP, StepContext, body
from perdure.serde.codec import seal
from perdure.serde.values import Shape


def speaker(what: str) -> tuple[Any, StepContext | None]:
    """The execution for which the caller speaks, and the step it stands in, if it does."""
    step = STEP.get()
    execution = body()
    if execution is not None:
        return execution, None
    if step is None or step.execution is None:
        raise OutsideWorkflow(
            f"{what} was called outside any workflow; it writes to a stream of the workflow that calls it: call it in "
            "a workflow body or in a step. To read one from elsewhere: my_workflow.handle(id).read_stream(…)"
        )
    return step.execution, step


def append(execution: Any, step: StepContext | None, name: str, shape: Shape, value: Any) -> Future[None] | None:
    """Encode a value and append it; in a step, what to wait for until there is room for more."""
    where = f"stream {name!r}"
    data = seal(shape.encode(value, where), where, execution.host.registry.codec)
    if step is not None:
        room: Future[None] | None = execution.append_in_step(step, name, data)
        return room
    execution.note_stream(execution.next_path(), name, data)
    return None


def close(execution: Any | None, name: str) -> None:
    """Close a stream of the calling workflow."""
    if execution is None:
        where = "outside any workflow" if STEP.get() is None else "in a step, which may run again and write once more"
        raise OutsideWorkflow(f"close_stream({name!r}) was called {where}; call it in the workflow body")
    execution.note_stream(execution.next_path(), name, None)
