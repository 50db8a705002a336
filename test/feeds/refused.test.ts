/** A key that upstream refuses, together with all that are asked for with it. */
import { describe, expect, test } from 'bun:test'
import { Fault } from '../../src/fault.ts'
import type { FeedContext } from '../../src/feeds/declare.ts'
import { createRandom } from '../lib/random.ts'
import { keyed, pass, setUp, turns } from './setup.ts'

const pattern = keyed.pattern

/** An upstream that answers 400 where one of `bad` is asked for; `all`: whatever is. */
function start(names: readonly string[], bad: Set<string>) {
  const calls: (readonly string[])[] = []
  const state = { isAll: false, value: 1, status: 400 }
  const load = async ({ fetch, keys }: FeedContext): Promise<unknown> => {
    calls.push(keys)
    return await (await fetch(`http://upstream/?ids=${keys.join(',')}`)).json()
  }
  const answer = (url: string | URL): Promise<Response> => {
    const keys = new URL(url).searchParams.get('ids')?.split(',') ?? []
    if (state.isAll || keys.some((key) => bad.has(key))) {
      return Promise.resolve(Response.json({ message: 'bad id' }, { status: state.status }))
    }
    return Promise.resolve(Response.json(Object.fromEntries(keys.map((key) => [key, state.value]))))
  }
  const all = setUp({ keyed, load }, { fetch: answer })
  all.feeds.start()
  const hear = (name: string) => all.feeds.heard(pattern, `price:${name}`, true)
  for (const name of names) hear(name)
  /** Undefined where there is none. */
  const last = async (name: string) => {
    try {
      return await all.feeds.last(pattern, `price:${name}`)
    } catch (error) {
      if (error instanceof Fault && error.code === 'not_found') return undefined
      throw error
    }
  }
  const stale = async () => {
    const found = []
    for (const name of names) if ((await last(name))?.isStale !== false) found.push(name)
    return found
  }
  return { ...all, calls, state, bad, hear, last, stale }
}

const names = (count: number) => Array.from({ length: count }, (_, n) => `k${n}`)

describe('a refused key', () => {
  test('is found, and rests; those that were asked for with it have values', async () => {
    const feed = start(names(100), new Set(['k37']))
    await pass(feed, 15_000)
    expect(await feed.stale()).toEqual(['k37'])
    feed.calls.length = 0
    feed.state.value = 2
    await pass(feed, 30_000)
    expect(feed.calls.flat()).not.toContain('k37')
    expect(feed.calls.map(({ length }) => length)).toEqual(Array(30).fill(99))
    expect(feed.published.filter(([, data]) => data === 2)).toHaveLength(99)
    expect(feed.log.lines.filter(({ event }) => event === 'feed.key-refused')).toHaveLength(1)
    await feed.feeds.stop()
  })

  test('rests for twice as long each time, an hour at most, and is as any other once it is answered', async () => {
    const feed = start(['a', 'b'], new Set(['b']))
    const askedAt: number[] = []
    for (let n = 0; n < 900; n++) {
      const before = feed.calls.length
      await pass(feed, 1_000, 500)
      const asked = feed.calls.slice(before).filter((keys) => keys.includes('b'))
      if (asked.length > 0) askedAt.push(Math.round(feed.clock.tick() / 1_000))
    }
    // Found in the first few, then after one minute, two, four and eight.
    const rests = askedAt.slice(1).map((at, n) => at - (askedAt[n] ?? 0))
    expect(rests.filter((s) => s > 10).map((s) => Math.round(s / 60))).toEqual([1, 2, 4])
    feed.bad.clear()
    await pass(feed, 500_000, 1_000)
    expect(await feed.stale()).toEqual([])
    feed.calls.length = 0
    await pass(feed, 5_000)
    expect(feed.calls).toEqual(Array(5).fill(['a', 'b']))
    await feed.feeds.stop()
  })

  test('where all are refused nothing is looked for: as many calls as ever, and all back in one interval', async () => {
    const feed = start(names(250), new Set())
    await pass(feed, 3_000)
    expect(await feed.stale()).toEqual([])
    feed.state.isAll = true
    await pass(feed, 120_000)
    expect((await feed.stale()).length).toBe(250)
    feed.calls.length = 0
    await pass(feed, 10_000)
    expect(feed.calls.length).toBeLessThanOrEqual(31)
    feed.state.isAll = false
    await pass(feed, 2_000)
    expect(await feed.stale()).toEqual([])
    await feed.feeds.stop()
  })

  test('takes nobody along who was not asked for with it', async () => {
    const feed = start(names(250), new Set())
    await pass(feed, 3_000)
    feed.published.length = 0
    feed.bad.add('k37')
    await pass(feed, 30_000)
    const doubted = new Set(
      feed.published
        .filter(([, data]) => /stale/.test(JSON.stringify(data)))
        .map(([topic]) => topic),
    )
    expect(doubted).toContain('price:k37')
    expect(doubted.size).toBeLessThanOrEqual(100)
    expect(await feed.stale()).toEqual(['k37'])
    await feed.feeds.stop()
  })

  test('holds up nobody who is new while it is looked for', async () => {
    const feed = start(names(90), new Set(['k37']))
    for (let n = 0; n < 80; n++) {
      await pass(feed, 100)
      feed.hear(`new${n}`)
      await turns(6)
      expect(feed.published.at(-1)).toEqual([`price:new${n}`, 1])
    }
    await feed.feeds.stop()
  })

  test('is none where upstream is down, refuses us, or has enough: nothing is looked for', async () => {
    for (const status of [401, 403, 429, 500, 503]) {
      const feed = start(names(100), new Set(['k37']))
      feed.state.status = status
      await pass(feed, 10_000)
      expect(feed.calls.map(({ length }) => length)).toEqual(feed.calls.map(() => 100))
      await feed.feeds.stop()
    }
  })

  test('property: whichever they are, they are all that has no value after a while', async () => {
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      const random = createRandom(seed)
      const all = names(20 + random.below(300))
      const bad = all.filter(() => random.below(40) === 0)
      const feed = start(all, new Set(bad))
      await pass(feed, 50_000, 100)
      expect([seed, (await feed.stale()).toSorted()]).toEqual([seed, bad.toSorted()])
      await feed.feeds.stop()
    }
  })
})

test('an answer that is an error is no value, unless `statuses` names it', async () => {
  const status = { code: 500 }
  const seen: unknown[] = []
  const load = async ({ fetch }: FeedContext): Promise<unknown> => {
    const answer = await fetch('http://upstream/', { statuses: [404] })
    seen.push(answer.status)
    return await answer.json()
  }
  const { feeds, published, clock } = setUp(
    { load, publish: 'news', isSingle: true } as Parameters<typeof setUp>[0],
    { fetch: () => Promise.resolve(Response.json({ message: 'no' }, { status: status.code })) },
  )
  feeds.start()
  await pass({ clock }, 2_000)
  expect([seen, published]).toEqual([[], []])
  status.code = 404
  await pass({ clock }, 1_000)
  await turns()
  expect([seen, published.length]).toEqual([[404], 1])
  await feeds.stop()
})
