-- Streams. ?1 is the app, ?2 the id, ?3 the run (of values: the chain), ?4 the name.

-- A stream of a run: its chain, how many values it has, whether it is closed, who wrote last.
-- name: stream_head
select chain, next, closed, nonce from stream where app = ?1 and id = ?2 and run = ?3 and name = ?4

-- Puts down what a unit made of a stream: its chain ?5, its count ?6, closed ?7, by ?8 at ?9.
-- name: stream_put
insert into stream (app, id, run, name, chain, next, closed, nonce, at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
on conflict (app, id, run, name) do update
    set next = excluded.next, closed = excluded.closed, nonce = excluded.nonce, at = excluded.at

-- Whether a value was written: by the run ?5, at path ?6 the ?7th.
-- name: stream_written
select 1 from stream_value
where app = ?1 and id = ?2 and chain = ?3 and name = ?4 and run = ?5 and path = ?6 and n = ?7

-- Appends a value at the place ?5.
-- name: stream_append
insert into stream_value (app, id, chain, name, place, run, path, n, data, at)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)

-- What a reader must know of a workflow and its stream ?3: status, chain, count, closed.
-- name: stream_read
select w.status, s.chain, s.next, s.closed
from workflow w left join stream s on s.app = w.app and s.id = w.id and s.run = w.run and s.name = ?3
where w.app = ?1 and w.id = ?2

-- What of the chain ?4 stands as it stood in the chains that followed: whether there are any, and up to where.
-- name: stream_kept
select count(*) > 0, iif(count(kept) = count(*), min(kept), null) from stream
where app = ?1 and id = ?2 and name = ?3 and chain > ?4 and run = chain

-- Values from the place ?5 on, ?6 at most.
-- name: stream_values
select data from stream_value where app = ?1 and id = ?2 and chain = ?3 and name = ?4 and place >= ?5 order by place limit ?6

-- The streams of a run go on in the next.
-- name: stream_continue
insert into stream (app, id, run, name, chain, next, closed, nonce, at)
select app, id, run + 1, name, chain, next, closed, nonce, at from stream where app = ?1 and id = ?2 and run = ?3

-- Copies the values of the run ?3 of ?2 to the run ?5 of ?4: what its records up to ?9 and the runs before it wrote,
-- numbered anew. ?6 is the kind of a record of a stream, ?8 that of a step's outcome.
-- name: stream_values_copy
insert into stream_value (app, id, chain, name, place, run, path, n, data, at)
select v.app, ?4, ?5, v.name, row_number() over (partition by v.name order by v.place) - 1, v.run - ?3 + ?5, v.path, v.n,
    v.data, v.at
from stream s cross join stream_value v on v.app = s.app and v.id = s.id and v.chain = s.chain and v.name = s.name
where s.app = ?1 and s.id = ?2 and s.run = ?3
    and (v.run < ?3 or v.path in (
        select path from history where app = ?1 and id = ?2 and run = ?3 and seq <= ?9 and kind in (?6, ?8)))

-- The streams themselves, after their values. ?7 is the fingerprint of a record that closes one.
-- name: stream_copy
insert into stream (app, id, run, name, chain, next, closed, nonce, at, kept)
select s.app, ?4, ?5, s.name, ?5,
    (select count(*) from stream_value v where v.app = ?1 and v.id = ?4 and v.chain = ?5 and v.name = s.name),
    s.closed and (
        exists (
            select 1 from history h where h.app = ?1 and h.id = ?2 and h.run = ?3 and h.seq <= ?9 and h.kind = ?6
                and h.name = s.name and h.fingerprint = ?7)
        or not exists (
            select 1 from history h where h.app = ?1 and h.id = ?2 and h.run = ?3 and h.seq > ?9 and h.kind = ?6
                and h.name = s.name and h.fingerprint = ?7)),
    s.nonce, s.at,
    coalesce(
        (select min(v.place) from stream_value v
            where v.app = ?1 and v.id = ?2 and v.chain = s.chain and v.name = s.name and v.run = ?3 and v.path not in (
                select path from history where app = ?1 and id = ?2 and run = ?3 and seq <= ?9 and kind in (?6, ?8))),
        s.next)
from stream s where s.app = ?1 and s.id = ?2 and s.run = ?3

-- Records of a run after ?4, ?5 at most.
-- name: records_after
select seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown, intents, version
from history where app = ?1 and id = ?2 and run = ?3 and seq > ?4 order by seq limit ?5
