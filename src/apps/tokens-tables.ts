/** What the token app stores: the list of tokens, what each is worth, and candles. */
import { index, integer, primaryKey, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'

export const tokens = sqliteTable(
  'tokens',
  {
    mint: text({ length: 60 }).primaryKey(),
    symbol: text({ length: 40 }).notNull(),
    name: text({ length: 120 }).notNull(),
    decimals: integer().notNull(),
    logo: text({ length: 500 }).notNull(),
    /** Its place in the list. */
    rank: integer().notNull(),
  },
  (t) => [
    index('tokens_rank').on(t.rank, t.mint),
    index('tokens_symbol').on(t.symbol, t.rank, t.mint),
  ],
)

/** Of five minutes. `at` is when it opened; prices in USD; volume in units of the token's pair. */
export const candles = sqliteTable(
  'candles',
  {
    mint: text({ length: 60 }).notNull(),
    at: integer({ mode: 'timestamp_ms' }).notNull(),
    open: real().notNull(),
    high: real().notNull(),
    low: real().notNull(),
    close: real().notNull(),
    volume: real().notNull(),
  },
  (t) => [primaryKey({ columns: [t.mint, t.at] }), index('candles_at').on(t.at, t.mint)],
)
