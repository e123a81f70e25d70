-- Schedules, and what became of each nominal time. Columns: docs/internals/schema.md.

create table perdure.schedule (
    app text collate "C" not null,
    name text collate "C" not null,
    workflow text not null,
    cron text,
    every bigint,
    tz text not null,
    missed text not null,
    overlap text not null,
    catch_up integer,
    catch_up_span bigint,
    takes_due boolean not null,
    queue text,
    next bigint,
    anchor bigint not null,
    paused text,
    gone text,
    declared text,
    live text not null,
    last text collate "C",
    waiting integer not null,
    created bigint not null,
    changed bigint not null,
    revision bigint not null,
    primary key (app, name),
    check ((cron is null) <> (every is null))
);
create index schedule_next on perdure.schedule (app, next) where paused is null and gone is null and next is not null;
create index schedule_waiting on perdure.schedule (app) where waiting > 0;

create table perdure.firing (
    app text collate "C" not null,
    schedule text collate "C" not null,
    at bigint not null,
    until bigint not null,
    state smallint not null check (state between 1 and 3),
    workflow text collate "C",
    reason text not null,
    detail text not null,
    noted bigint not null,
    primary key (app, schedule, at, until),
    check (state = 2 or workflow is not null)
);
