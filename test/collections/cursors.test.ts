import { describe, expect, test } from 'bun:test'
import { index, integer, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { asc, collection, desc } from '../../src/collections/declare.ts'
import { faultOf, tempFolder } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { runServer } from '../server.ts'
import { jsonOf, openCollections, type Page } from './open.ts'

const open = { read: 'public', create: 'public', update: 'public', remove: 'public' } as const

const things = sqliteTable('things', {
  id: integer().primaryKey(),
  name: text({ length: 3 }).notNull(),
  score: real().notNull(),
  level: integer().notNull(),
})

const orders = {
  name: asc(things.name),
  mixed: [desc(things.level), asc(things.name)],
  score: [desc(things.score), desc(things.level)],
  newest: desc(things.id),
  tie: [asc(things.level), desc(things.id)],
}

const declared = { things: collection(things, { ...open, orders, filters: ['level'] }) }

async function openThings(folder: ReturnType<typeof tempFolder>) {
  const opened = await openCollections(folder, declared)
  const plan = opened.planOf('things')
  const page = async (search: string): Promise<Page> =>
    jsonOf(await opened.collections.list(plan, null, search))
  const put = (rows: Record<string, unknown>[]) => opened.collections.upsert([{ plan, rows }])
  const remove = (id: number) => opened.collections.remove(plan, null, String(id))
  return { ...opened, things: plan, page, put, remove }
}

const idsOf = ({ items }: Page): number[] => items.map(({ id }) => Number(id))

describe('a walk', () => {
  test('property: forwards and back, every row that stays is seen once each way, whatever comes and goes', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31)
    const random = createRandom(seed)
    using folder = tempFolder()
    await using opened = await openThings(folder)
    const { page, put, remove } = opened
    const row = (id: number) => ({
      id,
      name: random.pick(['', 'a', 'b', 'é', '\u{1f600}']),
      score: random.pick([-1.5, 0, 2.25, 1e300]),
      level: random.below(3),
    })
    // Even ids stay. Odd ones come and go, among them the very rows that cursors name.
    const staying = Array.from({ length: 40 }, (_, n) => 2 * n)
    await put(staying.map(row))
    const passing = new Set<number>()
    const disturb = async (last: number | undefined): Promise<void> => {
      if (last !== undefined && passing.delete(last)) await remove(last)
      const id = 2 * random.below(60) + 1
      if (passing.delete(id)) await remove(id)
      else {
        passing.add(id)
        await put([row(id)])
      }
    }
    const walk = async (
      direction: 'after' | 'before',
      search: string,
      from: string,
    ): Promise<{ pages: number[][]; last: Page }> => {
      const pages: number[][] = []
      for (let cursor = from; ;) {
        const last = await page(search + (cursor === '' ? '' : `&${direction}=${cursor}`))
        pages.push(idsOf(last).filter((id) => id % 2 === 0))
        await disturb(random.pick([...idsOf(last).filter((id) => id % 2 === 1), undefined]))
        const next = direction === 'after' ? last.next : last.prev
        if (next === null) return { pages, last }
        cursor = next
      }
    }
    for (const order of Object.keys(orders)) {
      for (const limit of [1, 3, 11]) {
        const search = `order=${order}&limit=${limit}`
        const forwards = await walk('after', search, '')
        const backwards = await walk('before', search, forwards.last.prev ?? '')
        const there = forwards.pages.flat()
        // The way back begins before the last page.
        const back = [...backwards.pages.toReversed().flat(), ...(forwards.pages.at(-1) ?? [])]
        const sorted = there.toSorted((a, b) => a - b)
        expect({ seed, order, limit, sorted, back }).toEqual({
          seed,
          order,
          limit,
          sorted: staying,
          back: there,
        })
      }
    }
  })

  test('goes on where it was when the row the cursor names is gone, changed or joined by its like', async () => {
    using folder = tempFolder()
    await using opened = await openThings(folder)
    const { page, put, remove } = opened
    const row = (id: number, level = 0) => ({ id, name: 'a', score: 0, level })
    await put([1, 2, 3, 4].map((id) => row(id)))
    const first = await page('order=name&limit=2')
    expect(idsOf(first)).toEqual([1, 2])
    await remove(2)
    expect(idsOf(await page(`order=name&limit=2&after=${first.next}`))).toEqual([3, 4])
    // One that moves to the front is not seen again, and one that comes back is where it was.
    await put([{ ...row(2), name: '' }])
    const second = await page(`order=name&limit=2&after=${first.next}`)
    expect(idsOf(second)).toEqual([3, 4])
    expect(idsOf(await page(`order=name&before=${second.prev}`))).toEqual([2, 1])
  })

  test('to where nothing is left any more knows the way back', async () => {
    using folder = tempFolder()
    await using opened = await openThings(folder)
    const { page, put, remove } = opened
    await put([1, 2, 3].map((id) => ({ id, name: 'a', score: 0, level: 0 })))
    const first = await page('order=name&limit=2')
    await remove(3)
    const beyond = await page(`order=name&limit=2&after=${first.next}`)
    expect([beyond.items, beyond.next]).toEqual([[], null])
    const back = await page(`order=name&limit=2&before=${beyond.prev}`)
    expect(idsOf(back)).toEqual([1, 2])
    await remove(1)
    await remove(2)
    const nothing = await page(`order=name&limit=2&before=${back.prev ?? beyond.prev}`)
    expect([nothing.items, nothing.prev]).toEqual([[], null])
    await put([{ id: 9, name: 'b', score: 0, level: 0 }])
    expect(idsOf(await page(`order=name&after=${nothing.next}`))).toEqual([9])
  })

  test('infinite numbers have a place, too', async () => {
    using folder = tempFolder()
    await using opened = await openThings(folder)
    const { page, store } = opened
    for (const [id, score] of [-Infinity, Infinity, 0].entries()) {
      const sql = 'insert into things (id, name, score, level) values (?, ?, ?, ?)'
      await store.write([{ sql, params: [id, 'a', score, 0] }])
    }
    const seen: number[] = []
    for (let next: string | null = ''; next !== null;) {
      const one: Page = await page(`order=score&limit=1${next === '' ? '' : `&after=${next}`}`)
      seen.push(...idsOf(one))
      next = one.next
    }
    expect(seen).toEqual([1, 2, 0])
  })
})

describe('a cursor is refused, by the name of its parameter,', () => {
  async function cursorOf(folder: ReturnType<typeof tempFolder>) {
    const opened = await openThings(folder)
    await opened.put([1, 2].map((id) => ({ id, name: 'a', score: 0, level: 0 })))
    const { next } = await opened.page('order=name&limit=1')
    return { ...opened, cursor: next ?? '' }
  }

  test('when any character of it is another, is missing, or is too many', async () => {
    using folder = tempFolder()
    await using opened = await cursorOf(folder)
    const { cursor, page } = opened
    expect(idsOf(await page(`order=name&after=${cursor}`))).toEqual([2])
    const other = (char: string) => (char === 'A' ? 'B' : 'A')
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    const last = cursor.at(-1) ?? ''
    const forged = [
      ...cursor
        .split('')
        .map((char, at) => cursor.slice(0, at) + other(char) + cursor.slice(at + 1)),
      // The last character has bits that say nothing.
      ...alphabet
        .split('')
        .filter((char) => char !== last)
        .map((char) => cursor.slice(0, -1) + char),
      ...cursor.split('').map((_, at) => cursor.slice(0, at)),
      ...['A', '=', '.', '%00', ' '].map((more) => cursor + more),
      cursor.repeat(200),
    ]
    for (const text of forged) {
      for (const parameter of ['after', 'before']) {
        const fault = await faultOf(() => page(`order=name&${parameter}=${text}`))
        expect([text, fault.code, fault.fields]).toEqual([
          text,
          'invalid',
          [{ field: parameter, message: 'is not a cursor of this list and order' }],
        ])
      }
    }
  })

  test('of another order, list, database or version of the order', async () => {
    using folder = tempFolder()
    await using opened = await cursorOf(folder)
    const { cursor, page } = opened
    const wrong = ['order=tie', 'order=mixed', 'order=newest', 'order=score']
    for (const order of wrong) {
      const fault = await faultOf(() => page(`${order}&after=${cursor}`))
      expect(fault.fields?.map(({ field }) => field)).toEqual(['after'])
    }
    const elsewhere = {
      'other path': { others: collection(things, { ...open, orders }) },
      'other columns': {
        things: collection(things, {
          ...open,
          orders: { name: [asc(things.name), desc(things.id)] },
        }),
      },
    }
    for (const [what, others] of Object.entries(elsewhere)) {
      using apart = tempFolder()
      await using two = await openCollections(apart, others)
      const [plan] = two.plan.collections
      if (!plan) throw new Error('declared')
      const fault = await faultOf(() =>
        two.collections.list(plan, null, `order=name&after=${cursor}`),
      )
      expect([what, fault.fields?.[0]?.field]).toEqual([what, 'after'])
    }
    using apart = tempFolder()
    await using two = await openCollections(apart, declared, new Uint8Array(32).fill(1))
    const search = `order=name&after=${cursor}`
    const fault = await faultOf(() => two.collections.list(two.planOf('things'), null, search))
    expect(fault.fields?.[0]?.field).toBe('after')
  })
})

test('the longest texts that an order may have still page, in a URL', async () => {
  const longs = sqliteTable(
    'longs',
    {
      key: text().primaryKey(),
      a: text({ length: 600 }).notNull(),
      b: text({ length: 400 }).notNull(),
    },
    (t) => [index('longs_a_b').on(t.a, t.b)],
  )
  using folder = tempFolder()
  const collections = {
    longs: collection(longs, { ...open, orders: { long: [asc(longs.a), asc(longs.b)] } }),
  }
  await using server = await runServer({ app: { collections }, folder })
  const headers = { 'content-type': 'application/json' }
  const post = (key: string) => {
    // Three bytes each, which is the most that one unit of UTF-16 can take.
    const body = JSON.stringify({ key, a: '\uffee'.repeat(600), b: '\u20ac'.repeat(400) })
    return server.get('/api/longs', { method: 'POST', headers, body })
  }
  for (const end of ['a', 'b', 'c']) expect((await post('k'.repeat(1023) + end)).status).toBe(201)
  expect((await post('k'.repeat(1025))).status).toBe(400)
  const seen: string[] = []
  for (let next: string | null = ''; next !== null;) {
    const cursor: string = next === '' ? '' : `&after=${next}`
    const response = await server.get(`/api/longs?limit=1${cursor}`)
    expect(response.status).toBe(200)
    const page = (await response.json()) as Page
    seen.push(...page.items.map(({ key }) => String(key).at(-1) ?? ''))
    next = page.next
  }
  expect(seen).toEqual(['a', 'b', 'c'])
})

describe('count', () => {
  test('says how many the filters leave, whatever the page, only when asked, and is cached with the list', async () => {
    using folder = tempFolder()
    await using opened = await openThings(folder)
    const { page, put, reads, collections, things: plan } = opened
    await put([1, 2, 3].map((id) => ({ id, name: 'a', score: 0, level: id % 2 })))
    expect(await page('level=1&limit=1')).not.toHaveProperty('count')
    const counted = await page('level=1&limit=1&count=true')
    expect([counted.items.length, counted.count]).toEqual([1, 2])
    expect((await page(`limit=1&level=1&count=true&after=${counted.next}`)).count).toBe(2)
    const before = reads.length
    expect((await page('count=true&limit=1&level=1')).count).toBe(2)
    expect(reads.length).toBe(before)
    const plain = await collections.list(plan, null, 'count=false&level=1&limit=1')
    expect(plain.state).toBe('hit')
    await put([{ id: 5, name: 'a', score: 0, level: 1 }])
    expect((await page('level=1&limit=1&count=true')).count).toBe(3)
    const fault = await faultOf(() => page('count=1'))
    expect(fault.fields).toEqual([{ field: 'count', message: 'must be true or false' }])
  })
})
