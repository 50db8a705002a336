/**
 * `CONSISTENCY_SEED=7 CONSISTENCY_MS=60000 bun test test/flows/consistency.test.ts -t never`
 * runs it again, or for longer.
 */
import { describe, expect, test } from 'bun:test'
import type { CacheRead } from '../../src/cache/cache.ts'
import type { Request } from '../../src/store/messages.ts'
import { tempFolder } from '../harness.ts'
import { requireService, startRedis, startSqld } from '../services.ts'
import type { Rule } from './consistency-check.ts'
import type { Tamper } from './consistency-node.ts'
import { runConsistency, type Member, type RunOptions } from './consistency-run.ts'

const seed = Number(process.env['CONSISTENCY_SEED'] ?? Date.now() % 1_000_000)
const ms = Number(process.env['CONSISTENCY_MS'] ?? 8_000)
const readsMin = Number(process.env['CONSISTENCY_READS'] ?? 100_000)
const shown = 10
/** A rule that is switched off must show within so long: seconds, where others leave the machine alone. */
const caughtMs = 25_000

const members: readonly Member[] = [
  { name: 'remote, redis', kind: 'remote', hasRedis: true },
  { name: 'remote, redis too', kind: 'remote', hasRedis: true },
  { name: 'remote, only reads', kind: 'remote', hasRedis: false, isReader: true },
  { name: 'embedded, redis', kind: 'embedded', hasRedis: true },
  { name: 'embedded, only reads', kind: 'embedded', hasRedis: false, isReader: true },
  { name: 'file, redis', kind: 'file', hasRedis: true },
]
const [first, second, reader, embedded] = members as [Member, Member, Member, Member]

async function run(options: Omit<RunOptions, 'folder' | 'redis' | 'sqld'>) {
  using folder = tempFolder()
  await using sqld = await startSqld()
  await using redis = await startRedis()
  const report = await runConsistency({ ...options, folder, sqld, redis })
  console.log(`consistency ${report.summary}`)
  return report
}

/** Changes what store threads are told, until disposed of. */
function tamperWithThreads(change: (role: string, message: Request) => Request): Disposable {
  const { Worker } = globalThis
  globalThis.Worker = class extends Worker {
    #role = ''
    override postMessage(message: Request): void {
      if (message.kind === 'open') this.#role = message.options.role
      super.postMessage(change(this.#role, message))
    }
  }
  return { [Symbol.dispose]: () => void (globalThis.Worker = Worker) }
}

const isRun = requireService('sqld') !== undefined && requireService('redis-server') !== undefined

test.skipIf(!isRun)(
  `never stale: whatever is read was current late enough (seed ${seed})`,
  async () => {
    const { violations, reads, states } = await run({ seed, members, ms, reads: readsMin })
    expect(violations.slice(0, shown)).toEqual([])
    expect(reads).toBeGreaterThanOrEqual(readsMin)
    // Every way to an answer was taken.
    expect(Object.entries(states).filter(([, count]) => count === 0)).toEqual([])
  },
  ms * 8 + 60_000,
)

describe.skipIf(!isRun)(`a rule that is switched off is caught (seed ${seed})`, () => {
  const caught = (what: string, among: readonly Member[], rules: readonly Rule[], tamper: Tamper) =>
    test(
      what,
      async () => {
        const options = { seed, members: among, ms: caughtMs, reads: 0, tamper }
        const { violations } = await run({ ...options, isUntilCaught: true })
        expect(violations[0]?.rule).toBeOneOf([...rules])
      },
      caughtMs + 60_000,
    )
  const early: readonly Rule[] = ['own', 'applied']

  caught('whoever asks joins any load under way', [first, second], early, {
    cache(cache) {
      const underWay = new Map<string, Promise<CacheRead>>()
      return {
        read(key, tags, policy, load) {
          const joined = underWay.get(key)
          if (joined) return joined
          const read = cache.read(key, tags, policy, load)
          if (!(read instanceof Promise)) return read
          underWay.set(key, read)
          const forget = () => void underWay.delete(key)
          read.then(forget, forget)
          return read
        },
      }
    },
  })

  caught('a load that was under way during a write is kept', [first, second], early, {
    cache: (cache) => ({
      read: (key, tags, policy, from) =>
        cache.read(key, tags, policy, async (minSeq) => {
          // What the cache takes for a load of this moment began earlier.
          const body =
            typeof from === 'function' ? await from(minSeq) : (await from.load(minSeq)).body
          const again = await cache.read(`${key} kept`, tags, policy, () => Promise.resolve(body))
          return again.entry.isAbsent ? undefined : again.entry.body
        }),
    }),
  })

  caught('what others left in Redis is always valid', [first, second], early, {
    shared: (tier) => ({
      ...tier,
      get isUp() {
        return tier.isUp
      },
      async get(key) {
        const entry = await tier.get(key)
        return entry && { ...entry, asOf: Number.MAX_SAFE_INTEGER }
      },
    }),
  })

  caught('one change in 5 is not applied', [first, second], early, {
    apply: (apply) => (seq, tags, change) => {
      if (seq % 5 !== 0) apply(seq, tags, change)
    },
  })

  caught('changes are applied a moment late', [first], early, {
    apply: (apply) => (seq, tags, change) => void setTimeout(() => apply(seq, tags, change), 20),
  })

  caught('an entry lacks one of its tags', [first, second], early, {
    cache: (cache) => ({
      read: (key, tags, policy, load) => cache.read(key, tags.slice(1), policy, load),
    }),
  })

  caught('a load asks a copy that is behind', [embedded, first], early, {
    read: (read) => (query, asked) => read(query, { ...asked, minSeq: 0 }),
  })

  caught('nobody polls', [first, { ...reader, isReader: true }], ['bound'], {
    clock: (clock) => ({ ...clock, every: () => () => {} }),
  })

  test(
    'a copy that was synced tells nobody',
    async () => {
      // What it is followed by is asked of the thread that syncs, and nothing else is.
      using _ = tamperWithThreads((role, message) =>
        role === 'replica' && message.kind === 'read'
          ? { ...message, query: { sql: 'select 1 where 0', params: [] } }
          : message,
      )
      const among = [first, { ...embedded, hasRedis: false, isReader: true }]
      const options = { seed, members: among, ms: caughtMs, reads: 0, isUntilCaught: true }
      const { violations } = await run(options)
      expect(violations[0]?.rule).toBe('bound')
    },
    caughtMs + 60_000,
  )

  caught('an invalidation by key is not heard of', [first], early, {
    cache: (cache) => ({
      read(key, tags, policy, load) {
        const named = tags.filter((tag) => !tag.startsWith('key:'))
        return cache.read(key, named, policy, load)
      },
    }),
  })

  caught('an invalidation by tag is not heard of', [first], early, {
    cache: (cache) => ({
      read(key, tags, policy, load) {
        const named = tags.filter((tag) => !tag.startsWith('tag:'))
        return cache.read(key, named, policy, load)
      },
    }),
  })

  caught('half of a write is shown', [first], ['unknown'], {
    read: (read) => async (query, asked) => {
      const rows = await read(query, asked)
      return rows.length > 3 ? rows.slice(1) : rows
    },
  })
})
