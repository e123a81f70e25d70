-- The first schema. Columns are explained in docs/internals/schema.md; statuses are the codes of model/states.py.
-- `perdure.` stands for the configured schema. Ids sort by code point (collate "C"), as Python sorts them: the order of
-- row locks must be the same for every process. Checks are not repeated in the hot path; they catch writes by hand.

create table perdure.meta (
    name text collate "C" not null primary key,
    value text not null
);

-- The hot row of a workflow id: its latest run. Payloads live apart, so that this stays narrow. The room left in each
-- page lets a row's next version stay on it. `watched`: some workflow waits for this one's end or events (see watch).
create table perdure.workflow (
    app text collate "C" not null,
    id text collate "C" not null,
    run integer not null check (run >= 1),
    lineage bytea not null,
    name text collate "C" not null,
    version text not null,
    status smallint not null check (status between 0 and 11),
    reason text,
    detail text not null default '',
    claim bytea,
    owner bytea,
    epoch integer not null default 0,
    attempts integer not null default 0,
    last_seq integer not null default 0,
    until bigint,
    timeout bigint,
    deadline bigint,
    created bigint not null,
    updated bigint not null,
    started bigint,
    closed bigint,
    cancel text,
    parent text collate "C",
    parent_run integer not null default 0,
    parent_path text not null default '',
    on_parent_close text not null default 'cancel',
    queue text,
    priority integer not null default 0,
    fingerprint bytea not null,
    attributes text,
    intents text,
    nonce bytea not null,
    watched boolean not null default false,
    primary key (app, id),
    check ((status = 2) = (owner is not null)),
    check ((status >= 5) = (closed is not null)),
    check ((status = 4) = (reason is not null))
) with (fillfactor = 60);

-- Claims ask for `owner is null and until <= now`, orphans for `owner = any(gone)`. The second is for lists, which say
-- `created >= 0`: a condition that is always true keeps the planner of an empty table from taking it for a look-up by id.
create index workflow_open on perdure.workflow (app, owner, until) where status < 5;
create index workflow_created on perdure.workflow (app, created) where created >= 0;

-- Earlier runs of an id: the same columns in the same order.
create table perdure.past_run (like perdure.workflow including defaults, primary key (app, id, run));

create table perdure.payload (
    app text collate "C" not null,
    id text collate "C" not null,
    run integer not null,
    input text not null,
    outcome smallint not null default 0,
    output text,
    primary key (app, id, run)
) with (fillfactor = 70);

-- `nonce` is that of the unit that wrote the record: it tells a repeated write from another's.
create table perdure.history (
    app text collate "C" not null,
    id text collate "C" not null,
    run integer not null,
    seq integer not null check (seq >= 1),
    path text not null,
    kind smallint not null,
    name text not null,
    at bigint not null,
    fingerprint bytea not null,
    outcome smallint not null,
    data text,
    attempt integer not null,
    shown text not null,
    intents text,
    version text not null,
    nonce bytea not null,
    primary key (app, id, run, seq)
);

create table perdure.event (
    app text collate "C" not null,
    id text collate "C" not null,
    run integer not null,
    name text collate "C" not null,
    data text not null,
    at bigint not null,
    primary key (app, id, run, name)
);

create table perdure.message (
    app text collate "C" not null,
    dest text collate "C" not null,
    mid bytea not null,
    topic text not null,
    data text not null,
    sender text not null,
    at bigint not null,
    key text collate "C",
    taken_run integer,
    taken_seq integer,
    primary key (app, dest, mid)
);

create unique index message_key on perdure.message (app, dest, key) where key is not null;
-- Taken messages stay as marks: an inbox must not read them again and again.
create index message_untaken on perdure.message (app, dest, mid) where taken_seq is null;

create table perdure.wake (
    app text collate "C" not null,
    dest text collate "C" not null,
    nonce bytea not null,
    cancel text,
    primary key (app, dest, nonce)
) with (autovacuum_vacuum_scale_factor = 0.05);

create table perdure.watch (
    app text collate "C" not null,
    target text collate "C" not null,
    waiter text collate "C" not null,
    primary key (app, target, waiter)
);

create index watch_waiter on perdure.watch (app, waiter) where waiter <> '';  -- for the same reason as workflow_created

create table perdure.incarnation (
    id bytea not null primary key,
    app text collate "C" not null,
    executor text not null,
    version text not null,
    host text not null,
    boot text not null,
    space text not null,
    pid bigint not null,
    pid_started bigint not null,
    state text not null check (state in ('alive', 'draining', 'dead', 'gone')),
    started bigint not null,
    lease_until bigint not null
) with (fillfactor = 50);

create index incarnation_app on perdure.incarnation (app);
