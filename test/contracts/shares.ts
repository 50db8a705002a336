/** What every shape of a database must do for units that nodes share; run beside the store's own contract. */
import { expect, test } from 'bun:test'
import { systemClock } from '../../src/lib/clock.ts'
import { createShares, type Share, type ShareOptions, type Shares } from '../../src/store/store.ts'
import { createTestLog, until, type TestStore } from '../harness.ts'
import type { Shape } from './store.ts'

/** As in life, in smaller steps. */
const bounds = { leaseMs: 1_000, renewMs: 200, hurryMs: 20 }

interface Node {
  readonly shares: Shares
  join(options?: Partial<ShareOptions>): Share
  /** It dies: nothing of it is heard any more. */
  die(): void
}

function nodeOn(store: TestStore): Node {
  let isDead = false
  const shares = createShares(
    {
      store: {
        read: (...asked) => (isDead ? new Promise(() => {}) : store.read(...asked)),
        writeAside: (ops) => (isDead ? new Promise(() => {}) : store.writeAside(ops)),
      },
      clock: systemClock,
      log: createTestLog(),
    },
    { isShared: true },
    bounds,
  )
  return {
    shares,
    join: (options = {}) =>
      shares.join('calls', {
        ...{ capacity: 10, demand: () => 10, inUse: () => 0, settleMs: 50, ...options },
      }),
    die: () => void (isDead = true),
  }
}

export function sharesContract(start: () => Promise<Shape>): void {
  test('shares: one has all, two have halves, who leaves or dies leaves its own to the other', async () => {
    await using shape = await start()
    await using store = await shape.open()
    const changes: unknown[] = []
    store.onChange((change) => void changes.push(change))
    const nodes = [nodeOn(store), nodeOn(store), nodeOn(store)] as const
    const [a, b, c] = nodes
    const first = a.join()
    expect(first.units).toBe(0)
    await until(() => first.units === 10, 'all units for the first')
    const second = b.join()
    await until(() => first.units === 5 && second.units === 5, 'halves')
    await second.leave()
    expect(second.units).toBe(0)
    await until(() => first.units === 10, 'all of them again')
    const third = c.join()
    await until(() => first.units === 5 && third.units === 5, 'halves again')
    c.die()
    await until(() => third.units === 0 && first.units === 10, 'the dead one’s')
    expect(changes).toEqual([])
    await a.shares.stop()
    const left = "select count(*) from belfry_shares where until > unixepoch('subsec') * 1000"
    expect(await store.read({ sql: left, params: [] })).toEqual([[0]])
  })

  test('shares: a lease is one’s until it ends, then another’s; units in use are not handed on', async () => {
    await using shape = await start()
    await using store = await shape.open()
    const [a, b] = [nodeOn(store), nodeOn(store)]
    let isBusy = true
    const one = { capacity: 1, demand: () => 1, settleMs: 200 }
    const first = a.join({ ...one, inUse: () => Number(isBusy) })
    await until(() => first.units === 1, 'the lease')
    const second = b.join(one)
    const changes: number[] = []
    second.onChange(() => void changes.push(second.units))
    const told = new Promise<void>((resolve) => first.onChange(resolve))
    await first.leave()
    await told
    expect(second.units).toBe(0)
    isBusy = false
    await until(() => second.units === 1, 'the lease of the other')
    expect(changes).toEqual([1])
    await a.shares.stop()
    await b.shares.stop()
  })

  test('shares: a rest that one says is the other’s, too', async () => {
    await using shape = await start()
    await using store = await shape.open()
    const [a, b] = [nodeOn(store), nodeOn(store)]
    const [first, second] = [a.join(), b.join()]
    await until(() => first.units > 0 && second.units > 0, 'units')
    const told = new Promise<void>((resolve) => second.onChange(resolve))
    const saidAt = systemClock.tick()
    first.rest(60_000)
    await told
    await until(() => second.restsUntil > 0, 'the rest')
    expect(second.restsUntil).toBeGreaterThan(saidAt + 59_900)
    expect(second.restsUntil).toBeLessThan(systemClock.tick() + 60_100)
    await a.shares.stop()
    await b.shares.stop()
  })
}
