-- Schedules, and what became of each nominal time. Columns: docs/internals/schema.md.

create table schedule (
    app text not null,
    name text not null,
    workflow text not null,
    cron text,
    every integer,
    tz text not null,
    missed text not null,
    overlap text not null,
    catch_up integer,
    catch_up_span integer,
    takes_due integer not null,
    queue text,
    next integer,
    anchor integer not null,
    paused text,
    gone text,
    declared text,
    live text not null,
    last text,
    waiting integer not null,
    created integer not null,
    changed integer not null,
    revision integer not null,
    primary key (app, name),
    check ((cron is null) <> (every is null))
) strict, without rowid;
create index schedule_next on schedule (app, next) where paused is null and gone is null and next is not null;
create index schedule_waiting on schedule (app) where waiting > 0;

create table firing (
    app text not null,
    schedule text not null,
    at integer not null,
    until integer not null,
    state integer not null check (state between 1 and 3),
    workflow text,
    reason text not null,
    detail text not null,
    noted integer not null,
    primary key (app, schedule, at, until),
    check (state = 2 or workflow is not null)
) strict, without rowid;
