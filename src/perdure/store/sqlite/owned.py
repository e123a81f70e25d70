"""Statements over all tables that belong to a workflow, made from the one list of them."""

from __future__ import annotations

from perdure.store.sql import queries
from perdure.store.sqlite.driver import Connection
from perdure.store.tables import OF_RUNS, OWNED, Table

Q = queries("perdure.store.sqlite")


def forget_sql(table: Table, owner: str) -> str:
    return f"delete from {table.name} where app = ?1 and {owner} = ?2"


FORGET = tuple(forget_sql(table, owner) for table, owner in OWNED)
FORGET_BUT_MEMORY = tuple(forget_sql(table, owner) for table, owner in OWNED if not table.outlives)
FORGET_RUN = tuple(
    f"delete from {table.name} where app = ?1 and {table.owners[0]} = ?2 and {table.run} = ?3" for table in OF_RUNS
)


def forget_workflow(conn: Connection, app: str, id: str, *, memory: bool = True) -> None:
    """Every row of every run of the id goes; ``memory``: also what was decided about it."""
    for sql in (Q["slot_forget"], *(FORGET if memory else FORGET_BUT_MEMORY)):
        conn.execute(sql, (app, id))


def columns_of(conn: Connection, table: str) -> dict[str, str]:
    """The columns of a table and their types, without ``app``."""
    return {row[1]: row[2].upper() for row in conn.execute(f"pragma table_info({table})") if row[1] != "app"}
