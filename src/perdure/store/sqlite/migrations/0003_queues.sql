-- Queues: lines of workflows before the executors, with limits. Columns: docs/internals/schema.md.

-- An item in line has a `lane`, which is queue, partition and priority in one (model/queues.py): claims of a queue walk
-- a range of it; every other claim asks for `lane is null`.
alter table workflow add column partition text not null default '';
alter table workflow add column lane text;
alter table workflow add column expires integer;
alter table past_run add column partition text not null default '';
alter table past_run add column lane text;
alter table past_run add column expires integer;
drop index workflow_open;
create index workflow_open on workflow (app, owner, version, lane, until) where status < 5;

-- A queue and its limits; null is no limit. What the code declares, an operator's change (of single limits) wins over.
create table queue (
    app text not null,
    name text not null,
    concurrency integer,
    worker_concurrency integer,
    rate_limit integer,
    rate_period integer,
    partition_concurrency integer,
    partition_rate_limit integer,
    partition_rate_period integer,
    paused integer not null default 0,
    cursor text not null default '',
    declared text,
    live text not null default '{}',
    changed integer not null,
    revision integer not null,
    primary key (app, name)
) strict, without rowid;

-- Who went through the line of a queue that counts: counts while its workflow is open, not held and not in line.
create table slot (
    app text not null,
    queue text not null,
    id text not null,
    primary key (app, queue, id)
) strict, without rowid;

-- How many were let through the line of a queue with a rate, when; kept for the longest window.
create table pace (
    app text not null,
    queue text not null,
    partition text not null,
    at integer not null,
    n integer not null,
    primary key (app, queue, partition, at)
) strict, without rowid;

-- Whose a deduplication key is: counts while that workflow is open and of that queue.
create table dedup (
    app text not null,
    queue text not null,
    key text not null,
    id text not null,
    primary key (app, queue, key)
) strict, without rowid;

-- When an item that has not left the line by then is closed.
create table expiry (
    app text not null,
    at integer not null,
    id text not null,
    primary key (app, at, id)
) strict, without rowid;
