/**
 * A value from the first tier, and a thousand who want the same one at once, beside bentocache and cacheable:
 * one process, in rounds that visit every peer, so that drift hits all alike.
 *
 * Values are of 2 KB. A collection's read gives encoded bytes; `cache.get` of a route and the peers give a JSON
 * value, except that those named so give the very object that was put in.
 */
import { createCache } from '../../src/cache/cache.ts'
import { createValues } from '../../src/collections/values.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createTestLog } from '../harness.ts'
import { cachePeers } from './cache-peers.ts'
import { median, rounded } from './load.ts'

const entries = 1_000
const entriesMax = 10_000
const rounds = 15
const joiners = 1_000
const coalescings = 40
const loadMs = 5

const value = {
  items: Array.from({ length: 10 }, (_, id) => ({
    id,
    room: 'lobby',
    author: `person${id}`,
    text: 'Why is a raven like a writing desk? '.repeat(4),
  })),
}
const body = new TextEncoder().encode(JSON.stringify(value))

interface Contender {
  readonly name: string
  /** Puts the value there, for `get`. */
  fill(key: string): Promise<unknown>
  get(key: string): unknown
  /** Through the cache, by a load that is not there yet. */
  load(key: string, run: () => Promise<void>): Promise<unknown>
}

/** As the server has it: tags of which some have changed, and statistics by path. */
function belfry(): readonly Contender[] {
  const cache = createCache({ clock: systemClock }, { entriesMax })
  for (let seq = 1; seq <= entries; seq++) cache.apply(seq, [`posts/${seq}`, 'posts'])
  const policy = { path: 'posts', ttlMs: 3_600_000, staleMs: 0 }
  const tagsOf = (key: string): string[] => [`posts/${key}`, 'posts']
  const read = (key: string, run?: () => Promise<void>) =>
    cache.read(key, tagsOf(key), policy, async () => {
      await run?.()
      return body
    })
  const values = createValues({ cache, invalidate: async () => {}, log: createTestLog() })
  const options = { ttl: '1h', tags: ['posts'], scope: 'public' } as const
  const got = (key: string, run?: () => Promise<void>) =>
    values.get(`post:${key}`, options, async () => {
      await run?.()
      return value
    })
  return [
    {
      name: 'belfry, a collection’s read',
      fill: async (key) => await read(key),
      get: (key) => read(key),
      load: async (key, run) => await read(key, run),
    },
    { name: 'belfry, cache.get of a route', fill: got, get: (key) => got(key), load: got },
  ]
}

async function contenders(): Promise<readonly Contender[]> {
  const peers = (await cachePeers(entriesMax)).map(({ name, set, get, getOrSet }): Contender => ({
    name,
    fill: (key) => set(key, value),
    get,
    load: (key, run) =>
      getOrSet(key, async () => {
        await run()
        return value
      }),
  }))
  return [...belfry(), ...peers]
}

/** As requests make them: new strings each time, whose hash is not yet known. */
const keysOf = (): string[] => Array.from({ length: entries }, (_, n) => ['post', `${n}`].join('-'))

type Row = Record<string, string | number>

async function gets(all: readonly Contender[]): Promise<void> {
  const times = new Map(all.map(({ name }) => [name, [] as number[]]))
  for (const one of all) for (const key of keysOf()) await one.fill(key)
  // The first rounds warm up.
  for (let round = -5; round < rounds; round++) {
    for (const one of all) {
      const keys = keysOf()
      const started = Bun.nanoseconds()
      for (const key of keys) {
        const answer = one.get(key)
        if (answer instanceof Promise) await answer
      }
      const took = (Bun.nanoseconds() - started) / keys.length
      if (round >= 0) times.get(one.name)?.push(took)
    }
  }
  const ours = median(times.get(all[0]?.name ?? '') ?? [])
  console.log(`a value of ${body.length} bytes from memory, ${rounds} rounds over ${entries} keys`)
  console.table(
    all.map(({ name }): Row => {
      const ns = median(times.get(name) ?? [])
      return {
        peer: name,
        'ns per get (median)': Math.round(ns),
        'to the first': rounded(ns / ours),
      }
    }),
  )
}

async function coalescing(all: readonly Contender[]): Promise<void> {
  const seen = new Map(
    all.map(({ name }) => [name, { loads: 0, wall: [] as number[], cpu: [] as number[] }]),
  )
  for (let round = -5; round < coalescings; round++) {
    for (const one of all) {
      const figures = seen.get(one.name)
      if (!figures) continue
      const load = async (): Promise<void> => {
        if (round >= 0) figures.loads++
        await Bun.sleep(loadMs)
      }
      const key = `slow-${round}`
      const before = process.cpuUsage()
      const started = performance.now()
      await Promise.all(Array.from({ length: joiners }, () => one.load(key, load)))
      const wall = performance.now() - started
      const { user, system } = process.cpuUsage(before)
      if (round < 0) continue
      figures.wall.push(wall)
      figures.cpu.push((user + system) / 1000)
    }
  }
  console.log(`${joiners} who want one load of ${loadMs} ms at once, ${coalescings} rounds`)
  console.table(
    all.map(({ name }): Row => {
      const { loads = 0, wall = [], cpu = [] } = seen.get(name) ?? {}
      return {
        peer: name,
        'loads a round': loads / coalescings,
        'ms until all are answered (median)': rounded(median(wall)),
        'CPU ms (median)': rounded(median(cpu)),
      }
    }),
  )
}

export async function run(): Promise<void> {
  const all = await contenders()
  await gets(all)
  await coalescing(all)
}

if (import.meta.main) await run()
