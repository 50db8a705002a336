-- Durable topics that something was published to: how far each one has counted. Never goes back, so
-- offsets mean the same for as long as this database lives.
create table belfry_topics (
  name text primary key,
  "offset" integer not null,  -- of the last publication
  at integer not null         -- ms since 1970; not before that of any publication
) strict, without rowid;

-- What is kept of them. Later offsets are not of earlier times.
create table belfry_publications (
  topic text not null,
  "offset" integer not null,
  at integer not null,        -- ms since 1970
  data text not null,         -- JSON
  primary key (topic, "offset")
) strict, without rowid;

-- Replay since a time, and pruning by age.
create index belfry_publications_at on belfry_publications (topic, at);
