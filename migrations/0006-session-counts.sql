-- How many sessions each owner has in the table, for the limit on them: counting the rows themselves for each new one
-- would take the longer the more there are. Every statement that adds or removes sessions changes it as well, so that
-- it is exact; expired sessions count until they are removed, which the statement that finds no room does first.
--
-- max_sessions and admitted say under which limit, and how many, the last statement that wanted to add some has added:
-- within that statement there is no other place for it.
create table sipher_sessions.session_counts (
  owner_id text primary key,
  sessions int not null,
  max_sessions int not null,
  admitted int not null
) with (fillfactor = 50);

insert into sipher_sessions.session_counts (owner_id, sessions, max_sessions, admitted)
select owner_id, count(*), 0, 0 from sipher_sessions.sessions group by owner_id;
