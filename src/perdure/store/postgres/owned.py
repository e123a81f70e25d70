"""Statements over all tables that belong to a workflow, made from the one list of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perdure.store.postgres.commit import Place, Ways
from perdure.store.postgres.text import placed
from perdure.store.tables import LEFT, OF_RUNS, OWNED, Table, leads_key


def _filled(table: Table, column: str) -> str:
    """What lets the planner use a partial index."""
    return "" if leads_key(table, column) else f" and {column} <> ''"


def _free(table: Table) -> str:
    """What passes over rows that others have locked, where to wait for them could be to wait for each other."""
    return " for update skip locked" if table.locked_first else " offset 0"


# Each goes to its rows by the key, id by id, and deletes by place: `= any(…)`, like a join, may be planned as a scan.


def forget_sql(table: Table, owner: str) -> str:
    """Forgets what belongs to the workflows `$2`."""
    return f"""delete from perdure.{table.name} t where t.ctid = any(array(
        select x.ctid from unnest($2::text[]) u (id)
        cross join lateral (
            select ctid from perdure.{table.name}
            where app = $1 and {owner} = u.id{_filled(table, owner)}{_free(table)}) x))"""


async def forget(tx: Ways, place: Place, ids: Sequence[str], *, memory: bool = True) -> None:
    """Every row of every run of these goes, whose rows are locked; ``memory``: also what was decided about them."""
    await tx.fetch(place.sql["slot_forget"], place.app, ids)
    for table, owner in OWNED:
        if memory or not table.outlives:
            await tx.fetch(placed(forget_sql(table, owner), place.schema), place.app, ids)


def forget_run_sql(table: Table) -> str:
    """Forgets what belongs to the runs `$3` of `$2`."""
    return f"""delete from perdure.{table.name} t where t.ctid = any(array(
        select x.ctid from unnest($2::text[], $3::int[]) u (id, run)
        cross join lateral (
            select ctid from perdure.{table.name}
            where app = $1 and {table.owners[0]} = u.id and {table.run} = u.run offset 0) x))"""


def weigh_sql(table: Table, owner: str) -> str:
    """What is stored of the workflows `$2`."""
    return f"""select u.id, x.rows, x.bytes from unnest($2::text[]) u (id)
        cross join lateral (
            select count(*) as rows, coalesce(sum(pg_column_size(t.*)), 0)::bigint as bytes
            from perdure.{table.name} t where app = $1 and {owner} = u.id{_filled(table, owner)}) x"""


def weigh_run_sql(table: Table) -> str:
    """What is stored of the runs `$3` of `$2`."""
    return f"""select u.id, u.run, x.rows, x.bytes from unnest($2::text[], $3::int[]) u (id, run)
        cross join lateral (
            select count(*) as rows, coalesce(sum(pg_column_size(t.*)), 0)::bigint as bytes
            from perdure.{table.name} t where app = $1 and {table.owners[0]} = u.id and {table.run} = u.run) x"""


def left_page_sql(table: Table) -> str:
    """A page of ids after `$2`."""
    column = table.owners[-1]
    return f"""select {column} from perdure.{table.name} where app = $1 and {column} > $2{_filled(table, column)}
        order by app, {column} limit $3"""


def left_sql(table: Table) -> str:
    """Deletes what was left of the ids `$2`: no workflow is there, or one with a status of `$3` or more.

    `$4`: what is aged must be older.
    """
    column = table.owners[-1]
    aged = f"{table.aged} <= $4::bigint" if table.aged else "$4::bigint is not null"
    return f"""delete from perdure.{table.name} t where t.ctid = any(array(
        select x.ctid from unnest($2::text[]) u (id)
        left join lateral (select status from perdure.workflow where app = $1 and id = u.id offset 0) w on true
        cross join lateral (
            select ctid from perdure.{table.name}
            where app = $1 and {column} = u.id{_filled(table, column)} and {aged}{_free(table)}) x
        where coalesce(w.status, 99) >= $3::int))
        returning t.{column}"""


def generated(schema: str) -> Iterator[tuple[str, str]]:
    """Every statement that is made here, by a name."""
    for table, owner in OWNED:
        yield f"forget:{table.name}.{owner}", placed(forget_sql(table, owner), schema)
        yield f"weigh:{table.name}.{owner}", placed(weigh_sql(table, owner), schema)
    for table in OF_RUNS:
        yield f"forget_run:{table.name}", placed(forget_run_sql(table), schema)
        yield f"weigh_run:{table.name}", placed(weigh_run_sql(table), schema)
    for table in LEFT:
        yield f"left_page:{table.name}", placed(left_page_sql(table), schema)
        yield f"left:{table.name}", placed(left_sql(table), schema)
