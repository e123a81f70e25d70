-- Queues: lines of workflows before the executors, with limits. Columns: docs/internals/schema.md.

-- An item in line has a `lane`, which is queue, partition and priority in one (model/queues.py): claims of a queue walk
-- a range of it; every other claim asks for `lane is null`.
alter table perdure.workflow
    add column partition text collate "C" not null default '',
    add column lane text collate "C",
    add column expires bigint;
alter table perdure.past_run
    add column partition text collate "C" not null default '',
    add column lane text collate "C",
    add column expires bigint;
drop index perdure.workflow_open;
-- The id decides between items of one commit, which were queued in one microsecond.
create index workflow_open on perdure.workflow (app, owner, version, lane, until, id) where status < 5;

-- A queue and its limits; null is no limit. What the code declares, an operator's change (of single limits) wins over.
create table perdure.queue (
    app text collate "C" not null,
    name text collate "C" not null,
    concurrency integer,
    worker_concurrency integer,
    rate_limit integer,
    rate_period bigint,
    partition_concurrency integer,
    partition_rate_limit integer,
    partition_rate_period bigint,
    paused boolean not null default false,
    cursor text not null default '',
    declared text,
    live text not null default '{}',
    changed bigint not null,
    revision bigint not null,
    primary key (app, name)
) with (fillfactor = 50);

-- Who went through the line of a queue that counts: counts while its workflow is open, not held and not in line.
create table perdure.slot (
    app text collate "C" not null,
    queue text collate "C" not null,
    id text collate "C" not null,
    primary key (app, queue, id)
) with (autovacuum_vacuum_scale_factor = 0.05);

-- How many were let through the line of a queue with a rate, when; kept for the longest window.
create table perdure.pace (
    app text collate "C" not null,
    queue text collate "C" not null,
    partition text collate "C" not null,
    at bigint not null,
    n integer not null,
    primary key (app, queue, partition, at)
) with (autovacuum_vacuum_scale_factor = 0.05);

-- Whose a deduplication key is: counts while that workflow is open and of that queue.
create table perdure.dedup (
    app text collate "C" not null,
    queue text collate "C" not null,
    key text collate "C" not null,
    id text collate "C" not null,
    primary key (app, queue, key)
);

-- When an item that has not left the line by then is closed.
create table perdure.expiry (
    app text collate "C" not null,
    at bigint not null,
    id text collate "C" not null,
    primary key (app, at, id)
);
