-- Attempts that did not get a workflow on: what each run has now, and had. Columns: docs/internals/schema.md.

alter table perdure.workflow add column problem text;
alter table perdure.past_run add column problem text;

create table perdure.problem (
    app text collate "C" not null,
    id text collate "C" not null,
    run integer not null,
    kind text not null,
    path text not null,
    version text not null,
    name text not null,
    text text not null,
    data text,
    attempt integer not null,
    first bigint not null,
    last bigint not null,
    next bigint,
    cleared bigint,
    nonce bytea not null,
    primary key (app, id, run, kind, path, version)
);

insert into perdure.problem (app, id, run, kind, path, version, name, text, attempt, first, last, next, nonce)
select app, id, run, reason, '', version, '', detail, 1, updated, updated, updated, ''
from perdure.workflow where status < 5 and reason in ('nondeterminism', 'no_code', 'undecodable');
update perdure.workflow set problem = reason where status < 5 and reason in ('nondeterminism', 'no_code', 'undecodable');

-- Nothing without a problem is in it, and no statement on the way of a workflow says that it asks for one.
create index workflow_problem on perdure.workflow (app, version, problem) where problem is not null and status < 5;
