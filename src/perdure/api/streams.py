"""What a workflow or step says bit by bit: values of streams, and progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from perdure.api.keys import Stream, check_name, name_and_shape
from perdure.errors import DefinitionError
from perdure.runtime import aface
from perdure.runtime.progress import Progress

T = TypeVar("T")


@aface.at_the_call
async def write_stream(stream: Stream[T] | str, value: T) -> None:
    """Append a value to a stream of this workflow, in its body or in a step: once, whatever crashes or is retried.

    A step that runs again passes over as many values as it has written; the first written stay. Raises ``Misuse`` for
    a stream that was closed, ``OutsideWorkflow``, ``Unserializable``.
    """
    name, shape = name_and_shape(stream, "stream")
    await aface.write_stream(name, shape, value)


@aface.at_the_call
async def close_stream(stream: Stream[Any] | str) -> None:
    """End a stream of this workflow: who reads it comes to the end. In the body only, since a step may run again."""
    await aface.close_stream(name_and_shape(stream, "stream")[0])


def track(items: Iterable[T], label: str, *, total: int | None = None) -> Iterator[T]:
    """Yield the items, and let ``perdure workflow watch`` show how many are done; ``total``: else ``len(items)``.

    In a body or a step; elsewhere it only yields. A million items cost some hundred small writes, and no replay minds.

    >>> # for row in track(rows, "rows"): …
    """
    check_name(label, "progress")
    if total is not None and total < 0:
        raise DefinitionError(f"track(…, total={total}): how many items there are, or None if nobody knows")
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]  it has one
    return _tracked(items, Progress(label, total))


def _tracked(items: Iterable[T], progress: Progress) -> Iterator[T]:
    progress.begin()
    for item in items:
        yield item
        progress.advance()
    progress.end()
