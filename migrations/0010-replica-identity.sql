-- Without a key of its own a table that is published, as for moving to another server by logical replication, takes no deletes
-- unless its rows are told apart by all that is in them.
alter table sipher_sessions.session_removals replica identity full;
