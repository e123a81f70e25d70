"""Forms of opening, what is said when an app is not open, and what launch and exit say."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import perdure.sync
from perdure import App, Client, Router, recv
from perdure.errors import ConfigError, DatabaseTrouble, DefinitionError, NotOpen, WorkflowNotFound
from tests.runtime.support import in_memory, status, until, until_sync

NOT_OPEN = r"app 'shop' is not open\. To work and call: async with app: .*app\.run\(\).*lifespan.*app\.connect\(\)"


@pytest.mark.parametrize("how", ["call", "start", "start_many", "result", "status", "send", "event", "cancel", "list"])
async def test_not_open_names_the_forms(app: App, how: str) -> None:
    @app.workflow
    async def body(x: int) -> int:
        return x

    handle = body.handle("a")
    calls = {
        "call": lambda: body(1),
        "start": lambda: body.start(1),
        "start_many": lambda: body.start_many([1]),
        "result": handle.result,
        "status": handle.status,
        "send": lambda: handle.send(1),
        "event": lambda: handle.get_event("e"),
        "cancel": handle.cancel,
        "list": lambda: anext(app.client.list()),
    }
    with pytest.raises(NotOpen, match=NOT_OPEN):
        await calls[how]()


async def test_open_and_close_are_the_same_as_async_with(app: App) -> None:
    @app.workflow
    async def body(x: int) -> int:
        return x + 1

    await app.open()
    assert await body(1) == 2
    await app.close()
    with pytest.raises(NotOpen):
        await body(1)
    await app.close()  # closing twice does nothing
    async with app as same:
        assert same is app
        assert await body(2) == 3


async def test_opening_twice_is_refused(app: App) -> None:
    async with app:
        with pytest.raises(ConfigError, match="app 'shop' is open already"):
            await app.open()
        with pytest.raises(ConfigError, match="app 'shop' is open already"):
            await app.connect().open()


async def test_of_two_that_open_at_once_one_does_and_closes_all(app: App) -> None:
    first, second = await asyncio.gather(app.open(), app.open(), return_exceptions=True)
    assert first is None
    assert re.match("app 'shop' is being opened already; open it once", str(second))
    await app.close()
    async with app:  # and it may be opened again
        pass


def test_of_threads_that_open_at_once_one_does_and_closes_all(sync_app: perdure.sync.App) -> None:
    opened, refused = [], []
    there = threading.Barrier(4)

    @sync_app.resource
    def line() -> Iterator[str]:
        opened.append("line")
        yield "line"

    def open_it() -> None:
        there.wait()
        try:
            sync_app.open()
        except ConfigError as error:
            refused.append(str(error))

    before = threading.active_count()
    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sync_app.close()
    assert (len(refused), opened) == (3, ["line"]), refused
    until_sync(lambda: threading.active_count() == before)


def test_a_thread_that_closes_while_another_does_waits_for_what_is_under_way(sync_app: perdure.sync.App) -> None:
    happened: list[str] = []
    begun, go_on, returned = threading.Event(), threading.Event(), threading.Event()
    asked = threading.Barrier(3)

    @sync_app.resource
    def line() -> Iterator[None]:
        yield
        happened.append("line closed")

    @sync_app.step
    def slow() -> None:
        begun.set()
        go_on.wait()
        happened.append("step ended")

    @sync_app.workflow
    def body() -> None:
        slow()

    def close() -> None:
        asked.wait()
        sync_app.close()
        happened.append("close returned")
        returned.set()

    with sync_app:
        body.start()
        begun.wait()
        threads = [threading.Thread(target=close) for _ in range(2)]
        for thread in threads:
            thread.start()
        asked.wait()
        returned.wait(0.3)  # waits: for a close that does not wait for the other; none returns here
        go_on.set()
        for thread in threads:
            thread.join()
    assert happened == ["step ended", "line closed", "close returned", "close returned"]


async def test_a_launch_that_is_refused_its_settings_may_be_tried_again(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_LEASE", "0")
    with pytest.raises(ConfigError, match="PERDURE_LEASE"):
        await app.open()
    monkeypatch.delenv("PERDURE_LEASE")
    async with app:
        pass


async def test_connect_only_calls(database: str) -> None:
    """A web process beside an executor: two apps of the same name, as two processes have them."""
    web, worker = App("shop", database=database), App("shop", database=database)

    def declare(app: App):
        @app.workflow(name="double")
        async def double(x: int) -> int:
            return 2 * x

        return double

    calls, _works = declare(web), declare(worker)
    async with web.connect() as client:
        handle = await calls.options(id="a").start(21)
        assert await handle.status() == "queued"  # nobody works yet
        async with worker:
            assert await handle.result(timeout=20) == 42
            assert await client.handle("a").result() == 42
            assert await calls(4) == 8
    with pytest.raises(NotOpen):
        await calls(4)


async def test_a_client_needs_no_code(app: App, database: str) -> None:
    @app.workflow(name="double")
    async def double(x: int) -> int:
        return 2 * x

    async with app, Client(database, app="shop") as client:
        workflow = client.workflow("double", returns=int)
        assert await workflow.options(id="a").start(4)
        assert await workflow.handle("a").result() == 8
        assert [info.id async for info in client.list("type = double")] == ["a"]
        with pytest.raises(WorkflowNotFound, match="app 'shop' has no workflow 'b'"):
            await client.handle("b").result()


async def test_a_client_may_leave_the_app_out_if_the_database_holds_one(app: App, database: str) -> None:
    @app.workflow
    async def body() -> int:
        return 1

    async with app:
        await body.options(id="a").start()
        await body.handle("a").result()
    async with Client(database) as client:
        assert await client.handle("a").status() == "completed"


async def test_lifespan_opens_and_closes(app: App) -> None:
    @app.workflow
    async def body() -> str:
        return "ok"

    async with app.lifespan(SimpleNamespace()):
        assert await body() == "ok"
    with pytest.raises(NotOpen):
        await body()


async def test_lifespan_of_the_sync_face_serves_asgi_too(sync_app: perdure.sync.App) -> None:
    @sync_app.workflow
    def body() -> str:
        return "ok"

    async with sync_app.lifespan(SimpleNamespace()):
        handle = body.handle("none")
        with pytest.raises(WorkflowNotFound):
            handle.status()
    with pytest.raises(NotOpen):
        body()


def test_the_sync_face_opens_in_all_its_forms(sync_app: perdure.sync.App) -> None:
    @sync_app.workflow
    def body(x: int) -> int:
        return x + 1

    with pytest.raises(NotOpen, match=r"To work and call: with app: .*only to call: with app\.connect\(\)"):
        body(1)
    with sync_app:
        assert body(1) == 2
    sync_app.open()
    assert body(2) == 3
    sync_app.close()
    sync_app.close()
    with sync_app.connect() as client:
        with pytest.raises(WorkflowNotFound):
            client.handle("x").status()
        assert [info.status for info in client.list()] == ["completed", "completed"]


# -- what belongs to an app


async def test_a_router_belongs_to_the_app_that_includes_it(app: App) -> None:
    billing = Router(prefix="billing.")

    @billing.step
    async def fee(x: int) -> int:
        return x + 1

    @billing.workflow(name="invoice")
    async def invoice(x: int) -> int:
        return await fee(x)

    assert invoice.name == "billing.invoice"
    with pytest.raises(NotOpen, match=r"'billing\.invoice' belongs to a Router that no app includes.*app\.include"):
        await invoice(1)
    app.include(billing)
    async with app:
        assert await invoice(1) == 2
        assert (await app.client.handle((await invoice.start(4)).id).info()).name == "billing.invoice"


def test_what_is_no_router_is_refused() -> None:
    with pytest.raises(DefinitionError, match="5 is no Router"):
        App("shop").include(5)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="no Router of perdure; import App and Router from the same face"):
        App("shop").include(perdure.sync.Router())  # type: ignore[arg-type]


async def test_a_router_within_a_router_comes_along(app: App) -> None:
    outer, inner = Router(), Router()
    outer.include(inner)

    @inner.workflow
    async def late() -> int:  # declared after it was included in a router: the app still has it
        return 1

    app.include(outer)
    async with app:
        assert await late() == 1


async def test_a_router_that_an_unused_router_takes_in_stays_with_its_app(app: App) -> None:
    common = Router()

    @common.workflow(name="child")
    async def child(x: int) -> int:
        return x + 1

    app.include(common)
    unused = Router()
    unused.include(common)
    async with app:
        assert await child(1) == 2
    with pytest.raises(NotOpen, match="app 'shop' is not open"):
        await child(1)


async def test_modules_are_imported_at_launch(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_reports.py").write_text("imported = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    app = App("shop", database=database, modules=["shop_reports"])
    assert "shop_reports" not in sys.modules
    async with app:
        assert sys.modules.pop("shop_reports").imported


# -- databases


@pytest.mark.parametrize("url", ["mysql://host/db", "shop", "sqlite://", "http://x"])
async def test_an_unknown_url_is_shown_with_the_forms(url: str) -> None:
    with pytest.raises(ConfigError, match=r"not a database that Perdure knows: .*postgresql://user@host/database"):
        await App("shop", database=url).open()


async def test_a_url_of_sqlalchemy_is_answered_with_what_to_leave_out() -> None:
    with pytest.raises(ConfigError, match=r"postgresql\+psycopg://h/d'. The driver after the \+ is SQLAlchemy's"):
        await App("shop", database="postgresql+psycopg://h/d").open()


async def test_the_password_of_an_unknown_url_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        await App("shop", database="mysql://ann:s3cret@host/db").open()
    assert "s3cret" not in str(caught.value)


@pytest.mark.postgres
async def test_an_unreachable_server_says_where_it_looked_and_hides_the_password() -> None:
    with pytest.raises(DatabaseTrouble, match=r"127\.0\.0\.1.*1") as caught:
        await App("shop", database="postgresql://ann:s3cret@127.0.0.1:1/shop").open()
    assert "s3cret" not in str(caught.value)


async def test_a_file_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    app = App("shop", database=f"sqlite:///{tmp_path}/file/perdure.db")
    with pytest.raises((ConfigError, DatabaseTrouble), match=r"file/perdure\.db"):
        await app.open()
    with pytest.raises(NotOpen):
        await app.client.handle("a").status()


# -- what launch and exit say


async def test_launch_says_the_database_and_where_the_choice_came_from(
    app: App, database: str, said: pytest.LogCaptureFixture
) -> None:
    async with app:
        (line,) = [r for r in said.records if "database" in r.getMessage()]
    assert line.levelno == logging.INFO
    assert line.getMessage() == f"app shop: database {database} (from App(database=…))"


async def test_the_embedded_default_is_said_as_a_warning(
    said: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERDURE_DATABASE_URL", raising=False)
    async with App("shop"):
        (line,) = [r for r in said.records if "database" in r.getMessage()]
    assert line.levelno == logging.WARNING
    assert ".perdure/shop.db (from default); set PERDURE_DATABASE_URL=postgresql://" in line.getMessage()
    assert (tmp_path / ".perdure" / "shop.db").is_file()


async def test_exit_says_what_is_left_unfinished(app: App, said: pytest.LogCaptureFixture) -> None:
    @app.workflow
    async def body() -> None:
        await recv()

    async with app:
        await body.options(id="a").start()
        await body.options(id="b").start()
    assert re.search(
        r"app shop closed with 2 unfinished workflows: 2 of version \w{12}, for the next start of an executor of it; "
        "see: perdure workflow list --status open",
        said.text,
    )


async def status_is(app: App, id: str, wanted: str) -> bool:
    return await status(app, id) == wanted


async def test_exit_says_of_each_kind_what_becomes_of_it(database: str, said: pytest.LogCaptureFixture) -> None:
    def replica(version: str) -> App:
        replica = App("shop", database=database, version=version, adopt="never")

        @replica.workflow(name="body")
        async def body() -> None:
            await recv()

        @replica.workflow(name="broken")
        async def broken(number: int) -> None:
            await recv()

        replica.body, replica.broken = body, broken  # type: ignore[attr-defined]
        return replica

    for version in ("v1", "v2", "v3"):
        async with replica(version) as app:
            await app.body.options(id=f"of {version}").start()  # type: ignore[attr-defined]
            if version == "v1":
                await app.body.options(id="later", delay=3600).start()  # type: ignore[attr-defined]
    async with Client(database, app="shop") as client:
        await client.workflow("broken", returns=int).options(id="held", version="v3").start("no number")
    async with replica("v2"):
        app = replica("v3")
        await app.open()
        await until(lambda: in_memory(app, "of v3"))
        await until(lambda: status_is(app, "held", "held"))
        said.clear()
        await app.close()
        assert (
            "app shop closed with 5 unfinished workflows: 1 of version v3, for the next start of an executor of it; "
            "1 not begun, for an executor that is alive; 1 of version v2, for its executors that are alive; "
            "1 of version v1, stranded: no executor of it is alive (perdure workflow list --stranded); "
            "1 held, for a person or other code (perdure workflow list --status held); see: "
        ) in said.text


async def test_attaching_to_what_finished_says_when_and_how_to_run_it_again(
    app: App, said: pytest.LogCaptureFixture
) -> None:
    @app.workflow
    async def body(x: int) -> int:
        return x

    async with app:
        assert await body.options(id="a")(1) == 1
        said.clear()
        assert await body.options(id="a")(1) == 1
    assert "workflow a finished at " in said.text
    assert "To run it again: another id, or .options(on_conflict='replace')" in said.text


async def test_whoever_waits_for_what_nobody_can_run_is_told_how_to_start_somebody(
    app: App, said: pytest.LogCaptureFixture
) -> None:
    @app.workflow(name="body")
    async def body() -> str:
        return "done"

    async with app.connect():
        handle = await body.options(id="a", attributes={"customer": 42}).start()
        assert (await handle.info()).attributes == {"customer": 42}
        waiting = asyncio.create_task(handle.result())
        await until(lambda: "no executor of app" in said.text)
        assert "workflow a (body) waits to be run" in said.text
        assert "start one: perdure run MODULE:APP" in said.text
        waiting.cancel()


async def test_two_apps_in_one_database_never_see_each_other(database: str) -> None:
    one, two = App("one", database=database), App("two", database=database)

    @one.workflow(name="body")
    async def first() -> str:
        return "one"

    @two.workflow(name="body")
    async def second() -> str:
        return "two"

    async with one, two:
        assert await first.options(id="a")() == "one"
        assert await second.options(id="a")() == "two"
        assert [info.id async for info in one.client.list()] == ["a"]


async def test_a_failed_launch_leaves_nothing_open(app: App) -> None:
    @app.resource
    async def broken():
        raise RuntimeError("no pool today")
        yield

    with pytest.raises(RuntimeError, match="no pool today"):
        await app.open()
    with pytest.raises(NotOpen):
        await app.client.handle("a").status()
    await until(lambda: not app._home.is_open)


def test_an_app_name_that_cannot_be_a_key_is_refused() -> None:
    for nothing in ("", None):  # which would be the only app that the database has
        with pytest.raises(ConfigError, match=f"app name {nothing!r} cannot be used: .* give one"):
            App(nothing)  # type: ignore[arg-type]
    with pytest.raises((ConfigError, DefinitionError), match="app name 'a b' cannot be used"):
        perdure.sync.App("a b").open()
