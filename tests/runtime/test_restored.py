"""A backup, taken while an executor works, is put back after more was done: what it does not have is done again."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from pathlib import Path

import apsw
import pytest

from perdure import App, Client, Topic, current, recv
from perdure.errors import WorkflowNotFound
from perdure.model.ids import derived_lineage
from tests.postgres import find_binaries
from tests.runtime.support import until

GO = Topic[str]("go")
Effects = list[tuple[str, str]]  # what, under which idempotency key


def run(*command: object) -> bytes:
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE).stdout


class Backup:
    """As the guide for operators says it is made, and put back."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.copy = folder / "backup"
        self.file = None if url.startswith("postgres") else Path(url.removeprefix("sqlite:///"))

    def take(self) -> None:
        if self.file is None:
            self.copy.write_bytes(run(find_binaries() / "pg_dump", self.url))
        else:
            apsw.Connection(str(self.file)).execute("vacuum into ?", (str(self.copy),))

    def put_back(self) -> None:
        if self.file is None:
            psql = (find_binaries() / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", self.url)
            run(*psql, "-c", "drop schema perdure cascade")
            run(*psql, "-f", self.copy)
        else:
            for end in ("-wal", "-shm"):
                self.file.with_name(self.file.name + end).unlink(missing_ok=True)
            self.copy.replace(self.file)


def an_app(url: str, effects: Effects) -> App:
    app = App("shop", database=url, lease=2)

    @app.step(name="do")
    async def do(what: str) -> str:
        effects.append((what, current().idempotency_key))
        return what

    @app.workflow(name="pack")
    async def pack(what: str) -> str:
        return await do(f"pack {what}")

    @app.workflow(name="order")
    async def order() -> list[str]:
        first = await do("reserve")
        what = await recv(GO)
        return [first, await pack(what), await (await pack.start(what)).result(), await do(f"ship {what}")]

    return app


async def went(client: Client, what: str) -> list[str]:
    handle = client.workflow("order", returns=list[str]).handle("w")
    await handle.send(what, GO)
    return await handle.result()


async def test_what_a_backup_does_not_have_is_done_again_under_the_same_keys(database: str, tmp_path: Path) -> None:
    effects: Effects = []
    backup = Backup(database, tmp_path)
    async with an_app(database, effects), Client(database, app="shop") as client:
        order = client.workflow("order", returns=list[str])
        handle = await order.options(id="w").start()

        async def recorded() -> bool:
            return (await handle.info()).steps >= 2  # its claim and its first step

        await until(recorded)
        await asyncio.to_thread(backup.take)
        done = await went(client, "a mug")
        await order.options(id="later").start()
    once = list(effects)

    backup.put_back()
    async with an_app(database, effects), Client(database, app="shop") as client:
        assert await went(client, "a mug") == done
        with pytest.raises(WorkflowNotFound):
            await client.workflow("order", returns=list[str]).handle("later").info()
    again = effects[len(once) :]
    assert [what for what, _ in once[:4]] == ["reserve", "pack a mug", "pack a mug", "ship a mug"]
    assert again == once[1:4], "what the backup has is not run again; the rest is, for each outside the same call"


def test_a_child_has_keys_of_its_own_by_who_begins_it_where_and_with_what() -> None:
    """After a loss a body may take another way: what it begins there is not taken for what it has begun before."""
    given = itertools.product((b"a parent", b"a fork of it"), ("1", "1.2"), (b"a mug", b"a bowl"))
    assert len({derived_lineage(*one) for one in given}) == 8
