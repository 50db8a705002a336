-- THE LOG: one entry for each change, written in the same transaction as the row.
-- AUTOINCREMENT, so that a pruned number is never given out again.
create table log (
  seq integer primary key autoincrement,
  at integer not null,      -- ms since 1970
  kind text not null,       -- 'row'
  subject text not null,    -- the table
  tags text not null,       -- JSON array: the cache tags this entry invalidates
  data text not null        -- JSON: { op, key, row }
) strict;
