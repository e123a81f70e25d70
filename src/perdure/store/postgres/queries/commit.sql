-- The parts of the one statement that writes a batch. commit.py joins the parts that a batch needs, in this order,
-- into one of a few constant shapes; `:x` becomes a numbered parameter. Parts do not see each other's writes and run in
-- no fixed order (ENGINE rule 2), so each hangs on `g`, the verdict of the fence, and those that belong to a run
-- started by this very statement on `own`, the starts that took. What is looked up is looked up by a lateral join on the
-- whole key, never by `exists` or `= any`: for these the planner may read a whole app to build a hash.

-- The time of the commit, read once.
-- name: part_clock
t as materialized (
    select coalesce(:now::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now)

-- Locks the batch's own rows in the order sent, which is by id, and by id alone: what else must hold (token and
-- run) is compared with the row as it is after the wait.
-- name: part_lock
l as materialized (
    select w.id, w.claim, w.run, w.watched, w.claim is not distinct from u.claim and w.run = u.run as fits
    from unnest(:f_id::text[], :f_claim::bytea[], :f_run::int[]) u (id, claim, run)
    cross join lateral (
        select id, claim, run, watched from perdure.workflow
        where app = :app and id = u.id for no key update) w)

-- The fence, all or nothing: every row is there, with the token and run that were sent.
-- name: part_fence
g as materialized (
    select count(*) = :f_count::bigint and coalesce(bool_and(fits), true) as ok from l)

-- The same where the batch closes runs or sets events: a watched run must take the way that sees its watchers.
-- name: part_fence_unwatched
g as materialized (
    select count(*) = :f_count::bigint and coalesce(bool_and(fits), true)
        and (:watchers_seen::boolean or not coalesce(bool_or(watched), false)) as ok
    from l)

-- A batch that touches no existing row has nothing to fence.
-- name: part_no_fence
g as materialized (select true as ok)

-- New workflows, sorted by id. A repeat of my own insert finds its row by the nonce and changes nothing. `fresh`: this
-- try inserted it (an inserted version was locked by nobody).
-- name: part_start
s as (
    insert into perdure.workflow (app, id, run, lineage, name, version, status, reason, detail, claim, owner, epoch,
        last_seq, until, timeout, deadline, created, updated, started, closed, parent, parent_run, parent_path,
        on_parent_close, queue, priority, fingerprint, attributes, intents, nonce, versioning, partition, lane, expires,
        cause, watched)
    select :app, u.id, u.run, u.lineage, u.name, u.version, u.status, nullif(u.reason, 'paused'), u.detail, u.claim, u.owner,
        case when u.claim is null then 0 else 1 end, u.last_seq,
        case when u.status in (0, 1) then coalesce(u.until, (select now from t) + coalesce(u.delay, 0))
            when u.status = 3 then u.until end,
        u.timeout,
        case when u.claim is null or u.timeout is null then u.deadline else least(u.deadline, (select now from t) + u.timeout) end,
        (select now from t), (select now from t), case when u.claim is not null then coalesce(u.began, (select now from t)) end, case when u.status >= 5 then (select now from t) end,
        u.parent, u.parent_run, u.parent_path, u.on_parent_close, u.queue, u.priority, u.fingerprint, u.attributes,
        u.intents, u.nonce, u.versioning, u.partition, u.lane,
        coalesce(u.until, (select now from t) + coalesce(u.delay, 0)) + u.expires,
        case when u.status = 1 and u.claim is not null and u.reason is null then 2 else 0 end,
        v.waiter is not null
    from unnest(:s_id::text[], :s_run::int[], :s_lineage::bytea[], :s_name::text[], :s_version::text[],
        :s_status::smallint[], :s_reason::text[], :s_detail::text[], :s_claim::bytea[], :s_owner::bytea[],
        :s_last::int[], :s_delay::bigint[], :s_until::bigint[], :s_timeout::bigint[], :s_deadline::bigint[], :s_began::bigint[],
        :s_parent::text[], :s_parent_run::int[], :s_parent_path::text[], :s_on_close::text[], :s_queue::text[],
        :s_priority::int[], :s_fingerprint::bytea[], :s_attributes::text[], :s_intents::text[], :s_nonce::bytea[],
        :s_versioning::smallint[], :s_partition::text[], :s_lane::text[], :s_expires::bigint[])
        u (id, run, lineage, name, version, status, reason, detail, claim, owner, last_seq, delay, until, timeout,
        deadline, began, parent, parent_run, parent_path, on_parent_close, queue, priority, fingerprint, attributes,
        intents, nonce, versioning, partition, lane, expires)
    left join lateral (select waiter from perdure.watch where app = :app and target = u.id limit 1) v on true
    where (select ok from g)
    on conflict (app, id) do update set nonce = excluded.nonce
        where workflow.nonce = excluded.nonce and workflow.run = excluded.run
    returning id, claim, parent, xmax = 0 as fresh),
payload_start as (
    insert into perdure.payload (app, id, run, input, outcome, output)
    select :app, u.id, u.run, u.input, u.outcome, u.output
    from unnest(:s_id::text[], :s_run::int[], :s_input::text[], :s_outcome::smallint[], :s_output::text[])
        u (id, run, input, outcome, output)
    where u.id in (select id from s)
    on conflict (app, id, run) do nothing)

-- The runs started here that are mine: what else their units carry stands or falls with them.
-- name: part_own
own as materialized (
    select s.id, s.fresh from s join unnest(:s_id::text[], :s_claim::bytea[]) u (id, claim) on u.id = s.id
    where s.claim is not distinct from u.claim)

-- Records of fenced runs. One that another write put there first is an error (a null nonce), never a silent loss.
-- name: part_history
h as (
    insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
        intents, version, nonce)
    select :app, u.id, u.run, u.seq, u.path, u.kind, u.name, u.at, u.fingerprint, u.outcome, u.data, u.attempt,
        u.shown, u.intents, u.version, u.nonce
    from unnest(:h_id::text[], :h_run::int[], :h_seq::int[], :h_path::text[], :h_kind::smallint[], :h_name::text[],
        :h_at::bigint[], :h_fingerprint::bytea[], :h_outcome::smallint[], :h_data::text[], :h_attempt::int[],
        :h_shown::text[], :h_intents::text[], :h_version::text[], :h_nonce::bytea[])
        u (id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown, intents, version, nonce)
    where (select ok from g)
    on conflict (app, id, run, seq) do update
        set nonce = case when history.nonce = excluded.nonce then excluded.nonce end)

-- Records where some belong to runs started here.
-- name: part_history_own
h as (
    insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
        intents, version, nonce)
    select :app, u.id, u.run, u.seq, u.path, u.kind, u.name, u.at, u.fingerprint, u.outcome, u.data, u.attempt,
        u.shown, u.intents, u.version, u.nonce
    from unnest(:h_id::text[], :h_run::int[], :h_seq::int[], :h_path::text[], :h_kind::smallint[], :h_name::text[],
        :h_at::bigint[], :h_fingerprint::bytea[], :h_outcome::smallint[], :h_data::text[], :h_attempt::int[],
        :h_shown::text[], :h_intents::text[], :h_version::text[], :h_nonce::bytea[], :h_own::text[])
        u (id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown, intents, version, nonce,
        own)
    where (select ok from g) and (u.own is null or u.own in (select id from own))
    on conflict (app, id, run, seq) do update
        set nonce = case when history.nonce = excluded.nonce then excluded.nonce end)

-- (A pause that was taken back meanwhile, `@taken_back`, hands the run back; see text.py.)
-- One change of each row, as an insert that always finds its row: the row is locked by `l`, so it exists, and an
-- upsert goes by the key whatever the planner thinks of the table, where an update's join may be planned as a scan. A
-- closed row, or one that has the status already, stays as it is: this is the second try of what made it so.
-- name: part_change
c as (
    insert into perdure.workflow (app, id, run, lineage, name, version, created, fingerprint, nonce,
        status, reason, detail, updated, until, closed, last_seq)
    select :app, u.id, 1, '', '', '', 0, '', '',
        u.status, u.reason, u.detail, (select now from t),
        case when u.status = 1 then (select now from t) else u.until end,
        case when u.status >= 5 then (select now from t) end,
        case when u.last_seq > 0 then u.last_seq else coalesce((
            select h.seq from perdure.history h
            where h.app = :app and h.id = u.id and h.run = u.run order by h.seq desc limit 1), 0) end
    from unnest(:c_id::text[], :c_status::smallint[], :c_reason::text[], :c_detail::text[], :c_until::bigint[],
        :c_last::int[], :c_run::int[]) u (id, status, reason, detail, until, last_seq, run)
    where (select ok from g)
    on conflict (app, id) do update
        set status = case when @taken_back then 1 else excluded.status end,
            reason = case when @taken_back then null else excluded.reason end,
            detail = case when @taken_back then '' else excluded.detail end, owner = null,
            until = case when @taken_back then excluded.updated else excluded.until end,
            pause = case when excluded.reason = 'paused' then null else workflow.pause end,
            cause = case when excluded.status = 1 then 2 else 0 end,
            attempts = case when excluded.status = 3 then 0 else workflow.attempts end,
            versioning = case when excluded.status = 3 and workflow.override >= 10 then workflow.override - 10
                else workflow.versioning end,
            override = case when excluded.status = 3 and workflow.override >= 10 then null else workflow.override end,
            updated = excluded.updated, closed = excluded.closed,
            last_seq = greatest(workflow.last_seq, excluded.last_seq)
        where workflow.status < 5 and workflow.status <> excluded.status
            and (workflow.status <> 1 or excluded.reason is distinct from 'paused')
    returning id)

-- The commands to cancel that were acted on here: each is its target's own, though several may share a nonce.
-- name: part_commands
q as materialized (
    select u.dest, min(w.cancel) as cancel
    from unnest(:d_dest::text[], :d_nonce::bytea[]) u (dest, nonce)
    cross join lateral (
        select cancel from perdure.wake where app = :app and dest = u.dest and nonce = u.nonce offset 0) w
    where w.cancel is not null
    group by u.dest)

-- The same change, noting the reason of a command to cancel, so that it outlives the wake row; and the note alone where
-- nothing else of the row changes.
-- name: part_change_noted
c as (
    insert into perdure.workflow (app, id, run, lineage, name, version, created, fingerprint, nonce,
        status, reason, detail, updated, until, closed, last_seq)
    select :app, u.id, 1, '', '', '', 0, '', '',
        u.status, u.reason, u.detail, (select now from t),
        case when u.status = 1 then (select now from t) else u.until end,
        case when u.status >= 5 then (select now from t) end,
        case when u.last_seq > 0 then u.last_seq else coalesce((
            select h.seq from perdure.history h
            where h.app = :app and h.id = u.id and h.run = u.run order by h.seq desc limit 1), 0) end
    from unnest(:c_id::text[], :c_status::smallint[], :c_reason::text[], :c_detail::text[], :c_until::bigint[],
        :c_last::int[], :c_run::int[]) u (id, status, reason, detail, until, last_seq, run)
    where (select ok from g)
    on conflict (app, id) do update
        set status = case when @taken_back then 1 else excluded.status end,
            reason = case when @taken_back then null else excluded.reason end,
            detail = case when @taken_back then '' else excluded.detail end, owner = null,
            until = case when @taken_back then excluded.updated else excluded.until end,
            pause = case when excluded.reason = 'paused' then null else workflow.pause end,
            cause = case when excluded.status = 1 then 2 else 0 end,
            attempts = case when excluded.status = 3 then 0 else workflow.attempts end,
            versioning = case when excluded.status = 3 and workflow.override >= 10 then workflow.override - 10
                else workflow.versioning end,
            override = case when excluded.status = 3 and workflow.override >= 10 then null else workflow.override end,
            updated = excluded.updated, closed = excluded.closed,
            last_seq = greatest(workflow.last_seq, excluded.last_seq),
            cancel = coalesce(workflow.cancel, (select q.cancel from q where q.dest = workflow.id))
        where workflow.status < 5 and workflow.status <> excluded.status
            and (workflow.status <> 1 or excluded.reason is distinct from 'paused')
    returning id),
n as (
    insert into perdure.workflow (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce,
        cancel)
    select :app, q.dest, 1, '', '', '', 0, 0, 0, '', '', q.cancel from q
    where (select ok from g) and q.dest = any(:n_id::text[])
    on conflict (app, id) do update set cancel = coalesce(workflow.cancel, excluded.cancel))

-- Outcomes of the runs that close.
-- name: part_outcome
o as (
    insert into perdure.payload (app, id, run, input, outcome, output)
    select :app, u.id, u.run, '', u.outcome, u.output
    from unnest(:p_id::text[], :p_run::int[], :p_outcome::smallint[], :p_output::text[])
        u (id, run, outcome, output)
    where (select ok from g)
    on conflict (app, id, run) do update set outcome = excluded.outcome, output = excluded.output)

-- A closed run needs no wakes. (By place, looked up through the key: wake rows never change, so none moves.)
-- name: part_clear
x as (
    delete from perdure.wake k
    where (select ok from g) and k.ctid = any(array(
        select w.ctid from unnest(:p_id::text[]) u (dest)
        cross join lateral (select ctid from perdure.wake where app = :app and dest = u.dest offset 0) w)))

-- Wakes from the runs that close by this very change (a second try has nothing to tell), for parents and as cancel
-- commands for children, if they are open. Whoever was deleted is told nothing: the next workflow of its id would hear it;
-- nor is a run that somebody else has begun in the place of a child.
-- name: part_wake
k as (
    insert into perdure.wake (app, dest, nonce, cancel)
    select :app, u.dest, u.nonce, u.cancel
    from unnest(:k_dest::text[], :k_nonce::bytea[], :k_cancel::text[], :k_by::text[]) u (dest, nonce, cancel, by)
    cross join lateral (
        select status, parent from perdure.workflow where app = :app and id = u.dest offset 0) w
    where u.by in (select id from c) and w.status < 5 and (u.cancel is null or w.parent = u.by)
    on conflict do nothing)

-- The same of runs started here, with wakes for whoever watched for them before they were.
-- name: part_wake_start
k as (
    insert into perdure.wake (app, dest, nonce, cancel)
    select :app, u.dest, u.nonce, u.cancel
    from unnest(:k_dest::text[], :k_nonce::bytea[], :k_cancel::text[], :k_by::text[]) u (dest, nonce, cancel, by)
    left join lateral (
        select status, parent from perdure.workflow where app = :app and id = u.dest offset 0) w on true
    where u.by in (select id from own where fresh)
        and (w.status < 5 and (u.cancel is null or w.parent = u.by)
            or u.cancel is null and u.dest in (select id from s where fresh)
            or u.cancel is not null and (u.dest, u.by) in (select id, parent from s where fresh))
    union all
    select :app, v.waiter, u.nonce, null
    from unnest(:v_id::text[], :v_nonce::bytea[]) u (id, nonce)
    cross join lateral (select waiter from perdure.watch where app = :app and target = u.id offset 0) v
    where u.id in (select id from own where fresh)
    on conflict do nothing)

-- The same of both; parent or child may have been started by this statement.
-- name: part_wake_both
k as (
    insert into perdure.wake (app, dest, nonce, cancel)
    select :app, u.dest, u.nonce, u.cancel
    from unnest(:k_dest::text[], :k_nonce::bytea[], :k_cancel::text[], :k_by::text[]) u (dest, nonce, cancel, by)
    left join lateral (
        select status, parent from perdure.workflow where app = :app and id = u.dest offset 0) w on true
    where (u.by in (select id from c) or u.by in (select id from own where fresh))
        and (w.status < 5 and (u.cancel is null or w.parent = u.by)
            or u.cancel is null and u.dest in (select id from s where fresh)
            or u.cancel is not null and (u.dest, u.by) in (select id, parent from s where fresh))
    union all
    select :app, v.waiter, u.nonce, null
    from unnest(:v_id::text[], :v_nonce::bytea[]) u (id, nonce)
    cross join lateral (select waiter from perdure.watch where app = :app and target = u.id offset 0) v
    where u.id in (select id from own where fresh)
    on conflict do nothing)

-- Wake rows that were acted on.
-- name: part_woken
d as (
    delete from perdure.wake k
    where (select ok from g) and k.ctid = any(array(
        select w.ctid from unnest(:d_dest::text[], :d_nonce::bytea[]) u (dest, nonce)
        cross join lateral (
            select ctid from perdure.wake where app = :app and dest = u.dest and nonce = u.nonce offset 0) w
        where not u.dest = any(:p_id::text[]))))

-- Messages that their records have received; the mark of a first try stays.
-- name: part_taken
r as (
    insert into perdure.message (app, dest, mid, topic, data, sender, at, taken_run, taken_seq)
    select :app, u.dest, u.mid, '', '', '', 0, u.run, u.seq
    from unnest(:r_dest::text[], :r_mid::bytea[], :r_run::int[], :r_seq::int[]) u (dest, mid, run, seq)
    cross join lateral (
        select mid from perdure.message where app = :app and dest = u.dest and mid = u.mid offset 0) m
    where (select ok from g)
    on conflict (app, dest, mid) do update set taken_run = excluded.taken_run, taken_seq = excluded.taken_seq
        where message.taken_seq is null)

-- Messages to workflows that are open or need no check, each with its wake; and the latest values of events.
-- name: part_send
m as (
    insert into perdure.message (app, dest, mid, topic, data, sender, at, key)
    select :app, u.dest, u.mid, u.topic, u.data, u.sender, (select now from t), u.key
    from unnest(:m_dest::text[], :m_mid::bytea[], :m_topic::text[], :m_data::text[], :m_sender::text[],
        :m_key::text[], :m_known::boolean[], :m_own::text[]) u (dest, mid, topic, data, sender, key, known, own)
    left join lateral (
        select status from perdure.workflow where app = :app and id = u.dest offset 0) w on true
    where (select ok from g) and (u.own is null or u.own in (select id from own))
        and (u.known or u.dest in (select id from s)
            or w.status < 5)
    on conflict do nothing
    returning mid),
mail as (
    insert into perdure.wake (app, dest, nonce)
    select :app, u.dest, u.nonce from unnest(:m_dest::text[], :m_mid::bytea[], :m_wake::bytea[]) u (dest, mid, nonce)
    left join lateral (
        select status from perdure.workflow where app = :app and id = u.dest offset 0) w on true
    where u.mid in (select mid from m) and u.nonce is not null and coalesce(w.status, 0) < 5
    on conflict do nothing),
e as (
    insert into perdure.event (app, id, run, name, data, at)
    select :app, u.id, u.run, u.name, u.data, (select now from t)
    from unnest(:e_id::text[], :e_run::int[], :e_name::text[], :e_data::text[], :e_own::text[])
        u (id, run, name, data, own)
    where (select ok from g) and (u.own is null or u.own in (select id from own))
    on conflict (app, id, run, name) do update set data = excluded.data, at = excluded.at
        where event.data is distinct from excluded.data)

-- What a batch without starts and messages answers: the locked rows come back only if the fence refused.
-- name: answer_fence
select g.ok, coalesce(:now::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint),
    case when not g.ok then (select array_agg(id) from l) end,
    case when not g.ok then (select array_agg(claim) from l) end,
    case when not g.ok then (select array_agg(run) from l) end
from g

-- The same, and whether all starts took; if not, those that did and their tokens.
-- name: answer_start
select g.ok, t.now,
    case when not g.ok then (select array_agg(id) from l) end,
    case when not g.ok then (select array_agg(claim) from l) end,
    case when not g.ok then (select array_agg(run) from l) end,
    z.all_took, case when not z.all_took then z.ids end, case when not z.all_took then z.claims end
from g, t, (select coalesce(array_agg(id), '{}') = :s_id::text[] and coalesce(array_agg(claim), '{}') = :s_claim::bytea[]
    as all_took, array_agg(id) as ids, array_agg(claim) as claims from s) z

-- The same for starts alone.
-- name: answer_start_only
select true, t.now, null, null, null,
    z.all_took, case when not z.all_took then z.ids end, case when not z.all_took then z.claims end
from t, (select coalesce(array_agg(id), '{}') = :s_id::text[] and coalesce(array_agg(claim), '{}') = :s_claim::bytea[]
    as all_took, array_agg(id) as ids, array_agg(claim) as claims from s) z

-- The same, and how many messages were inserted.
-- name: answer_all
select g.ok, t.now,
    case when not g.ok then (select array_agg(id) from l) end,
    case when not g.ok then (select array_agg(claim) from l) end,
    case when not g.ok then (select array_agg(run) from l) end,
    z.all_took, case when not z.all_took then z.ids end, case when not z.all_took then z.claims end,
    (select count(*) from m)
from g, t, (select coalesce(array_agg(id), '{}') = :s_id::text[] and coalesce(array_agg(claim), '{}') = :s_claim::bytea[]
    as all_took, array_agg(id) as ids, array_agg(claim) as claims from s) z
