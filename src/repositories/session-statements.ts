// The statements of the session repository. Calls of the same time share one, so their parameters are arrays. Each locks its
// rows in one order, sessions before counts, so that no two wait for each other in a circle.
import { auditSessions } from '../plugins/audit-repository.js'
import { isFrom, milliseconds, onlyOneSweeps, opaque } from './sql.js'

const values = 'defaults::text, nullif(secrets, \'{}\')::text as secrets'

/** @param lastAccessedAt SQL */
const times = (lastAccessedAt: string) => `${milliseconds('expires_at')} as "expiresAt", ${milliseconds(lastAccessedAt)} as "lastAccessedAt"`

/** The ids that a statement is given. */
const ids = opaque('$1::bytea[]')

/** A session is found again by its place in what was asked for, which is shorter than its id. */
const position = `array_position(${ids}, id) as position`

const stale = 'last_accessed_at < now() - interval \'1 minute\''

/**
 * Whether a session has not expired. In a form that no index serves: a statement finds its sessions by their ids, and a
 * plan that is kept must not go through the index of the times because the table was small when it was made.
 */
const live = '(expires_at > now()) is true'

/** Where a session's row is, if its last access was noted so long ago that this one is worth a write; else null. */
const staleCtid = `case when ${stale} then ctid end as "staleCtid"`

/** For each of the ids `$1` that is a session's, what it holds. */
export const forUseText = `
  select ${position}, owner_id as "ownerId", ${values}, ${staleCtid}
  from sipher_sessions.sessions
  where id = any (${ids}::bytea[]) and ${live}`

/**
 * The same with its times. To read a session is to use it: where the access is worth noting, the time is now, whether
 * that has been noted yet or not.
 */
export const byIdText = `
  select ${position}, owner_id as "ownerId", ${values}, ${milliseconds('created_at')} as "createdAt",
    ${times(`case when ${stale} then now() else last_accessed_at end`)}, ${staleCtid}
  from sipher_sessions.sessions
  where id = any (${ids}::bytea[]) and ${live}`

/**
 * The part of a statement that takes sessions off their owners' counts, one for each row of `gone`, which is its owner. By an
 * insert that always finds the row, because that locks rows in a given order, and an update does not.
 */
const uncount = (gone: string) => `
  uncounted as (
    insert into sipher_sessions.session_counts as counts (owner_id, sessions, max_sessions, admitted)
    select owner_id, -count(*), 0, 0 from ${gone} as gone (owner_id) group by owner_id order by owner_id
    on conflict (owner_id) do update set sessions = counts.sessions + excluded.sessions
  )`

/** Properties are given as JSON; of both kinds of values, as they are stored, the names alone. */
const namesOf = (defaults: string, secrets: string) => `array(select jsonb_object_keys(${defaults} || ${secrets}))`

/**
 * Stores sessions, and answers in one row when, and the positions of those that were refused. Of an owner's new ones as many
 * are stored as there is room for. The count decides, under its row's lock: of statements at the same time each sees what
 * those before it have taken. Where an owner's limits differ, for its tier was
 * changed meanwhile, the least counts: who is refused by another's asks again.
 */
export const insertText = `
  with given as (
    select *, row_number() over (partition by owner_id order by position) as number
    from unnest(${ids}, $2::text[], $3::jsonb[], $4::jsonb[], $5::int[], $6::int[]) with ordinality
      as given (id, owner_id, defaults, secrets, ttl_seconds, max_sessions, position)
  ), counted as (
    insert into sipher_sessions.session_counts as counts (owner_id, sessions, max_sessions, admitted)
    select owner_id, least(count(*), min(max_sessions)), min(max_sessions), least(count(*), min(max_sessions))
    from given group by owner_id order by owner_id
    on conflict (owner_id) do update set
      sessions = counts.sessions + greatest(0, least(excluded.admitted, excluded.max_sessions - counts.sessions)),
      max_sessions = excluded.max_sessions,
      admitted = greatest(0, least(excluded.admitted, excluded.max_sessions - counts.sessions))
    returning owner_id, admitted
  ), created as (
    insert into sipher_sessions.sessions (id, owner_id, defaults, secrets, expires_at)
    select id, owner_id, defaults, secrets, now() + make_interval(secs => ttl_seconds)
    from given join counted using (owner_id)
    where number <= admitted
    returning id, owner_id, defaults, secrets
  ), audited as (${auditSessions('session.create', 'created', namesOf('defaults', 'secrets'))})
  select ${milliseconds('now()')} as "createdAt",
    array(select position::int from given join counted using (owner_id) where number > admitted) as refused`

/**
 * Merges values into sessions. One with secrets that stay is left alone until they are known to be readable, which only
 * the process can tell: else what was committed could not be answered. So is one where a secret property, of the names `$6`, has a
 * plain value, from before it was secret.
 */
export const patchText = `
  with given as (
    select *, ${namesOf('defaults', 'secrets')} as names
    from unnest(${ids}, $2::text[], $3::jsonb[], $4::jsonb[], $5::boolean[]) with ordinality
      as given (id, owner_id, defaults, secrets, checked, position)
  ), held as (
    select session.id
    from sipher_sessions.sessions as session join given on given.id = session.id and given.owner_id = session.owner_id
    where session.id = any (${ids}::bytea[]) and ${live}
      and (given.checked or session.secrets - given.names = '{}' and not session.defaults ?| $6::text[])
    order by session.id
    for update of session
  ), patched as (
    update sipher_sessions.sessions as session
    set
      defaults = (session.defaults - given.names) || given.defaults,
      secrets = (session.secrets - given.names) || given.secrets,
      last_accessed_at = greatest(session.last_accessed_at, now())
    from given
    where session.id = any (array(select id from held)) and session.id = given.id and session.owner_id = given.owner_id
    returning session.*, given.names, given.position
  ), audited as (${auditSessions('session.update', 'patched', 'names')})
  select position::int, ${values}, ${times('last_accessed_at')} from patched`

/**
 * Deletes the sessions whose ids `$1` and owners `$2` are given, and answers the positions of those that are none. They are
 * taken off the owners' counts later.
 */
export const removeText = `
  with given as (
    select * from unnest(${ids}, $2::text[]) with ordinality as given (id, owner_id, position)
  ), locked as (
    select session.id
    from sipher_sessions.sessions as session join given on given.id = session.id and given.owner_id = session.owner_id
    where session.id = any (${ids}::bytea[]) and ${live}
    order by session.id
    for update of session
  ), deleted as (
    delete from sipher_sessions.sessions
    where id = any (array(select id from locked))
    returning id, owner_id
  ), removed as (
    insert into sipher_sessions.session_removals (owner_ids)
    select array_agg(owner_id) from deleted having count(*) > 0
  ), audited as (${auditSessions('session.delete', 'deleted')})
  select position::int from given where (id, owner_id) not in (select id, owner_id from deleted)`

/**
 * Notes that the sessions whose rows were at `$1` when they were read, and whose ids are `$2`, are used. To go to their rows
 * by the index, which a read has just done, would take twice as long. A row that has moved since was changed or noted; one
 * that is another session's by now has another id, which is compared in a form that no index serves, as is `live`.
 *
 * Rows that another statement holds are skipped: it deletes or patches them, or notes the same access.
 */
export const noteAccessText = `
  update sipher_sessions.sessions set last_accessed_at = now()
  where ctid = any (array(
      select session.ctid
      from unnest(${opaque('$1::tid[]')}, ${opaque('$2::bytea[]')}) as used (ctid, id) join sipher_sessions.sessions as session on session.ctid = used.ctid
      where (session.id = used.id) is true and ${stale} and ${live}
      for update of session skip locked
    ))`

const expired = 'expires_at <= now()'

/** How many sessions each of the owners `$1` has that have not expired. */
export const countLiveText = `
  select owner_id as "ownerId", (
    coalesce((select sessions from sipher_sessions.session_counts as counts where counts.owner_id = given.owner_id), 0)
    - (select count(*) from sipher_sessions.session_removals, unnest(owner_ids) as removed (owner_id) where removed.owner_id = given.owner_id)
    - (select count(*) from sipher_sessions.sessions as session where session.owner_id = given.owner_id and ${expired})
  )::int as live
  from unnest($1::text[]) as given (owner_id)`

/**
 * Removes at most `$1` sessions that have expired, from the time `$2` on; none while another instance removes what has.
 *
 * They are found again by their places, as above: sessions that expire together may have their ids all over the index. One that
 * has moved in the meantime is left to the next sweep.
 */
export const deleteExpiredText = `
  with deleted as (
    delete from sipher_sessions.sessions
    where ctid = any (array(
      select ctid from sipher_sessions.sessions
      where ${onlyOneSweeps} and ${expired} and ${isFrom('expires_at', '$2')}
      order by expires_at
      limit $1::int
      for update skip locked
    ))
    returning owner_id, expires_at
  ), ${uncount('deleted')}
  select count(*)::int as count, ${milliseconds('max(expires_at)')} as last from deleted`

/** Takes what at most `$1` statements have deleted off the owners' counts. */
export const uncountRemovedText = `
  with taken as (
    delete from sipher_sessions.session_removals
    where ctid = any (array(
      select ctid from sipher_sessions.session_removals
      limit $1::int
      for update skip locked
    ))
    returning owner_ids
  ), ${uncount('(select unnest(owner_ids) from taken)')}
  select count(*)::int as count, null as last from taken`

/**
 * Takes off the count of the owner `$1` what no longer takes up room: what was deleted, and at most `$2` sessions that have
 * expired, which are removed, but for those that a sweep is removing.
 */
export const makeRoomText = `
  with expired as (
    delete from sipher_sessions.sessions
    where id = any (array(
      select id from sipher_sessions.sessions
      where owner_id = $1::text and ${expired}
      order by expires_at
      limit $2::int
      for update skip locked
    ))
    returning owner_id
  ), taken as (
    delete from sipher_sessions.session_removals
    where ctid = any (array(
      select ctid from sipher_sessions.session_removals
      where $1::text = any (owner_ids)
      order by ctid
      for update
    ))
    returning owner_ids
  ), gone as (
    select owner_id from expired union all select unnest(owner_ids) from taken
  ), ${uncount('gone')}
  select 1`
