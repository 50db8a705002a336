/** What the energy app stores. Each primary key begins with the region, so "this region, newest first" needs no index of its own. */
import { index, integer, primaryKey, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'

/** Five-minute dispatch. `at` ends the interval; `price` is AUD/MWh; the rest is MW, `interchange` positive for export. */
export const spot = sqliteTable(
  'spot',
  {
    region: text().notNull(),
    at: integer({ mode: 'timestamp_ms' }).notNull(),
    price: real().notNull(),
    demand: real().notNull(),
    generation: real(),
    interchange: real(),
    source: text().notNull(),
  },
  (t) => [primaryKey({ columns: [t.region, t.at] }), index('spot_newest').on(t.at, t.region)],
)

/** Prices of the ten frequency control services, AUD per MW per hour. Null: not in that file. */
export const fcas = sqliteTable(
  'fcas',
  {
    region: text().notNull(),
    at: integer({ mode: 'timestamp_ms' }).notNull(),
    raise1sec: real(),
    raise6sec: real(),
    raise60sec: real(),
    raise5min: real(),
    raisereg: real(),
    lower1sec: real(),
    lower6sec: real(),
    lower60sec: real(),
    lower5min: real(),
    lowerreg: real(),
    source: text().notNull(),
  },
  (t) => [primaryKey({ columns: [t.region, t.at] }), index('fcas_newest').on(t.at, t.region)],
)

/**
 * Forward prices by contract period ('2026Q4'). No public forward curve may be redistributed, so
 * nothing is recorded here: the table is empty until a scraper posts to `/api/prices/forward`.
 */
export const forward = sqliteTable(
  'forward',
  {
    region: text().notNull(),
    period: text().notNull(),
    product: text({ enum: ['base', 'peak'] }).notNull(),
    price: real().notNull(),
    at: integer({ mode: 'timestamp_ms' }).notNull(),
    source: text().notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.region, t.period, t.product] }),
    index('forward_period').on(t.period, t.region, t.product),
    index('forward_product').on(t.product, t.region, t.period),
  ],
)

/** Day-ahead half hours, MW. POE10 is exceeded once in ten; `actual` is null until it has happened. */
export const forecast = sqliteTable(
  'forecast',
  {
    region: text().notNull(),
    at: integer({ mode: 'timestamp_ms' }).notNull(),
    issuedAt: integer('issued_at', { mode: 'timestamp_ms' }).notNull(),
    poe10: real().notNull(),
    poe50: real().notNull(),
    poe90: real().notNull(),
    actual: real(),
    rooftopPoe10: real('rooftop_poe10'),
    rooftopPoe50: real('rooftop_poe50'),
    rooftopPoe90: real('rooftop_poe90'),
    rooftopActual: real('rooftop_actual'),
    source: text().notNull(),
  },
  (t) => [primaryKey({ columns: [t.region, t.at] }), index('forecast_newest').on(t.at, t.region)],
)
