-- Batches: an order, its frozen targets with what came of each, and a line for each workflow that one has changed.
-- Columns: docs/internals/schema.md.

create table perdure.batch (
    app text collate "C" not null,
    key text collate "C" not null,
    verb text not null,
    options text not null,
    query text not null,
    by text not null,
    reason text not null,
    rate double precision,
    state smallint not null,
    created bigint not null,
    updated bigint not null,
    closed bigint,
    total integer not null,
    done integer not null,
    skipped integer not null,
    failed integer not null,
    owner bytea,
    until bigint not null,
    next bigint not null,
    nonce bytea not null,
    primary key (app, key)
);

create table perdure.batch_target (
    app text collate "C" not null,
    batch text collate "C" not null,
    id text collate "C" not null,
    run integer not null,
    state smallint not null default 0,
    at bigint,
    detail text not null default '',
    new text,
    tries integer not null default 0,
    primary key (app, batch, id)
);
create index batch_target_state on perdure.batch_target (app, batch, state, id);

create table perdure.audit_line (
    app text collate "C" not null,
    batch text collate "C" not null,
    id text collate "C" not null,
    nonce bytea not null,
    run integer not null,
    at bigint not null,
    verb text not null,
    by text not null,
    reason text not null,
    before text not null,
    after text not null,
    primary key (app, batch, id, nonce)
);
