/**
 * The cache's nodes in a world of one thread and one clock that is moved by hand: a seed is a run, to the
 * last microtask. Real are cache, tags, flights and follower; the database, its copies, Redis and all that
 * is between are played, as badly as they may behave:
 *
 *   a load    reads any copy that has `minSeq`, at any moment of its duration, and may fail
 *   the log   comes by own commits and by polls, late, twice, out of order, with its tail pruned
 *   Redis     answers late, takes sets late and in any order, is away, comes back empty
 */
import { createCache, type Cache, type CacheRead, type SharedTier } from '../../src/cache/cache.ts'
import type { CacheEntry } from '../../src/cache/tier.ts'
import { Fault } from '../../src/fault.ts'
import { createFollower, type Follower } from '../../src/store/follower.ts'
import type { LogEntry } from '../../src/store/messages.ts'
import { createTestClock, type TestClock } from '../clock.ts'
import { createTestLog } from '../harness.ts'
import { createRandom, type Random } from '../lib/random.ts'
import { check, postText, type Entry, type Seen, type Written } from './consistency-check.ts'

export interface SimulationOptions {
  readonly seed: number
  readonly reads: number
  /** Nodes sleep now and then, and the log is pruned meanwhile: no bound holds then, all else does. */
  readonly isSleepy?: boolean
}

const nodesCount = 4
const postsCount = 12
const readsPerMs = 3
const policy = { ttlMs: 400, staleMs: 2_000 }
const pollMs = 250
/** Of an answer by whomever: at most. */
const delayMs = 40
/** A poll may have just begun when the write came. */
const boundMs = pollMs + 3 * delayMs
const failShare = 0.1
/** Log entries kept, while nodes sleep. */
const retained = 5

interface World {
  readonly clock: TestClock
  readonly random: Random
  readonly log: Entry[]
  readonly written: Written[]
  /** Of every view, what it was from which seq on. */
  readonly views: Map<string, { readonly seq: number; readonly text: string }[]>
  prunedTo: number
  wait(maxMs?: number): Promise<void>
}

interface Node {
  readonly name: string
  readonly cache: Cache
  readonly follower: Follower
  acked: number
  asleepUntil: number
}

export async function simulate({ seed, reads, isSleepy = false }: SimulationOptions) {
  const clock = createTestClock()
  const random = createRandom(seed)
  const wait = (maxMs = delayMs): Promise<void> =>
    new Promise((resolve) => void clock.after(random.below(maxMs), resolve))
  const world: World = { clock, random, wait, log: [], written: [], views: new Map(), prunedTo: 0 }
  const shared = createSharedTier(world)
  const nodes = Array.from({ length: nodesCount }, (_, at) => createNode(world, shared.tier, at))
  const seen: Seen[] = []
  const sightings: { seq: number; ms: number }[] = []

  while (seen.length < reads) {
    const now = clock.tick()
    if (random.next() < 0.01) void write(world, random.pick(nodes))
    if (random.next() < 0.002) shared.disturb()
    if (!isSleepy) sightings.push({ seq: world.log.length, ms: now })
    else if (random.next() < 0.002) random.pick(nodes).asleepUntil = now + random.below(2_000)
    if (isSleepy) world.prunedTo = Math.max(0, world.log.length - retained)
    for (const node of nodes) {
      if (now < node.asleepUntil) continue
      for (let left = readsPerMs; left > 0; left--) read(world, node, seen)
    }
    clock.advance(1)
    await new Promise((resolve) => setImmediate(resolve))
  }
  const { log, written } = world
  const { violations } = check({ log, written, seen, sightings, boundMs })
  const states = Map.groupBy(seen, ({ state }) => state)
  return {
    violations,
    seen,
    writes: written.length,
    states: Object.fromEntries([...states].map(([state, all]) => [state, all.length])),
  }
}

function createNode(world: World, shared: SharedTier, at: number): Node {
  const { clock, random, wait, log } = world
  const skewMs = random.below(2_000) - 1_000
  const cache = createCache(
    { clock: { ...clock, now: () => clock.now() + skewMs }, shared },
    { random: random.next },
  )
  const follower = createFollower({
    log: createTestLog(),
    read: ([seq, atMs, table, data]) => ({
      ...{ seq, atMs, table, op: 'update', key: data, row: [] },
      tags: ['posts', `posts:${data}`],
    }),
  })
  follower.onChange(({ seq, tags }) => cache.apply(seq, tags))
  follower.onGap((seq) => cache.jump(seq))
  follower.jump(log.length)
  const node: Node = { name: `node ${at}`, cache, follower, acked: 0, asleepUntil: 0 }
  const poll = async (): Promise<void> => {
    if (clock.tick() < node.asleepUntil) return
    const after = follower.applied
    await wait()
    const entries = entriesAfter(world, after)
    await wait()
    follower.accept(entries)
  }
  clock.after(random.below(pollMs), () => {
    void poll()
    clock.every(pollMs, () => void poll())
  })
  return node
}

function entriesAfter({ log, prunedTo }: World, after: number): LogEntry[] {
  return log
    .slice(Math.max(after, prunedTo))
    .map(({ seq, table, row }) => [seq, 0, table, String(row['id'])])
}

/** A commit, then its answer on the way back; listeners are told, then the writer is. */
async function write(world: World, node: Node): Promise<void> {
  const { clock, random, wait, log, written } = world
  const sentMs = clock.tick()
  const id = random.below(postsCount)
  const op = random.next() < 0.2 ? 'remove' : 'update'
  const after = node.follower.applied
  await wait()
  const seq = log.length + 1
  const row = { id, groupId: 0, slug: id, mark: `m${seq}` }
  log.push({ seq, table: 'posts', op, row })
  const keep = (view: string, text: string): void => {
    const versions = world.views.get(view) ?? []
    world.views.set(view, versions)
    versions.push({ seq, text })
  }
  keep(`post ${id}`, op === 'remove' ? '' : postText(row))
  const texts = Array.from({ length: postsCount }, (_, one) => textAt(world, `post ${one}`, seq))
  keep('posts all', texts.filter((text) => text !== '').join(';'))
  const entries = entriesAfter(world, after)
  await wait()
  node.follower.accept(entries)
  node.acked = Math.max(node.acked, seq)
  written.push({ seqs: [seq], sentMs, ackedMs: clock.tick() })
}

function textAt({ views }: World, view: string, seq: number): string {
  return views.get(view)?.findLast((one) => one.seq <= seq)?.text ?? ''
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

function read(world: World, node: Node, seen: Seen[]): void {
  const { clock, random, wait, log } = world
  const id = random.below(postsCount + 3)
  const isList = id >= postsCount
  const view = isList ? 'posts all' : `post ${id}`
  const load = async (minSeq: number): Promise<Uint8Array | undefined> => {
    await wait(random.next() < 0.1 ? 20 * delayMs : delayMs)
    if (random.next() < failShare) throw new Fault('unavailable', 'the run says so')
    const text = textAt(world, view, minSeq + random.below(log.length - minSeq + 1))
    await wait(random.next() < 0.1 ? 20 * delayMs : delayMs)
    return text === '' && !isList ? undefined : encoder.encode(text)
  }
  const start = {
    ...{ node: node.name, view, fromMs: clock.tick() },
    ...{ acked: node.acked, applied: node.follower.applied },
  }
  const note = ({ entry, state, isCoalesced }: CacheRead): void => {
    const text = entry.isAbsent ? 'absent' : decoder.decode(entry.body)
    const how = isCoalesced ? `${state}, joined` : state
    seen.push({ ...start, text, state: how, toMs: clock.tick() })
  }
  const tags = isList ? ['posts'] : [`posts:${id}`, 'posts::']
  const answer = node.cache.read(view, tags, policy, load)
  if (answer instanceof Promise) answer.then(note, () => {})
  else note(answer)
}

function createSharedTier({ clock, random, wait }: World) {
  const kept = new Map<string, CacheEntry>()
  const leases = new Map<string, number>()
  let downUntil = 0
  const isUp = (): boolean => clock.tick() >= downUntil
  const tier: SharedTier = {
    get isUp() {
      return isUp()
    },
    async get(key) {
      await wait()
      const found = isUp() ? kept.get(key) : undefined
      await wait()
      return found
    },
    set(key, entry) {
      void wait(4 * delayMs).then(() => isUp() && kept.set(key, entry))
    },
    delete: (key) => void kept.delete(key),
    async lease(key, ms) {
      await wait()
      if ((leases.get(key) ?? 0) > clock.tick()) return false
      leases.set(key, clock.tick() + ms)
      return true
    },
    stats: () => ({ hits: 0, misses: 0, sets: 0, failures: 0, skipped: 0, isUp: isUp() }),
    start: async () => {},
    stop: async () => {},
  }
  return {
    tier,
    disturb(): void {
      if (random.next() < 0.5) kept.clear()
      if (random.next() < 0.7) downUntil = clock.tick() + random.below(500)
    },
  }
}
