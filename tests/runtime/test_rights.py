"""Rights, tables or a whole database that are taken away while work is under way, and given back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import App
from perdure.errors import DatabaseTrouble, RightsMissing
from perdure.store.postgres import PostgresStore
from tests.postgres import Server
from tests.roles import Role, a_role
from tests.runtime.support import Ledger, executor, status, until

pytestmark = pytest.mark.postgres


def an_app(url: str, ledger: Ledger, free: asyncio.Event) -> tuple[App, Any]:
    app = App("shop", database=url)

    @app.step
    async def charge() -> str:
        ledger.note("charged")
        await free.wait()
        return "paid"

    @app.workflow(name="order")
    async def order() -> str:
        return await charge()

    return app, order


REFUSES = [
    "create function perdure.audit() returns trigger language plpgsql as $$ begin {does}; return new; end $$",
    "create trigger audit before insert or update on perdure.{table} for each row execute function perdure.audit()",
]
NO_AUDIT = "drop function perdure.audit() cascade"


def a_trigger(table: str, does: str) -> list[str]:
    return [each.replace("{does}", does).replace("{table}", table) for each in REFUSES]


CUT = "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'"


@pytest.mark.parametrize(
    ("away", "back"),
    [
        (["revoke insert on perdure.history from {role}"], "grant insert on perdure.history to {role}"),
        (["revoke usage on schema perdure from {role}"], "grant usage on schema perdure to {role}"),
        (["alter table perdure.history rename to elsewhere"], "alter table perdure.elsewhere rename to history"),
        (["alter schema perdure rename to elsewhere"], "alter schema elsewhere rename to perdure"),
        (["alter role {role} set default_transaction_read_only = on", CUT], "alter role {role} reset all"),
        (["alter role {role} nologin", CUT], "alter role {role} login"),
        (a_trigger("history", "raise exception 'says no'"), NO_AUDIT),
        (
            [
                "create table perdure.notes (n int check (n < 0))",
                *a_trigger("workflow", "insert into perdure.notes values (1)"),
                "grant insert on perdure.notes to {role}",
            ],
            NO_AUDIT,
        ),
        (
            ["alter table perdure.workflow enable row level security"],
            "alter table perdure.workflow disable row level security",
        ),
    ],
    ids=["rights", "usage", "table", "schema", "read-only", "login", "trigger", "audit", "row security"],
)
async def test_outcomes_are_kept_while_the_database_refuses_them(
    role: Role, ledger: Ledger, away: list[str], back: str
) -> None:
    """Neither held nor done again: no workflow is to blame."""
    role.grant_all()
    free = asyncio.Event()
    app, order = an_app(role.url, ledger, free)
    async with app:
        handle = await order.options(id="o").start()
        await until(lambda: list(ledger) == ["charged"])
        role.sql(*away)
        free.set()
        journal = app._home.engine().line.journal
        await until(lambda: journal.trouble is not None)
        role.sql(back)
        assert await handle.result(timeout=20) == "paid"
        assert (await status(app, "o"), list(ledger)) == ("completed", ["charged"])


async def test_what_is_refused_says_to_whom_and_what_to_grant(role: Role) -> None:
    app = App("shop", database=role.url)
    with pytest.raises(RightsMissing, match=f"the role {role.name} .*Grant it usage on .*insert, update, delete"):
        await app.open()


async def test_who_owns_the_schema_needs_no_right_on_the_database(
    postgres_server: Server, bare_postgres_url: str
) -> None:
    """As an administrator makes it for a role: an upgrade later wants no more than the first migration."""
    with a_role(postgres_server, bare_postgres_url) as role:
        role.sql("create schema perdure authorization {role}")
        store = PostgresStore(role.url, "shop")
        await store.open()
        assert await store.migrate()
        await store.close()


async def test_an_upgrade_that_the_role_may_not_make_says_who_may(role: Role) -> None:
    role.grant_all()
    role.sql("update perdure.meta set value = '15' where name = 'schema'")
    with pytest.raises(
        RightsMissing, match=f"has version 15, .* wants .*, and the role {role.name} .*run perdure db mig"
    ):
        await App("shop", database=role.url).open()


async def test_rows_that_a_policy_hides_are_not_taken_for_gone(role: Role) -> None:
    role.grant_all()
    role.sql("alter table perdure.workflow enable row level security")
    store = PostgresStore(role.url, "shop")
    await store.open()
    try:
        with pytest.raises(RightsMissing, match=f"would hide rows from the role {role.name} .*bypassrls"):
            await store.rows(["o"])
    finally:
        role.sql("alter table perdure.workflow disable row level security")
        await store.close()


async def test_what_a_trigger_refuses_says_which(role: Role) -> None:
    role.grant_all()
    role.sql(*a_trigger("incarnation", "raise exception 'says no'"))
    with pytest.raises(DatabaseTrouble, match=r"says no.* comes from PL/pgSQL function .*audit\(\).*drop the trigger"):
        await App("shop", database=role.url).open()


async def test_who_is_declared_dead_without_rights_begins_anew_when_they_are_back(
    role: Role, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PERDURE_LEASE", "2")
    role.grant_all()
    free = asyncio.Event()
    free.set()
    app, order = an_app(role.url, ledger, free)
    async with app:
        role.sql("revoke insert on perdure.incarnation from {role}", "delete from perdure.incarnation")
        await until(lambda: "cannot begin anew yet" in caplog.text)
        assert not executor(app).alive
        role.sql("grant insert on perdure.incarnation to {role}")
        await until(lambda: executor(app).alive)
        assert await order() == "paid"


async def test_an_executor_that_cannot_begin_anew_closes(
    role: Role, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PERDURE_LEASE", "2")
    role.grant_all()
    app, _ = an_app(role.url, ledger, asyncio.Event())
    await app.open()
    role.sql("revoke insert on perdure.incarnation from {role}", "delete from perdure.incarnation")
    await until(lambda: "cannot begin anew yet" in caplog.text)
    await asyncio.wait_for(app.close(), 60)
