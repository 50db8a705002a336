/**
 * A consistency run: nodes that read and write at random while their Redis is killed, paused and emptied
 * and their clocks jump; then every read is checked (`consistency-check.ts`).
 *
 * The seed decides what is asked, written, delayed and broken; how that interleaves is the machine's.
 */
import { createClient } from '@libsql/client/http'
import { Fault } from '../../src/fault.ts'
import type { CacheTag } from '../../src/collections/declare.ts'
import { must } from '../../src/lib/assert.ts'
import type { CacheRead } from '../../src/cache/cache.ts'
import type { Change, DatabaseOptions, Query } from '../../src/store/store.ts'
import { followMs } from '../../src/store/replica.ts'
import type { TempFolder } from '../harness.ts'
import { createRandom, type Random } from '../lib/random.ts'
import type { Service, Sqld } from '../services.ts'
import {
  check,
  type CheckInput,
  type Seen,
  type Violation,
  type Written,
} from './consistency-check.ts'
import {
  asks,
  groups,
  startNode,
  type Ask,
  type Node,
  type Tamper,
  type Value,
} from './consistency-node.ts'
import { readFileLog, readSqldLog } from './truth.ts'

/**
 * How old a value may be that another node than the writer shows: 250 ms of the poll, and 1,750 for its round
 * trips on a machine that others keep busy, from when a plain poll of the same database (`createLookout`)
 * has shown the newer one. Only time in which this process ran counts (`createCalmClock`).
 */
export const boundMs = 250 + 1_750

export interface Member {
  readonly name: string
  readonly kind: 'remote' | 'embedded' | 'file'
  readonly hasRedis: boolean
  /** It hears of writes only from others. */
  readonly isReader?: boolean
}

export interface RunOptions {
  readonly seed: number
  readonly members: readonly Member[]
  readonly folder: TempFolder
  readonly sqld: Sqld
  readonly redis: Service
  /** At least; a run goes on until both are reached, for at most eight times as long. */
  readonly ms: number
  readonly reads: number
  readonly tamper?: Tamper
  /** Looks at what was seen so far each second, and ends as soon as anything is wrong. */
  readonly isUntilCaught?: boolean
}

export interface Report {
  readonly violations: readonly Violation[]
  readonly reads: number
  readonly writes: number
  readonly states: Readonly<Record<string, number>>
  /** One line for people. */
  readonly summary: string
}

const postsCount = 30
const groupsCount = 5
const slugsCount = 40
const readersPerNode = 3
const writersPerNode = 2
const burstMax = 200

const sharedNamespace = 'consistency:shared'

export async function runConsistency(options: RunOptions): Promise<Report> {
  const { seed, members, folder, redis, sqld, tamper } = options
  await using stack = new AsyncDisposableStack()
  const calm = createCalmClock()
  stack.defer(calm.stop)
  const lookout = createLookout(sqld, calm.now)
  stack.defer(lookout.stop)
  const nodes: Node[] = []
  for (const { name, kind, hasRedis } of members) {
    const node = await startNode({
      name,
      database: databaseOf(kind, folder.file(name), sqld),
      namespace: kind === 'file' ? `consistency:${name}` : sharedNamespace,
      redisPort: hasRedis ? redis.port : undefined,
      random: createRandom(seed * 31 + nodes.length),
      tamper,
    })
    stack.use(node)
    nodes.push(node)
  }
  const failures: unknown[] = []
  const journals = nodes.map((node) => createJournal(node, calm.now, failures))
  for (const one of new Map(
    journals.map((journal) => [journal.node.namespace, journal]),
  ).values()) {
    await setUp(one)
  }

  let isOver = false
  const forever = async (step: () => Promise<unknown>): Promise<void> => {
    try {
      while (!isOver) await step()
    } catch (thrown) {
      failures.push(thrown)
    }
  }
  const lanes = journals.flatMap((journal, at) => {
    const writing = members[at]?.isReader ? 0 : writersPerNode
    const writers = Array.from({ length: writing }, (_, lane) => {
      const random = createRandom(seed * 1_000 + at * 10 + lane)
      return forever(() => writeSome(journal, random))
    })
    const readers = Array.from({ length: readersPerNode }, (_, lane) => {
      const random = createRandom(seed * 1_000_000 + at * 100 + lane)
      return forever(() => readSome(journal, random))
    })
    return [...writers, ...readers]
  })
  const random = createRandom(seed)
  const broken: string[] = []
  lanes.push(forever(async () => void broken.push(await disturb(redis, nodes, random))))

  const look = async (): Promise<ReturnType<typeof checkAll>> => {
    // What is read from now on may be newer than the log that it would be checked against.
    const answered = journals.map((one) => ({ ...one, seen: one.seen.slice() }))
    return checkAll(answered, await logs(), lookout.sightings)
  }
  const logs = async () => ({
    shared: await readSqldLog(sqld.url),
    own: (member: string) => readFileLog(folder.file(`${member}/data.db`)),
  })
  const startedAt = performance.now()
  const ran = (): number => performance.now() - startedAt
  const reads = (): number => journals.reduce((sum, { seen }) => sum + seen.length, 0)
  while (ran() < options.ms || reads() < options.reads) {
    await Bun.sleep(250)
    if (failures.length > 0 || ran() > options.ms * 8) break
    if (options.isUntilCaught && (await look()).violations.length > 0) break
  }
  isOver = true
  redis.resume()
  await Promise.all(lanes)
  const ms = ran()
  if (failures.length > 0) throw failures[0]

  const { violations, stalenessMs } = await look()
  const states = sumOf(nodes.map(({ cache }) => statesOf(cache.stats())))
  const late = stalenessMs.toSorted((a, b) => a - b)
  const quantile = (share: number) => Math.round(late[Math.floor(late.length * share)] ?? 0)
  const writes = journals.reduce((sum, { written }) => sum + written.length, 0)
  const summary =
    `seed ${seed}: ${reads()} reads, ${writes} writes in ${Math.round(ms)} ms on ${nodes.length} nodes; ` +
    `${JSON.stringify(states)}; older than the newest answered: ${late.length} reads, by ` +
    `${quantile(0.5)} ms (half), ${quantile(0.99)} (99 %), ${Math.round(late.at(-1) ?? 0)} (most); ` +
    `${journals.reduce((sum, one) => sum + one.refused(), 0)} refused; redis ${[...Map.groupBy(broken, (one) => one)].map(([one, all]) => `${one} ${all.length}`).join(', ')}; ` +
    `${violations.length} violations`
  return { violations, reads: reads(), writes, states, summary }
}

function databaseOf(kind: Member['kind'], folder: string, sqld: Sqld): DatabaseOptions {
  if (kind === 'file') return { kind, file: `${folder}/data.db`, replicas: [] }
  return {
    kind: 'remote',
    primary: { url: sqld.url },
    replicas: [],
    ...(kind === 'embedded' ? { replicaFile: `${folder}/replica.db` } : {}),
  }
}

/** Counts no time in which this process stood still: nobody could have polled then. */
function createCalmClock() {
  const stepMsMax = 25
  let [passed, last] = [0, performance.now()]
  const now = (): number => passed + Math.min(performance.now() - last, stepMsMax)
  const timer = setInterval(() => {
    passed = now()
    last = performance.now()
  }, 5)
  return { now, stop: () => clearInterval(timer) }
}

/** Asks as plainly as can be, as often as nodes do, how far the log is: no node can be asked to know more. */
function createLookout(sqld: Sqld, now: () => number) {
  const client = createClient({ url: sqld.url, intMode: 'number' })
  const sightings: { readonly seq: number; readonly ms: number }[] = []
  let isOver = false
  const look = async (): Promise<void> => {
    try {
      const { rows } = await client.execute('select max(seq) from log')
      sightings.push({ seq: Number(rows[0]?.[0] ?? 0), ms: now() })
    } catch {
      // Nobody has made the log yet.
    }
  }
  const running = (async () => {
    while (!isOver) {
      await look()
      await Bun.sleep(followMs)
    }
  })()
  const stop = async (): Promise<void> => {
    isOver = true
    await running
    client.close()
  }
  return { sightings, stop }
}

interface Journal {
  readonly node: Node
  readonly seen: Seen[]
  readonly written: Written[]
  /** Asked, and told that it cannot be had now. Such a write may have happened. */
  refused(): number
  ask(ask: Ask): Promise<void> | undefined
  write(ops: readonly Query[]): Promise<void>
  invalidate(...tags: readonly CacheTag[]): Promise<void>
}

function createJournal(node: Node, now: () => number, failures: unknown[]): Journal {
  const seen: Seen[] = []
  const written: Written[] = []
  const parsed = new WeakMap<Uint8Array, Map<Ask['about'], unknown>>()
  const decoder = new TextDecoder()
  let acked = 0
  let refused = 0

  const bodyOf = ({ entry: { body } }: CacheRead, about: string): unknown => {
    let known = parsed.get(body)
    if (!known) parsed.set(body, (known = new Map()))
    if (!known.has(about)) known.set(about, JSON.parse(decoder.decode(body)))
    return known.get(about)
  }

  const noted = (seqs: readonly number[], sentMs: number): void => {
    acked = Math.max(acked, ...seqs)
    if (seqs.length > 0) written.push({ seqs, sentMs, ackedMs: now() })
  }

  return {
    node,
    seen,
    written,
    refused: () => refused,
    ask(ask) {
      const start = {
        node: node.name,
        fromMs: now(),
        acked,
        applied: node.store.stats().seq,
      }
      const told = (read: CacheRead | Value | undefined): readonly [string, unknown] => {
        if (!read) return ['not found', undefined]
        if ('value' in read) return ['value', read.value]
        return [`${read.state}${read.isCoalesced ? ', joined' : ''}`, bodyOf(read, ask.about)]
      }
      const note = (read: CacheRead | Value | undefined): void => {
        const toMs = now()
        const [state, body] = told(read)
        for (const [view, text] of ask.understand(body)) {
          seen.push({ ...start, view, text, state, toMs })
        }
      }
      const fail = (thrown: unknown): void => {
        if (thrown instanceof Fault && thrown.code === 'not_found') note(undefined)
        else if (isOutage(thrown)) refused++
        else throw thrown
      }
      try {
        const read = ask.send(node)
        if (read instanceof Promise) {
          const done = read.then(note, fail)
          done.catch((thrown: unknown) => void failures.push(thrown))
          return done
        }
        note(read)
      } catch (thrown) {
        fail(thrown)
      }
      return undefined
    },
    async write(ops) {
      const sentMs = now()
      let changes: readonly Change[]
      try {
        changes = await node.store.write(ops)
      } catch (thrown) {
        if (!isOutage(thrown)) throw thrown
        refused++
        return
      }
      noted(
        changes.map(({ seq }) => seq),
        sentMs,
      )
    },
    async invalidate(...tags) {
      const sentMs = now()
      const own = `once ${++marks}`
      try {
        await node.values.invalidate(...tags, own)
      } catch (thrown) {
        if (!isOutage(thrown)) throw thrown
        refused++
        return
      }
      noted([must(node.invalidatedAt(own), () => 'its node is told before it is answered')], sentMs)
    },
  }
}

const isOutage = (thrown: unknown): boolean =>
  thrown instanceof Fault && (thrown.code === 'unavailable' || thrown.code === 'timeout')

function checkAll(
  journals: readonly Journal[],
  logs: { readonly shared: ReturnType<typeof readFileLog>; own: typeof readFileLog },
  sightings: CheckInput['sightings'],
) {
  const violations: Violation[] = []
  const stalenessMs: number[] = []
  for (const [namespace, group] of Map.groupBy(journals, ({ node }) => node.namespace)) {
    const isShared = namespace === sharedNamespace
    const log = isShared ? logs.shared : logs.own(group[0]?.node.name ?? '')
    const [written, seen] = [group.flatMap((one) => one.written), group.flatMap((one) => one.seen)]
    const checked = check({ log, written, seen, boundMs, sightings: isShared ? sightings : [] })
    violations.push(...checked.violations)
    for (const ms of checked.stalenessMs) stalenessMs.push(ms)
  }
  return { violations, stalenessMs }
}

function statesOf(stats: ReturnType<Node['cache']['stats']>): Record<string, number> {
  const { hits, sharedHits, misses, coalesced, stale, refreshes, held } = stats
  return { hits, sharedHits, misses, coalesced, stale, refreshes, held }
}

function sumOf(all: readonly Record<string, number>[]): Record<string, number> {
  const sum: Record<string, number> = {}
  for (const one of all) {
    for (const [name, count] of Object.entries(one)) sum[name] = (sum[name] ?? 0) + count
  }
  return sum
}

async function setUp(journal: Journal): Promise<void> {
  const group = 'insert into groups (id, mark) values (?, ?)'
  for (let id = 1; id <= groupsCount; id++) {
    await journal.write([{ sql: group, params: [id, `g${id}`] }])
  }
  for (let id = 1; id <= postsCount / 2; id++) {
    await journal.write([{ sql: insert, params: [id, 1 + (id % groupsCount), `s${id}`, `p${id}`] }])
  }
}

async function readSome({ ask }: Journal, random: Random): Promise<void> {
  const waiting: (Promise<void> | undefined)[] = []
  for (let left = 1 + random.below(burstMax); left > 0; left--) waiting.push(ask(anyAsk(random)))
  if (random.next() < 0.3) await Promise.all(waiting)
  else await waiting.find((one) => one !== undefined)
  await Bun.sleep(random.below(40))
}

function anyAsk(random: Random): Ask {
  const chance = random.next()
  const groupId = 1 + random.below(groupsCount)
  // Some are asked for much more than others.
  const postId = 1 + Math.floor(postsCount * random.next() ** 2)
  if (chance < 0.4) return asks.post(postId, chance < 0.06)
  if (chance < 0.48) return asks.value(groupId, chance < 0.43)
  if (chance < 0.5) return asks.allAsValue()
  if (chance < 0.6) return asks.slug(`s${1 + random.below(slugsCount)}`)
  if (chance < 0.7) return asks.group(groupId)
  if (chance < 0.8) return asks.all(chance < 0.72)
  return chance < 0.9 ? asks.filtered(groupId) : asks.children(groupId)
}

const insert =
  'insert into posts (id, groupId, slug, mark) values (?, ?, ?, ?) on conflict do nothing'
let marks = 0

async function writeSome(journal: Journal, random: Random): Promise<void> {
  const { write, ask } = journal
  // Between two writes there is time for hits, now and then for many.
  const pause = random.next() < 0.05 ? 1_500 : 150
  await Bun.sleep(random.below(pause))
  const id = 1 + random.below(postsCount)
  const other = 1 + random.below(postsCount)
  const groupId = 1 + random.below(groupsCount)
  const slug = `s${1 + random.below(slugsCount)}`
  const mark = `m${++marks}`
  const chance = random.next()
  const set = { sql: 'update posts set mark = ? where id = ?', params: [mark, id] }
  if (chance < 0.2) await write([set])
  else if (chance < 0.38) await write([{ sql: insert, params: [id, groupId, slug, mark] }])
  else if (chance < 0.5) await write([{ sql: 'delete from posts where id = ?', params: [id] }])
  else if (chance < 0.6) {
    const sql = 'update or ignore posts set groupId = ?, slug = ?, mark = ? where id = ?'
    await write([{ sql, params: [groupId, slug, mark, id] }])
  } else if (chance < 0.7) {
    // Nobody may see the one without the other.
    await write([set, { sql: set.sql, params: [mark, other] }])
  } else {
    await write([{ sql: 'update groups set mark = ? where id = ?', params: [mark, groupId] }])
    if (random.next() < 0.7) await invalidateSome(journal, groupId, random)
  }
  if (random.next() < 0.05) await invalidateSome(journal, groupId, random)
  const asked = [
    ...[asks.post(id), asks.post(id, true), asks.post(other), asks.group(groupId)].map(ask),
    ...[asks.all(), asks.slug(slug), asks.filtered(groupId), asks.children(groupId)].map(ask),
    ...[asks.value(groupId), asks.value(groupId, true), asks.allAsValue()].map(ask),
  ]
  // Else the next write may come while these are still loaded.
  if (random.next() < 0.3) await Promise.all(asked)
}

/** By tag, by key, by everything under a key, by table: most of them end the group's value. */
async function invalidateSome(
  { invalidate }: Journal,
  groupId: number,
  random: Random,
): Promise<void> {
  const parity = groupId % 2 === 0 ? 'even' : 'odd'
  const chance = random.next()
  if (chance < 0.4) await invalidate(parity)
  else if (chance < 0.7) await invalidate(`marks:${groupId}:*`)
  else if (chance < 0.9) await invalidate('marks:*')
  else await invalidate(groups)
}

/** One disturbance and its end. */
async function disturb(redis: Service, nodes: readonly Node[], random: Random): Promise<string> {
  await Bun.sleep(100 + random.below(600))
  const ms = 100 + random.below(1_000)
  const chance = random.next()
  for (const node of nodes) {
    if (random.next() < 0.5) node.jump(Math.round((random.next() - 0.3) * 60_000))
  }
  if (chance < 0.3) {
    redis.pause()
    await Bun.sleep(ms)
    redis.resume()
    return 'paused'
  }
  if (chance < 0.5) {
    await redis.kill()
    await Bun.sleep(ms)
    await redis.restart()
    return 'killed'
  }
  if (chance < 0.6) {
    await redis.restart()
    return 'emptied'
  }
  return 'left alone'
}
