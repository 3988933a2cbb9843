-- How many requests each principal has made in its hour.
--
-- UNLOGGED: a count that a crash of PostgreSQL resets costs an operator nothing that matters, and one in the log would
-- cost a flush for each request. No foreign key, for the reason that sessions have none.
--
-- Half of each page is left free, so that the next count, which changes no indexed column, finds room beside the last.
create unlogged table sipher_sessions.request_counts (
  principal_id text primary key,
  window_start timestamptz not null,
  requests int not null
) with (fillfactor = 50);

-- For the sweep of counts whose hour is over.
create index request_counts_window_start on sipher_sessions.request_counts (window_start);
