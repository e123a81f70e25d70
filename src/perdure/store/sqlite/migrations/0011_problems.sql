-- Attempts that did not get a workflow on: what each run has now, and had. Columns: docs/internals/schema.md.

alter table workflow add column problem text;
alter table past_run add column problem text;

create table problem (
    app text not null,
    id text not null,
    run integer not null,
    kind text not null,
    path text not null,
    version text not null,
    name text not null,
    text text not null,
    data blob,
    attempt integer not null,
    first integer not null,
    last integer not null,
    next integer,
    cleared integer,
    nonce blob not null,
    primary key (app, id, run, kind, path, version)
) strict, without rowid;

insert into problem (app, id, run, kind, path, version, name, text, attempt, first, last, next, nonce)
select app, id, run, reason, '', version, '', detail, 1, updated, updated, updated, x''
from workflow where status < 5 and reason in ('nondeterminism', 'no_code', 'undecodable');
update workflow set problem = reason where status < 5 and reason in ('nondeterminism', 'no_code', 'undecodable');

-- Nothing without a problem is in it, and no statement on the way of a workflow says that it asks for one.
create index workflow_problem on workflow (app, version, problem) where problem is not null and status < 5;
