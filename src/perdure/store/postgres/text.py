"""The dialect's SQL for one schema: named queries with the schema's name put in, and what they share spelled out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from perdure.errors import ConfigError
from perdure.store.postgres.rows import ROW
from perdure.store.sql import queries

_SCHEMA = re.compile(r"\bperdure\.(?=[a-z_])")
_PLAIN = re.compile(r"^[a-z_][a-z0-9_]{0,40}$")

# What a claim does to the rows in `picked`, which it has locked. They exist, so the insert always finds its row: an
# upsert goes by the key, where an update's join may be planned as a scan. The first claim starts the clock and gives
# the claimer's version. How long it may stand in line is over with it: back in line later, it has begun.
TAKE = """d as (
    delete from perdure.wake k where k.ctid = any(array(
        select x.ctid from picked cross join lateral (
            select ctid from perdure.wake where app = $1 and dest = picked.id offset 0) x))),
forgotten as (
    delete from perdure.watch k where k.ctid = any(array(
        select x.ctid from picked cross join lateral (
            select ctid from perdure.watch where app = $1 and waiter = picked.id and waiter <> '' offset 0) x))),
c as (
    insert into perdure.workflow as w (app, id, run, lineage, name, version, status, owner, created, updated,
        fingerprint, nonce)
    select $1, picked.id, 1, '', '', '', 2, $4, 0, 0, '', '' from picked
    on conflict (app, id) do update
    set status = 2, owner = $4, claim = $5, epoch = w.epoch + 1, @death
        version = case when w.started is null and $6::text <> '' then $6::text else w.version end,
        deadline = case when w.started is null and w.timeout is not null
            then least(w.deadline, (select now from t) + w.timeout) else w.deadline end,
        started = coalesce(w.started, (select now from t)), updated = (select now from t),
        until = null, lane = null, expires = null, reason = null, detail = '',
        cancel = coalesce(w.cancel, (select min(k.cancel) from perdure.wake k where k.app = $1 and k.dest = w.id))
    returning w.*)"""


# Who owns anything, and the versions of what nobody holds ('' too), each found by hopping along the index of open rows.
OWNERS = """o (owner) as (
    (select owner from perdure.workflow
    where app = $1 and owner is not null and status < 5 order by owner limit 1)
    union all
    select (select w.owner from perdure.workflow w
        where w.app = $1 and w.owner > o.owner and w.status < 5 order by w.owner limit 1)
    from o where o.owner is not null)"""
FREE = """free (version) as (
    (select version from perdure.workflow where app = $1 and owner is null and status < 5
    order by owner, version, lane, until limit 1)
    union all
    select (select w.version from perdure.workflow w
        where w.app = $1 and w.owner is null and w.version > free.version and w.status < 5
        order by w.owner, w.version, w.lane, w.until limit 1)
    from free where free.version is not null)"""

# What a claim answers of each: its row, its input, and whether a message waits for it. Not `exists`, which may be
# planned to read all messages of the app at once.
CLAIMED = f"""{ROW}, (select p.input from perdure.payload p where p.app = $1 and p.id = c.id and p.run = c.run),
    coalesce((
        select true from perdure.message m
        where m.app = $1 and m.dest = c.id and m.taken_seq is null limit 1), false)"""  # noqa: S608  constants

# The deaths in a row that a running workflow was in flight at: none if it got anywhere under the claim that ended, that
# is, if a record came after it that is more than an attempt, a cancel, an intent, a decision or a move that begins.
TRIES = """case when {w}.attempts = 0 or exists (
                select from perdure.history h
                where h.app = $1 and h.id = {w}.id and h.run = {w}.run and h.seq > {w}.last_seq
                    and h.kind not in (2, 10, 11, 13, 17)) then 0 else {w}.attempts end"""

# What a claim does about a death ($8: whether it was one): it counts, except for what was beside a suspect (owners in
# $9). `last_seq` is noted, so that the next death can be judged.
DEATH = f"""cause = case when $8::int > 0 then 1 else w.cause end,
        problem = case when $8::int > 0 then 'executor_died' else w.problem end,
        attempts = {TRIES.format(w="w")}
            + case when w.owner = any($9::bytea[]) and {TRIES.format(w="w")} < 2 then 0 else $8::int end,
        last_seq = greatest(w.last_seq, (
            select h.seq from perdure.history h
            where h.app = $1 and h.id = w.id and h.run = w.run order by h.seq desc limit 1)),"""  # noqa: S608  constants

# Each row of `c` with its former owner, by its place among the picked. A join of the two would compare each with each,
# for the planner takes both for one row: of 200 that is a quarter of the claim.
FORMER = """o cross join c
    cross join lateral (select o.owners[array_position(o.ids, c.id)] as owner offset 0) former"""

# That whoever ran it died, of each row in `c`, whose former owners are in `picked`.
DIED = """o as materialized (
    select array_agg(id) as ids, array_agg(owner) as owners from picked),
died as (
    insert into perdure.problem as p (app, id, run, kind, path, version, name, text, attempt, first, last, nonce)
    select $1, c.id, c.run, 'executor_died', '', c.version, '', coalesce(
            (select 'executor ' || i.executor || ' died (pid ' || i.pid || ' on ' || i.host || ')'
            from perdure.incarnation i where i.id = former.owner), 'its executor died'),
        greatest(c.attempts, 1), c.updated, c.updated, coalesce(c.claim, former.owner)
    from {former}
    where {death}
    on conflict (app, id, run, kind, path, version) do update
    set text = excluded.text, attempt = excluded.attempt, last = excluded.last, cleared = null, nonce = excluded.nonce,
        first = case when p.cleared is null then p.first else excluded.first end)"""

# The default decision about each, under its new token.
NOTED = f"""{DIED.format(former=FORMER, death="$8::int > 0")},
noted as (
    insert into perdure.decision (app, id, run, claim, at, cause, decision, policy, because, evidence, executor)
    select $1, c.id, c.run, c.claim, c.updated, 1, 'resume', '', '',
        '{{"owner":"' || encode(former.owner, 'hex') || '","executor":' || to_json(coalesce(
            (select i.executor from perdure.incarnation i where i.id = former.owner), ''))::text
            || ',"attempt":' || c.attempts || '}}',
        coalesce((select i.executor from perdure.incarnation i where i.id = $4), '')
    from {FORMER}
    where $8::int > 0
    on conflict do nothing)"""  # noqa: S608  constants

# Where `w` stands in its queue's line; null without a queue. As model/queues.py has it.
LANE = r"""w.queue || E'\x1f' || w.partition || E'\x1f' || lpad(to_hex(w.priority::bigint + 2147483648), 8, '0')"""

# Whether a pause that is about to be written was taken back meanwhile: then it is only handed back.
TAKEN_BACK = "excluded.reason = 'paused' and workflow.pause is null"

# Whether that makes two deaths or more of a workflow of `u.owner`.
SUSPECT = f"""({TRIES.format(w="workflow")}
                >= case when u.owner = any($9::bytea[]) or $8::int = 0 then 2 else 1 end)"""

# Of the owners in `$7` those that nobody has given to another than the asker `$4`, as it stands by now; none if the
# asker has been declared dead itself: two that do not know it yet would take from each other, and each is a death.
GIVEN = """(
        select x.owner from perdure.incarnation me, unnest($7::bytea[]) x (owner)
        where me.id = $4 and me.app = $1 and me.state in ('alive', 'draining') and not exists (
            select from perdure.incarnation r
            where r.id = x.owner and r.app = $1 and r.state = 'released' and r.heir <> me.executor))"""

# Whether a claim that obeys an executor's own limits still counts: no series was begun after its own, and whoever
# begins one waits for it. Null: it obeys none.
COUNTS = r"""\1::int is null or exists (
        select from perdure.incarnation where id = $4 and series <= \1 for key share)"""
_COUNTS = re.compile(r"@counts (\$\d+)")


def quoted(schema: str) -> str:
    """The schema's name for SQL. Plain names only: no quoting rules to get wrong in a DDL script."""
    if not _PLAIN.match(schema):
        raise ConfigError(
            f"the Postgres schema {schema!r} cannot be used: give at most 41 lower-case letters, digits and _"
        )
    return f'"{schema}"'


def placed(sql: str, schema: str) -> str:
    """SQL written for the schema ``perdure``, for another."""
    return _SCHEMA.sub(quoted(schema) + ".", sql)


@cache
def statements(schema: str) -> Mapping[str, str]:
    """All named queries, ready to prepare."""
    found: dict[str, str] = {}
    for name, sql in queries("perdure.store.postgres").items():
        spelled = (
            sql.replace("@claimed", CLAIMED)
            .replace("@row", ROW)
            .replace("@owners", OWNERS)
            .replace("@free", FREE)
            .replace("@lane", LANE)
            .replace("@noted", NOTED)
            .replace("@died", DIED.format(former=FORMER, death="true"))
            .replace("@given", GIVEN)
            .replace("@taken_back", TAKEN_BACK)
            .replace("@suspect", SUSPECT)
            .replace("@tries", TRIES.format(w="workflow"))
            .replace("@take_dead", TAKE.replace("@death", DEATH))
            .replace("@take", TAKE.replace("@death", ""))
        )
        found[name] = placed(_COUNTS.sub(COUNTS, spelled), schema)
    return MappingProxyType(found)
