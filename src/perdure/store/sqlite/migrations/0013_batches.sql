-- Batches: an order, its frozen targets with what came of each, and a line for each workflow that one has changed.
-- Columns: docs/internals/schema.md.

create table batch (
    app text not null,
    key text not null,
    verb text not null,
    options text not null,
    query text not null,
    by text not null,
    reason text not null,
    rate real,
    state integer not null,
    created integer not null,
    updated integer not null,
    closed integer,
    total integer not null,
    done integer not null,
    skipped integer not null,
    failed integer not null,
    owner blob,
    until integer not null,
    next integer not null,
    nonce blob not null,
    primary key (app, key)
) strict, without rowid;

create table batch_target (
    app text not null,
    batch text not null,
    id text not null,
    run integer not null,
    state integer not null default 0,
    at integer,
    detail text not null default '',
    new text,
    tries integer not null default 0,
    primary key (app, batch, id)
) strict, without rowid;
create index batch_target_state on batch_target (app, batch, state, id);

create table audit_line (
    app text not null,
    batch text not null,
    id text not null,
    nonce blob not null,
    run integer not null,
    at integer not null,
    verb text not null,
    by text not null,
    reason text not null,
    before text not null,
    after text not null,
    primary key (app, batch, id, nonce)
) strict, without rowid;
