-- The first schema. Columns are explained in docs/internals/schema.md; statuses are the codes of model/states.py.
-- Every table is clustered by its key (without rowid): a run's history is one range of pages, and no second tree is kept.

create table meta (
    name text not null primary key,
    value text not null
) strict, without rowid;

-- The hot row of a workflow id: its latest run. Payloads live apart, so that this stays narrow.
create table workflow (
    app text not null,
    id text not null,
    run integer not null check (run >= 1),
    lineage blob not null,
    name text not null,
    version text not null,
    status integer not null check (status between 0 and 11),
    reason text,
    detail text not null default '',
    claim blob,
    owner blob,
    epoch integer not null default 0,
    attempts integer not null default 0,
    last_seq integer not null default 0,
    until integer,
    timeout integer,
    deadline integer,
    created integer not null,
    updated integer not null,
    started integer,
    closed integer,
    cancel text,
    parent text,
    parent_run integer not null default 0,
    parent_path text not null default '',
    on_parent_close text not null default 'cancel',
    queue text,
    priority integer not null default 0,
    fingerprint blob not null,
    attributes blob,
    intents blob,
    nonce blob not null,
    primary key (app, id),
    check ((status = 2) = (owner is not null)),
    check ((status >= 5) = (closed is not null)),
    check ((status = 4) = (reason is not null))
) strict, without rowid;

-- Claims ask for `owner is null and until <= now`, orphans for `owner = gone`.
create index workflow_open on workflow (app, owner, until) where status < 5;
create index workflow_created on workflow (app, created);

-- Earlier runs of an id: the same columns in the same order.
create table past_run (
    app text not null,
    id text not null,
    run integer not null,
    lineage blob not null,
    name text not null,
    version text not null,
    status integer not null,
    reason text,
    detail text not null,
    claim blob,
    owner blob,
    epoch integer not null,
    attempts integer not null,
    last_seq integer not null,
    until integer,
    timeout integer,
    deadline integer,
    created integer not null,
    updated integer not null,
    started integer,
    closed integer,
    cancel text,
    parent text,
    parent_run integer not null,
    parent_path text not null,
    on_parent_close text not null,
    queue text,
    priority integer not null,
    fingerprint blob not null,
    attributes blob,
    intents blob,
    nonce blob not null,
    primary key (app, id, run)
) strict, without rowid;

create table payload (
    app text not null,
    id text not null,
    run integer not null,
    input blob not null,
    outcome integer not null default 0,
    output blob,
    primary key (app, id, run)
) strict, without rowid;

-- `nonce` is that of the unit that wrote the record: it tells a repeated write from another's.
create table history (
    app text not null,
    id text not null,
    run integer not null,
    seq integer not null check (seq >= 1),
    path text not null,
    kind integer not null,
    name text not null,
    at integer not null,
    fingerprint blob not null,
    outcome integer not null,
    data blob,
    attempt integer not null,
    shown text not null,
    intents blob,
    version text not null,
    nonce blob not null,
    primary key (app, id, run, seq)
) strict, without rowid;

create table event (
    app text not null,
    id text not null,
    run integer not null,
    name text not null,
    data blob not null,
    at integer not null,
    primary key (app, id, run, name)
) strict, without rowid;

create table message (
    app text not null,
    dest text not null,
    mid blob not null,
    topic text not null,
    data blob not null,
    sender text not null,
    at integer not null,
    key text,
    taken_run integer,
    taken_seq integer,
    primary key (app, dest, mid)
) strict, without rowid;

create unique index message_key on message (app, dest, key) where key is not null;
-- Taken messages stay as marks: an inbox must not read them again and again.
create index message_untaken on message (app, dest, mid) where taken_seq is null;

create table wake (
    app text not null,
    dest text not null,
    nonce blob not null,
    cancel text,
    primary key (app, dest, nonce)
) strict, without rowid;

create table watch (
    app text not null,
    target text not null,
    waiter text not null,
    primary key (app, target, waiter)
) strict, without rowid;

create index watch_waiter on watch (app, waiter);

create table incarnation (
    id blob not null primary key,
    app text not null,
    executor text not null,
    version text not null,
    host text not null,
    boot text not null,
    space text not null,
    pid integer not null,
    pid_started integer not null,
    state text not null check (state in ('alive', 'draining', 'dead', 'gone')),
    started integer not null,
    lease_until integer not null
) strict, without rowid;
