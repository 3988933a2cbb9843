-- Who changed which key or session, when, and which properties: their names, never their values. Written by the statement
-- that makes the change, so that there is never one without the other.
--
-- key_id is the key, or the host's own caller, that it is about; subject is the key or the beginning of the session's id,
-- which identifies it and is not enough to use it.
create table sipher_sessions.audit (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  actor text not null,
  action text not null,
  key_id text not null,
  subject text not null,
  properties text[] not null
);

create index audit_key_id on sipher_sessions.audit (key_id, id);

-- Changes to keys are few among those to sessions, and would be looked for long.
create index audit_key_changes on sipher_sessions.audit (action, id) where action like 'key.%';
