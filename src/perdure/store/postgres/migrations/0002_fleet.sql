-- Versions of the code, what recovery decided, what executors say of themselves. Columns: docs/internals/schema.md.

alter table perdure.workflow
    add column cause smallint not null default 0,
    add column versioning smallint not null default 0;
alter table perdure.past_run
    add column cause smallint not null default 0,
    add column versioning smallint not null default 0;

-- An executor takes what is of its own version or of none: claims ask for each of the two `owner is null and version = v
-- and until <= now`, orphans for `owner = gone and version = mine`.
drop index perdure.workflow_open;
create index workflow_open on perdure.workflow (app, owner, version, until) where status < 5;

alter table perdure.incarnation
    add column lease bigint not null default 0,
    add column beats bigint not null default 0,
    add column lag bigint not null default 0,
    add column heir text,
    drop constraint incarnation_state_check,
    add constraint incarnation_state_check check (state in ('alive', 'draining', 'dead', 'gone', 'released'));

-- Versions of an app's code that an executor was launched with.
create table perdure.version (
    app text collate "C" not null,
    name text collate "C" not null,
    fingerprints text not null,
    first_launched bigint not null,
    launched bigint not null,
    withdrawn boolean not null default false,
    primary key (app, name)
);

-- Where new work of an app goes: one row per app, changed by compare-and-set of its revision.
create table perdure.routing (
    app text collate "C" not null primary key,
    current text collate "C" not null,
    ramping text collate "C",
    percentage double precision not null default 0,
    revision bigint not null,
    changed bigint not null,
    because text not null
);

-- Unfinished work of another version, tried against this one: why it could not be adopted. The latest trial counts.
create table perdure.trial (
    app text collate "C" not null,
    id text collate "C" not null,
    run integer not null,
    last_seq integer not null,
    version text collate "C" not null,
    reason text not null,
    detail text not null,
    at bigint not null,
    primary key (app, id)
);

-- What was decided about an interrupted run, under which claim, and on what evidence.
create table perdure.decision (
    app text collate "C" not null,
    id text collate "C" not null,
    run integer not null,
    claim bytea not null,
    at bigint not null,
    cause smallint not null,
    decision text not null,
    policy text not null,
    because text not null,
    parameters text,
    evidence text not null,
    executor text not null,
    primary key (app, id, run, claim)
);

-- Questions that only an executor with the code can answer (what would be decided, would this replay).
create table perdure.request (
    app text collate "C" not null,
    nonce bytea not null,
    version text collate "C" not null,
    kind text not null,
    body text not null,
    at bigint not null,
    until bigint not null,
    owner bytea,
    answer text,
    primary key (app, nonce)
);
create index request_open on perdure.request (app, version) where answer is null;
