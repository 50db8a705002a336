/**
 * Allowances: so many of something in a period, by all nodes and all their lives together (calls of an API's monthly
 * quota). A process draws some ahead, in the table of shares; what it drew stays its own until the period is over, so
 * that the total never exceeds, and a crash costs what was drawn and not spent.
 */
import type { Clock } from '../lib/clock.ts'
import type { Store } from './store.ts'

export interface Draw {
  /** Of the period, too. */
  readonly name: string
  /** In all, the same for everybody. */
  readonly capacity: number
  /** What this process is to have, of all it had in the period; fewer than before gives back. */
  readonly units: number
  /** End of the period by the database's clock, ms since 1970: forgotten a day later. */
  readonly endsAtMs: number
}

export interface Drawn {
  /** What it has now. */
  readonly units: number
  /** What is left for anybody. */
  readonly left: number
}

export interface Allowances {
  /** Ms since 1970, by the database. */
  now(): Promise<number>
  /** Faults: `unavailable`; whether it was drawn is not known then, and the next one mends it. */
  draw(draw: Draw): Promise<Drawn>
}

/** Somebody's clock may be behind. */
const keptMs = 24 * 60 * 60 * 1_000

export function createAllowances({
  store,
  clock,
}: {
  readonly store: Pick<Store, 'read' | 'writeAside'>
  readonly clock: Clock
}): Allowances {
  const holder = crypto.randomUUID()
  let turn = 0

  return {
    async now() {
      const [row] = await store.read({ sql: `select ${now}`, params: [] }, { from: 'primary' })
      return Number(row?.[0] ?? clock.now())
    },
    async draw({ name, capacity, units, endsAtMs }) {
      turn++
      const params = [name, holder, units, capacity, turn, endsAtMs + keptMs]
      await store.writeAside([{ sql: drawUnits, params }])
      const rows = await store.read(
        { name: 'allowance', sql: selectUnits, params: [name, holder] },
        { from: 'primary' },
      )
      const [own, all] = rows[0] ?? []
      return { units: Number(own ?? 0), left: capacity - Number(all ?? 0) }
    },
  }
}

const now = `cast(unixepoch('subsec') * 1000 as integer)`

const drawUnits = `insert into belfry_shares (name, holder, units, wants, turn, until)
select ?1, ?2, max(0, min(?3, ?4 - (
  select coalesce(sum(units), 0) from belfry_shares where name = ?1 and holder <> ?2
))), 0, ?5, ?6
where true on conflict (name, holder) do update set units = excluded.units, turn = excluded.turn
where excluded.turn > belfry_shares.turn`

const selectUnits = `select sum(units) filter (where holder = ?2), sum(units) from belfry_shares where name = ?1`
