-- Streams. The parts of a commit that append (see commit.sql), then what else is done with streams; `$1` is the app.

-- Appends to streams of fenced runs. `a`: what is to be appended, each beside the stream as it was, `fresh` if it is no
-- second write of the same (path, n). `b`: the streams' rows; by the nonce, a second try of the same unit, which may not see
-- the values of the first, changes nothing and is answered with the same places. A stream that is closed stays as it is:
-- the places that come out are then taken, or none.
-- name: part_fresh
a as materialized (
    select u.id, u.run, u.name, u.path, u.n, u.data, u.nonce, u.data is not null and v.n is null as fresh,
        count(*) filter (where u.data is not null and v.n is null) over (partition by u.id, u.name order by u.nth) as nth,
        count(*) filter (where u.data is not null and v.n is null) over (partition by u.id, u.name) as total
    from unnest(:a_id::text[], :a_run::int[], :a_name::text[], :a_path::text[], :a_n::int[], :a_data::text[],
        :a_nonce::bytea[], :a_nth::int[], :a_own::text[]) u (id, run, name, path, n, data, nonce, nth, own)
    left join lateral (
        select chain from perdure.stream where app = :app and id = u.id and run = u.run and name = u.name offset 0
    ) s on true
    left join lateral (
        select n from perdure.stream_value
        where app = :app and id = u.id and chain = s.chain and name = u.name and run = u.run and path = u.path
            and n = u.n offset 0) v on true
    where (select ok from g))

-- The same where some belong to runs started here.
-- name: part_fresh_own
a as materialized (
    select u.id, u.run, u.name, u.path, u.n, u.data, u.nonce, u.data is not null and v.n is null as fresh,
        count(*) filter (where u.data is not null and v.n is null) over (partition by u.id, u.name order by u.nth) as nth,
        count(*) filter (where u.data is not null and v.n is null) over (partition by u.id, u.name) as total
    from unnest(:a_id::text[], :a_run::int[], :a_name::text[], :a_path::text[], :a_n::int[], :a_data::text[],
        :a_nonce::bytea[], :a_nth::int[], :a_own::text[]) u (id, run, name, path, n, data, nonce, nth, own)
    left join lateral (
        select chain from perdure.stream where app = :app and id = u.id and run = u.run and name = u.name offset 0
    ) s on true
    left join lateral (
        select n from perdure.stream_value
        where app = :app and id = u.id and chain = s.chain and name = u.name and run = u.run and path = u.path
            and n = u.n offset 0) v on true
    where (select ok from g) and (u.own is null or u.own in (select id from own)))

-- Puts them there, whoever they belong to.
-- name: part_append
b as (
    insert into perdure.stream (app, id, run, name, chain, next, closed, nonce, at)
    select :app, a.id, a.run, a.name, a.run, max(a.total), bool_or(a.data is null), (array_agg(a.nonce))[1],
        (select now from t)
    from a group by a.id, a.run, a.name
    on conflict (app, id, run, name) do update set
        next = case when stream.nonce = excluded.nonce or stream.closed then stream.next else stream.next + excluded.next end,
        closed = stream.closed or excluded.closed, nonce = excluded.nonce,
        at = case when stream.nonce = excluded.nonce then stream.at else excluded.at end
    returning id, name, chain, next),
v as (
    insert into perdure.stream_value (app, id, chain, name, place, run, path, n, data, at)
    select :app, a.id, b.chain, a.name, b.next - a.total + a.nth - 1, a.run, a.path, a.n, a.data, (select now from t)
    from a join b on b.id = a.id and b.name = a.name
    where a.fresh and b.next - a.total + a.nth > 0
    on conflict do nothing)

-- What there is for readers (id, name, place, chain, limit): a row for each value, one without a value where none is.
-- name: streams
select k.n, w.status, s.chain, s.next, s.closed, l.moved, l.kept, f.place, v.data
from unnest($2::text[], $3::text[], $4::bigint[], $5::int[], $6::int[]) with ordinality k (id, name, place, chain, up_to, n)
cross join lateral (select run, status from perdure.workflow where app = $1 and id = k.id offset 0) w
left join lateral (
    select chain, next, closed from perdure.stream where app = $1 and id = k.id and run = w.run and name = k.name offset 0
) s on true
cross join lateral (
    select count(*) > 0 as moved, case when not bool_or(kept is null) then min(kept) end as kept
    from perdure.stream
    where app = $1 and id = k.id and name = k.name and k.chain > 0 and chain > k.chain and run = chain offset 0) l
cross join lateral (
    select case when k.chain = 0 or k.chain = s.chain then k.place when l.moved then least(k.place, l.kept) end as place) f
left join lateral (
    select place, data from perdure.stream_value
    where app = $1 and id = k.id and chain = s.chain and name = k.name and place >= f.place
    order by place limit k.up_to) v on f.place is not null
order by k.n, v.place

-- Who wrote last to the streams of a run.
-- name: stream_nonces
select k.n, s.nonce
from unnest($2::text[], $3::int[], $4::text[]) with ordinality k (id, run, name, n)
cross join lateral (
    select nonce from perdure.stream where app = $1 and id = k.id and run = k.run and name = k.name offset 0) s

-- The streams of the run `$3` go on in the next.
-- name: stream_continue
insert into perdure.stream (app, id, run, name, chain, next, closed, nonce, at)
select app, id, run + 1, name, chain, next, closed, nonce, at from perdure.stream where app = $1 and id = $2 and run = $3

-- Copies the streams of the run `$3` of `$2` to the run `$5` of `$4`: what its records up to
-- `$9` and the runs before it wrote, numbered anew. `$6` is the kind of a record of a stream, `$7` the fingerprint of one
-- that closes it, `$8` the kind of a step's outcome.
-- name: stream_copy
with s as materialized (
    select * from perdure.stream where app = $1 and id = $2 and run = $3),
r as materialized (
    select path, kind, name, fingerprint from perdure.history
    where app = $1 and id = $2 and run = $3 and seq <= $9 and kind in ($6, $8)),
v as materialized (
    select x.*, x.run < $3 or x.path in (select path from r) as stays
    from s cross join lateral (
        select * from perdure.stream_value where app = $1 and id = $2 and chain = s.chain and name = s.name offset 0) x),
w as (
    insert into perdure.stream_value (app, id, chain, name, place, run, path, n, data, at)
    select app, $4, $5, name, row_number() over (partition by name order by place) - 1, run - $3 + $5, path, n, data, at
    from v where stays),
c as materialized (
    select name, count(*) filter (where stays) as next, min(place) filter (where not stays) as cut from v group by name)
insert into perdure.stream (app, id, run, name, chain, next, closed, nonce, at, kept)
select $1, $4, $5, s.name, $5, coalesce(c.next, 0),
    s.closed and (
        s.name in (select name from r where kind = $6 and fingerprint = $7)
        or not exists (
            select from perdure.history h
            where h.app = $1 and h.id = $2 and h.run = $3 and h.seq > $9 and h.kind = $6 and h.name = s.name
                and h.fingerprint = $7)),
    s.nonce, s.at, coalesce(c.cut, c.next, 0)
from s left join c on c.name = s.name

-- Records of a run after `$4`.
-- name: records_after
select null, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown, intents, version
from perdure.history where app = $1 and id = $2 and run = $3 and seq > $4 order by seq limit $5
