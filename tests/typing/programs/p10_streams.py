"""Streams, typed: what is written must be of the stream's type, and what is read is."""
from collections.abc import Iterator
import perdure.sync
from perdure import App, Handle, Stream, close_stream, track, write_stream

app = App("streams")
numbers = Stream[int]("numbers")

@app.step
async def count(upto: int) -> int:
    for n in track(range(upto), "numbers", total=upto):
        await write_stream(numbers, n)
    return upto

@app.workflow
async def counting(upto: int) -> int:
    await write_stream("words", "any value")
    await count(upto)
    await close_stream(numbers)
    await close_stream("words")
    return upto

async def total(handle: Handle[int]) -> int:
    found = 0
    async for n in handle.read_stream(numbers, offset=1):
        found += n
    return found

def words(handle: perdure.sync.Handle[int]) -> Iterator[str]:
    perdure.sync.write_stream(perdure.sync.Stream[str]("words"), "text")
    for n in perdure.sync.track([1, 2], "numbers"):
        yield str(n)
    for word in handle.read_stream(perdure.sync.Stream[str]("words")):
        yield word
