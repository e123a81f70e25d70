-- Versions of the code, what recovery decided, what executors say of themselves. Columns: docs/internals/schema.md.

alter table workflow add column cause integer not null default 0;
alter table workflow add column versioning integer not null default 0;
alter table past_run add column cause integer not null default 0;
alter table past_run add column versioning integer not null default 0;

-- An executor takes what is of its own version or of none: claims ask for each of the two `owner is null and version = v
-- and until <= now`, orphans for `owner = gone and version = mine`.
drop index workflow_open;
create index workflow_open on workflow (app, owner, version, until) where status < 5;

-- A check of a column cannot be changed in place.
create table incarnation_2 (
    id blob not null primary key,
    app text not null,
    executor text not null,
    version text not null,
    host text not null,
    boot text not null,
    space text not null,
    pid integer not null,
    pid_started integer not null,
    state text not null check (state in ('alive', 'draining', 'dead', 'gone', 'released')),
    started integer not null,
    lease_until integer not null,
    lease integer not null default 0,
    beats integer not null default 0,
    lag integer not null default 0,
    heir text
) strict, without rowid;
insert into incarnation_2 (id, app, executor, version, host, boot, space, pid, pid_started, state, started, lease_until)
select id, app, executor, version, host, boot, space, pid, pid_started, state, started, lease_until from incarnation;
drop table incarnation;
alter table incarnation_2 rename to incarnation;

-- Versions of an app's code that an executor was launched with.
create table version (
    app text not null,
    name text not null,
    fingerprints text not null,
    first_launched integer not null,
    launched integer not null,
    withdrawn integer not null default 0,
    primary key (app, name)
) strict, without rowid;

-- Where new work of an app goes: one row per app, changed by compare-and-set of its revision.
create table routing (
    app text not null primary key,
    current text not null,
    ramping text,
    percentage real not null default 0,
    revision integer not null,
    changed integer not null,
    because text not null
) strict, without rowid;

-- Unfinished work of another version, tried against this one: why it could not be adopted. The latest trial counts.
create table trial (
    app text not null,
    id text not null,
    run integer not null,
    last_seq integer not null,
    version text not null,
    reason text not null,
    detail text not null,
    at integer not null,
    primary key (app, id)
) strict, without rowid;

-- What was decided about an interrupted run, under which claim, and on what evidence.
create table decision (
    app text not null,
    id text not null,
    run integer not null,
    claim blob not null,
    at integer not null,
    cause integer not null,
    decision text not null,
    policy text not null,
    because text not null,
    parameters blob,
    evidence blob not null,
    executor text not null,
    primary key (app, id, run, claim)
) strict, without rowid;

-- Questions that only an executor with the code can answer (what would be decided, would this replay).
create table request (
    app text not null,
    nonce blob not null,
    version text not null,
    kind text not null,
    body blob not null,
    at integer not null,
    until integer not null,
    owner blob,
    answer blob,
    primary key (app, nonce)
) strict, without rowid;
create index request_open on request (app, version) where answer is null;
