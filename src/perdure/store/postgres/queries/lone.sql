-- Statements with plain parameters, for what a lone caller or run waits for: lone.py joins the parts, in this order, into
-- constant statements. What must hold is seen by `z`: one row, with the time of the commit, if the parts may write, and
-- none if not; all others hang on it. Rows are looked up by constants on the whole key, so no plan is tempted.

-- One record of one running workflow. `$1` is the app, `$2` to `$4` id, token and run.
-- Locks the run's row by its id alone, compares token and run with the row as it is after the wait, and writes the
-- record if they fit. One that another unit put there first is an error (a null nonce), never a silent loss.
-- name: checkpoint
with l as materialized (
    select claim, run from perdure.workflow where app = $1 and id = $2 for no key update),
h as (
    insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
        intents, version, nonce)
    select $1, $2, l.run, $5::int, $6::text, $7::smallint, $8::text, $9::bigint, $10::bytea, $11::smallint, $12::text,
        $13::int, $14::text, $15::text, $16::text, $17::bytea
    from l where l.claim = $3::bytea and l.run = $4::int
    on conflict (app, id, run, seq) do update
        set nonce = case when history.nonce = excluded.nonce then excluded.nonce end)
select coalesce($18::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint),
    exists (select from l where claim = $3 and run = $4)

-- Who has nothing to fence.
-- name: part_lone_outside
z as materialized (
    select coalesce(:now::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now)

-- A run that goes on: its row locked by its id alone, then compared. Not one that sets an event and is watched, and
-- none that acts on a command to cancel, which must be noted (wake rows never change, so there is no race).
-- name: part_lone_going_on
l as materialized (
    select claim, run, watched from perdure.workflow where app = :app::text and id = :id::text for no key update),
z as materialized (
    select coalesce(:now::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now
    from l
    where claim = :claim::bytea and run = :run::int and (:e_name::text is null or not watched) and not exists (
        select from perdure.wake where app = :app and dest = :id and nonce = :d_nonce::bytea and cancel is not null))

-- A run that ends: the change of its row is lock and fence in one, for all that must hold is columns of that row. A row
-- that is closed already (`closed` says what `status` does, but is in no index that would tempt a plan) is a second
-- try's, and not for here. The reason of a command to cancel that was acted on is noted.
-- name: part_lone_ending
z as (
    update perdure.workflow
    set status = :c_status::smallint, reason = null, detail = '', owner = null, cause = 0, until = null,
        updated = coalesce(:now::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint),
        closed = coalesce(:now::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint),
        last_seq = greatest(last_seq, :c_last::int),
        cancel = coalesce(workflow.cancel, (
            select k.cancel from perdure.wake k
            where k.app = :app::text and k.dest = :id::text and k.nonce = :d_nonce::bytea))
    where app = :app and id = :id and claim = :claim::bytea and run = :run::int and closed is null
        and not watched
    returning closed as now),
o as (
    update perdure.payload set outcome = :c_outcome::smallint, output = :c_output::text
    where app = :app and id = :id and run = :run and exists (select from z)),
x as (
    delete from perdure.wake where app = :app and dest = :id and exists (select from z))

-- Its record.
-- name: part_lone_record
h as (
    insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
        intents, version, nonce)
    select :app, :id, :run, :h_seq::int, :h_path::text, :h_kind::smallint, :h_name::text, :h_at::bigint,
        :h_fingerprint::bytea, :h_outcome::smallint, :h_data::text, :h_attempt::int, :h_shown::text, :h_intents::text,
        :h_version::text, :h_nonce::bytea
    from z
    on conflict (app, id, run, seq) do update
        set nonce = case when history.nonce = excluded.nonce then excluded.nonce end)

-- The same of two: what it received, or a step's, and the event that it then set.
-- name: part_lone_two_records
h as (
    insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
        intents, version, nonce)
    select :app, :id, :run, u.*, :h_version::text, :h_nonce::bytea
    from z cross join (values
        (:h_seq::int, :h_path::text, :h_kind::smallint, :h_name::text, :h_at::bigint,
            :h_fingerprint::bytea, :h_outcome::smallint, :h_data::text, :h_attempt::int, :h_shown::text, :h_intents::text),
        (:g_seq::int, :g_path::text, :g_kind::smallint, :g_name::text, :g_at::bigint,
            :g_fingerprint::bytea, :g_outcome::smallint, :g_data::text, :g_attempt::int, :g_shown::text, :g_intents::text)) u
    on conflict (app, id, run, seq) do update
        set nonce = case when history.nonce = excluded.nonce then excluded.nonce end)

-- The message that the record received, and the latest value of an event; each may be none.
-- name: part_lone_mail
r as (
    update perdure.message set taken_run = :run, taken_seq = :r_seq::int
    where app = :app and dest = :id and mid = :r_mid::bytea and taken_seq is null and exists (select from z)),
e as (
    insert into perdure.event (app, id, run, name, data, at)
    select :app, :id, :run, :e_name::text, :e_data::text, z.now from z where :e_name::text is not null
    on conflict (app, id, run, name) do update set data = excluded.data, at = excluded.at
        where event.data is distinct from excluded.data)

-- The wake row that was acted on.
-- name: part_lone_woken
d as (
    delete from perdure.wake
    where app = :app and dest = :id and nonce = :d_nonce::bytea and exists (select from z))

-- A new workflow. A repeat of my own insert finds its row by the nonce and changes nothing.
-- name: part_lone_start
s as (
    insert into perdure.workflow (app, id, run, lineage, name, version, status, claim, owner, epoch, until, timeout,
        deadline, created, updated, started, parent, parent_run, parent_path, on_parent_close, queue, priority,
        fingerprint, attributes, intents, nonce, versioning, partition, lane, watched)
    select :app::text, :s_id::text, :s_run::int, :s_lineage::bytea, :s_name::text, :s_version::text,
        :s_status::smallint, :s_claim::bytea, :s_owner::bytea, case when :s_claim::bytea is null then 0 else 1 end,
        case when :s_status::smallint in (0, 1) then coalesce(:s_until::bigint, z.now + coalesce(:s_delay::bigint, 0)) end,
        :s_timeout::bigint,
        case when :s_claim::bytea is null or :s_timeout::bigint is null then :s_deadline::bigint
            else least(:s_deadline::bigint, z.now + :s_timeout::bigint) end,
        z.now, z.now, case when :s_claim::bytea is not null then coalesce(:s_began::bigint, z.now) end,
        :s_parent::text, :s_parent_run::int, :s_parent_path::text, :s_on_close::text, :s_queue::text,
        :s_priority::int, :s_fingerprint::bytea, :s_attributes::text, :s_intents::text, :s_nonce::bytea,
        :s_versioning::smallint, :s_partition::text, :s_lane::text,
        exists (select from perdure.watch where app = :app and target = :s_id)
    from z
    on conflict (app, id) do update set nonce = excluded.nonce
        where workflow.nonce = excluded.nonce and workflow.run = excluded.run
    returning id, claim),
i as (
    insert into perdure.payload (app, id, run, input)
    select :app, s.id, :s_run, :s_input::text from s
    on conflict (app, id, run) do nothing)

-- A message to a workflow that is open or needs no check, with its wake.
-- name: part_lone_send
w as materialized (
    select status from perdure.workflow where app = :app::text and id = :m_dest::text),
m as (
    insert into perdure.message (app, dest, mid, topic, data, sender, at, key)
    select :app, :m_dest, :m_mid::bytea, :m_topic::text, :m_data::text, :m_sender::text, z.now, :m_key::text
    from z where :m_known::boolean or (select status from w) < 5
    on conflict do nothing
    returning mid),
k as (
    insert into perdure.wake (app, dest, nonce)
    select :app, :m_dest, :m_wake::bytea from m where coalesce((select status from w), 0) < 5
    on conflict do nothing)

-- What they answer: no row if the fence refused or the batch's statement is needed.
-- name: part_lone_answer
select z.now from z

-- The same, with the new workflow that took and its token.
-- name: part_lone_answer_start
select z.now, s.id, s.claim from z left join s on true

-- The same, and whether the message was inserted.
-- name: part_lone_answer_send
select z.now, exists (select from m) from z
