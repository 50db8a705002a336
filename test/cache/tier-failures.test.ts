/**
 * Redis in every kind of trouble, under load, through a link that can be made bad. In each: no `get` takes
 * longer than the time-out, none rejects, nothing piles up, an outage costs one time-out a window at most, and
 * the tier is of use again within 5 s of Redis, by itself.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { RedisStats } from '../../src/store/store.ts'
import { entryOf } from '../contracts/tier.ts'
import { until } from '../harness.ts'
import { startProxy, type Proxy } from '../proxy.ts'
import { freePort, requireService, startRedis, type Service } from '../services.ts'
import { openRedis, settled, type TestRedis } from './redis.ts'

/** The time-out is 100 ms, and 50 more if our own loop was late. How late it was is measured, and added. */
const getMsMax = 200

const recoveryMsMax = 5_000

const workers = 16

/** Nothing but the time-outs of life. */
const asInLife = { commandMs: undefined }

interface Load extends AsyncDisposable {
  readonly gets: number
  readonly hits: number
  readonly slowestMs: number
  /** The longest that a timer of 1 ms took: how busy this machine is. One is always running. */
  readonly stallMs: number
  /** Moments at which commands were given up, all of one moment counted once. */
  readonly waits: number
  readonly pendingMax: number
}

/** Gets and sets at once by many, as fast as a server with 16 requests under way would. */
function startLoad({ tier, redis }: TestRedis): Load {
  let isOver = false
  let timeouts = 0
  const seen = { gets: 0, hits: 0, slowestMs: 0, stallMs: 0, waits: 0, pendingMax: 0 }
  const body = new Uint8Array(2_048).fill(7)

  const work = async (worker: number): Promise<void> => {
    for (let turn = 0; !isOver; turn++) {
      const key = `k${(worker * 7 + turn) % 50}`
      const before = performance.now()
      const entry = await tier.get(key)
      const after = performance.now()
      seen.gets++
      if (entry) seen.hits++
      else tier.set(key, entryOf(body), 60_000)
      seen.slowestMs = Math.max(seen.slowestMs, after - before)
      seen.pendingMax = Math.max(seen.pendingMax, redis.stats().pending)
      // By what Redis' side says, and not by how long it took: a busy machine is slow for other reasons, too.
      if (redis.stats().timeouts > timeouts) seen.waits++
      timeouts = redis.stats().timeouts
      await Bun.sleep(1)
    }
  }
  const pulse = async (): Promise<void> => {
    while (!isOver) {
      const restedMs = performance.now()
      await Bun.sleep(1)
      seen.stallMs = Math.max(seen.stallMs, performance.now() - restedMs)
    }
  }
  const running = Promise.all([
    pulse(),
    ...Array.from({ length: workers }, (_, worker) => work(worker)),
  ])
  return {
    get gets() {
      return seen.gets
    },
    get hits() {
      return seen.hits
    },
    get slowestMs() {
      return seen.slowestMs
    },
    get stallMs() {
      return seen.stallMs
    },
    get waits() {
      return seen.waits
    },
    get pendingMax() {
      return seen.pendingMax
    },
    async [Symbol.asyncDispose]() {
      isOver = true
      await running
    },
  }
}

interface Trouble {
  readonly server: Service
  readonly link: Proxy
  readonly opened: TestRedis
}

/** For so long it is bad: three windows of the breaker. */
const badMs = 3_200
const windowMs = 1_000

describe.skipIf(!requireService('redis-server'))('under load, while Redis', () => {
  const unhandled: unknown[] = []
  const note = (reason: unknown): void => void unhandled.push(reason)
  beforeAll(() => void process.on('unhandledRejection', note))
  afterAll(() => {
    process.off('unhandledRejection', note)
    expect(unhandled).toEqual([])
  })

  const trouble = (
    name: string,
    begin: (it: Trouble) => void | Promise<unknown>,
    end: (it: Trouble) => void | Promise<unknown>,
    check: (now: RedisStats, from: RedisStats) => void = () => undefined,
  ): void =>
    test.concurrent(name, async () => {
      await using server = await startRedis()
      await using link = await startProxy({ target: server.port })
      await using opened = await openRedis(link.port, asInLife)
      const it = { server, link, opened }
      await using load = startLoad(opened)
      await until(() => load.hits > 100, 'it is of use')

      const [begunAtMs, waits] = [performance.now(), load.waits]
      await begin(it)
      await until(() => !opened.tier.isUp, 'it is known to be away')
      const [from, gets] = [opened.redis.stats(), load.gets]
      await Bun.sleep(badMs)
      // Served all the while, from nothing.
      expect(load.gets - gets).toBeGreaterThan(workers * 10)
      const windows = Math.ceil((performance.now() - begunAtMs) / windowMs)
      expect(load.waits - waits).toBeLessThanOrEqual(1 + windows)
      check(opened.redis.stats(), from)

      await end(it)
      const hits = load.hits
      await until(() => load.hits > hits + 100, 'it is of use again', recoveryMsMax)
      expect(load.slowestMs).toBeLessThan(getMsMax + 2 * load.stallMs)
      expect(load.pendingMax).toBeLessThanOrEqual(2 * workers)
      await load[Symbol.asyncDispose]()
      await settled(opened)
      expect(opened.redis.stats()).toMatchObject({ pending: 0, pendingBytes: 0, isUp: true })
    })

  trouble(
    'is dead, then started empty',
    ({ server }) => server.kill(),
    ({ server }) => server.restart(),
    // A dead server refuses: nobody waits for anything.
    (now, from) => expect(now.timeouts).toBe(from.timeouts),
  )
  trouble(
    'stands still (SIGSTOP)',
    ({ server }) => server.pause(),
    ({ server }) => server.resume(),
  )
  trouble(
    'cannot be reached',
    ({ link }) => link.cut(),
    ({ link }) => link.resume(),
  )
  trouble(
    'is behind a link that swallows',
    ({ link }) => link.halfOpen(),
    ({ link }) => link.resume(),
  )
  trouble(
    'is 500 ms away each way',
    ({ link }) => link.setDelay(500),
    ({ link }) => link.setDelay(0),
    // Slow is not dead: the connection stays.
    (now, from) => expect([now.connects, now.opened]).toEqual([from.connects, from.opened]),
  )

  test.concurrent('was never there: the tier answers at once, and finds it later', async () => {
    const port = await freePort()
    await using opened = await openRedis(port, { isUp: false, ...asInLife })
    await using load = startLoad(opened)
    await until(() => load.gets > 1_000, 'it is asked')
    expect(load.slowestMs).toBeLessThan(getMsMax + 2 * load.stallMs)
    expect(opened.redis.stats()).toMatchObject({ commands: 0, pending: 0, isUp: false })
    await using _ = await startRedis({ port })
    await until(() => load.hits > 100, 'it is of use', recoveryMsMax)
    // One line for all the tries.
    const events = opened.log.lines.map(({ event }) => event)
    expect(events.slice(0, 2)).toEqual(['redis.away', 'redis.up'])
  })

  test.concurrent('is full: sets are refused and not repeated, gets go on, room is found', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const { tier, redis } = opened
    const admin = new Bun.RedisClient(server.url)
    tier.set('kept', entryOf('kept'), 60_000)
    await settled(opened)
    await admin.send('CONFIG', ['SET', 'maxmemory', '1mb', 'maxmemory-policy', 'noeviction'])

    for (let turn = 0; turn < 200; turn++) {
      tier.set(`k${turn}`, entryOf(new Uint8Array(50_000)), 60_000)
      await tier.get('kept')
    }
    await settled(opened)
    expect(tier.stats().hits).toBe(200)
    // One was refused, those on their way with it, and no other was tried.
    expect(tier.stats().failures).toBeWithin(1, 20)
    expect(tier.stats().skipped).toBeGreaterThan(150)
    expect(redis.stats()).toMatchObject({ opened: 0, timeouts: 0 })
    expect(opened.log.lines.filter(({ event }) => event === 'redis.refuses').length).toBe(1)

    await admin.send('CONFIG', ['SET', 'maxmemory', '0'])
    await until(
      async () => {
        tier.set('new', entryOf('new'), 60_000)
        return (await tier.get('new')) !== undefined
      },
      'sets are tried again',
      15_000,
    )
    admin.close()
  })

  test.concurrent('stands still again and again: one time-out a window', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port, asInLife)
    await using load = startLoad(opened)
    await until(() => load.hits > 100, 'it is of use')
    const from = opened.redis.stats().opened
    const before = performance.now()
    while (performance.now() - before < badMs) {
      server.pause()
      await Bun.sleep(150)
      server.resume()
      await Bun.sleep(50)
    }
    const windows = Math.ceil((performance.now() - before) / windowMs)
    expect(opened.redis.stats().opened - from).toBeWithin(1, 2 + windows)
    expect(load.slowestMs).toBeLessThan(getMsMax + 2 * load.stallMs)
  })
})
