import { describe, expect, test } from 'bun:test'
import type { User } from '../../src/auth/declare.ts'
import { faultOf, tempFolder, until } from '../harness.ts'
import { createRandom } from '../lib/random.ts'

import { alice, at, bob, jsonOf, setUp, type Page } from './setup.ts'

describe('lists', () => {
  test('property: pages both ways give every row once, in order, for any page size', async () => {
    const random = createRandom(7)
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    const rows = Array.from({ length: 53 }, (_, n) => ({
      region: n % 2 ? 'NSW1' : 'VIC1',
      at: at(n >> 1),
      // Equal prices, so that the tie-break decides.
      price: random.below(4),
    }))
    await collections.upsert([{ plan, rows }])
    for (const order of ['newest', 'price']) {
      for (const limit of [1, 7, 53, 100]) {
        const page = async (cursor: string): Promise<Page> =>
          jsonOf(await collections.list(plan, null, `order=${order}&limit=${limit}${cursor}`))
        const forward: unknown[] = []
        let last = await page('')
        expect(last.prev).toBeNull()
        forward.push(...last.items)
        while (last.next !== null) {
          last = await page(`&after=${last.next}`)
          forward.push(...last.items)
        }
        const backward: unknown[] = [...last.items]
        while (last.prev !== null) {
          last = await page(`&before=${last.prev}`)
          backward.unshift(...last.items)
        }
        expect(forward.length).toBe(53)
        expect(new Set(forward.map((row) => JSON.stringify(row))).size).toBe(53)
        expect(backward).toEqual(forward)
      }
    }
  })

  test('filters narrow, and another spelling of the same question is the same entry', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    await collections.create(plan, null, { region: 'NSW1', at: at(0), price: 1 })
    await collections.create(plan, null, { region: 'VIC1', at: at(0), price: 2 })
    const one: Page = jsonOf(await collections.list(plan, null, 'region=NSW1&limit=5'))
    expect(one.items).toEqual([{ region: 'NSW1', at: at(0), price: 1 }])
    const same = await collections.list(plan, null, 'limit=5&order=newest&region=%4eSW1')
    expect(same.state).toBe('hit')
  })

  test('every wrong parameter is named, none is ignored', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    const fault = await faultOf(() =>
      collections.list(
        plan,
        null,
        'limit=101&order=best&page=2&region=a&region=b&after=x&before=y',
      ),
    )
    expect(fault.fields?.map(({ field }) => field).toSorted()).toEqual([
      'after',
      'before',
      'limit',
      'order',
      'page',
      'region',
    ])
  })

  test('a cursor of another order, or a made-up one, is refused', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    for (const n of [1, 2])
      await collections.create(plan, null, { region: 'A', at: at(n), price: n })
    const { next }: Page = jsonOf(await collections.list(plan, null, 'limit=1'))
    // Of the same shape, and still of another order.
    const other = await faultOf(() => collections.list(plan, null, `order=oldest&after=${next}`))
    expect(other.fields?.[0]?.field).toBe('after')
    for (const cursor of [
      next,
      'bm90IG91cnM',
      Buffer.from('["price",{},1,1]').toString('base64url'),
    ]) {
      const fault = await faultOf(() => collections.list(plan, null, `order=price&after=${cursor}`))
      expect(fault.fields?.[0]?.field).toBe('after')
    }
  })
})

describe('rows', () => {
  test('are found by a composite id, created, changed and removed', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    const created = await collections.create(plan, null, { region: 'NSW1', at: at(0), price: 1 })
    expect(created).toMatchObject({ id: `NSW1,${at(0)}`, seq: 1 })
    const read = await collections.read(plan, null, created.id)
    expect(jsonOf(read)).toEqual({ region: 'NSW1', at: at(0), price: 1 } as never)
    await collections.update(plan, null, created.id, { price: 2 })
    expect(jsonOf(await collections.read(plan, null, created.id))).toMatchObject({ price: 2 })
    await collections.remove(plan, null, created.id)
    expect((await faultOf(() => collections.read(plan, null, created.id))).code).toBe('not_found')
  })

  test('every wrong field is named and nothing is written', async () => {
    using folder = tempFolder()
    const { store, collections, posts: plan } = await setUp(folder)
    await using _ = store
    const body = { title: 'x'.repeat(21), isPublic: 'yes', id: 1.5, nope: 1, __proto__: null }
    const fault = await faultOf(() => collections.create(plan, alice, body))
    expect(fault.fields).toEqual([
      { field: 'title', message: 'must be at most 20 characters' },
      { field: 'isPublic', message: 'must be true or false' },
      { field: 'id', message: 'must be an integer below 2^53' },
      { field: 'nope', message: 'is not a column' },
    ])
    const missing = await faultOf(() => collections.create(plan, alice, {}))
    expect(missing.fields).toEqual([{ field: 'title', message: 'is required' }])
    for (const body of [null, [], 'x', 1]) {
      expect((await faultOf(() => collections.create(plan, alice, body))).code).toBe('invalid')
    }
    expect(store.stats().writes).toBe(0)
  })

  test('a forced value wins over what the client sends', async () => {
    using folder = tempFolder()
    const { store, collections, posts: plan } = await setUp(folder)
    await using _ = store
    const { row } = await collections.create(plan, alice, { title: 'hi', authorId: 'mallory' })
    expect(row).toEqual({ id: 1, authorId: 'alice', title: 'hi', isPublic: false })
  })

  test('a row that is taken is a conflict', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    const body = { region: 'NSW1', at: at(0), price: 1 }
    await collections.create(plan, null, body)
    expect((await faultOf(() => collections.create(plan, null, body))).code).toBe('conflict')
  })
})

describe('rules', () => {
  test('absent denies: 401 for a visitor, 403 for a user', async () => {
    using folder = tempFolder()
    const rules = { read: undefined, create: undefined, update: undefined, remove: undefined }
    // Rows that nobody may read are told to nobody either: the plan asks for both or none.
    const none = { ...rules, live: undefined }
    const { store, collections, spot: plan } = await setUp(folder, { spot: none as never })
    await using _ = store
    for (const [user, code] of [
      [null, 'unauthenticated'],
      [alice, 'denied'],
    ] as const) {
      const body = { region: 'A', at: at(0), price: 1 }
      expect((await faultOf(() => collections.list(plan, user, ''))).code).toBe(code)
      expect((await faultOf(() => collections.read(plan, user, `A,${at(0)}`))).code).toBe(code)
      expect((await faultOf(() => collections.create(plan, user, body))).code).toBe(code)
      expect((await faultOf(() => collections.update(plan, user, 'A,1', body))).code).toBe(code)
      expect((await faultOf(() => collections.remove(plan, user, 'A,1'))).code).toBe(code)
    }
  })

  test('a Where narrows what each reader sees; what one sees never answers another', async () => {
    using folder = tempFolder()
    const { store, collections, posts: plan } = await setUp(folder)
    await using _ = store
    await collections.create(plan, alice, { title: 'hers' })
    await collections.create(plan, bob, { title: 'his' })
    await collections.create(plan, bob, { title: 'ours', isPublic: true })
    const titles = async (user: User | null): Promise<unknown[]> => {
      const page: Page = jsonOf(await collections.list(plan, user, ''))
      return page.items.map(({ title }) => title)
    }
    for (let round = 0; round < 2; round++) {
      expect(await titles(null)).toEqual(['ours'])
      expect(await titles(alice)).toEqual(['hers', 'ours'])
      expect(await titles(bob)).toEqual(['his', 'ours'])
      expect((await collections.read(plan, alice, '1')).entry.tags).toEqual(['posts::', 'posts:1'])
      expect((await faultOf(() => collections.read(plan, bob, '1'))).code).toBe('not_found')
    }
  })

  test('a rule that throws, or is async, denies and shows nothing of itself', async () => {
    using folder = tempFolder()
    const {
      store,
      collections,
      posts: plan,
    } = await setUp(folder, {
      posts: {
        read: (() => Promise.resolve(true)) as never,
        create: () => {
          throw new Error('secret')
        },
      },
    })
    await using _ = store
    for (const run of [
      () => collections.list(plan, alice, ''),
      () => collections.create(plan, alice, { title: 'x' }),
    ]) {
      const fault = await faultOf(run)
      expect([fault.code, fault.message]).toEqual(['internal', 'internal error'])
    }
  })

  test('a read rule that answers neither a boolean nor a condition denies, and is told of', async () => {
    using folder = tempFolder()
    for (const answer of [{ author: 'alice' }, 'yes', 1, []]) {
      const { store, collections, posts } = await setUp(folder, {
        posts: { read: (() => answer) as never },
      })
      await using _ = store
      const fault = await faultOf(() => collections.list(posts, alice, ''))
      expect([fault.code, fault.message]).toEqual(['internal', 'internal error'])
      expect((fault.cause as Error).message).toBe(
        'the read rule of posts answers what is no boolean and no condition (`eq` …)',
      )
    }
  })

  test('race: a rule is judged again on the row as it became, never on the one it was', async () => {
    using folder = tempFolder()
    const { store, collections, posts: plan, hold } = await setUp(folder)
    await using _ = store
    await collections.create(plan, alice, { title: 'hers' })
    const held = Promise.withResolvers<void>()
    hold.until = held.promise
    const before = hold.brought
    const update = collections.update(plan, alice, '1', { title: 'changed' })
    await until(() => hold.brought > before, 'it has read')
    await store.write([
      {
        sql: "update posts set author_id = 'bob' where id = 1",
        params: [],
      },
    ])
    held.resolve()
    // Bob's own, which she may not even see.
    expect((await faultOf(() => update)).code).toBe('not_found')
  })

  test('a row one may not see is not there to be changed; one that is seen is denied', async () => {
    using folder = tempFolder()
    const { store, collections, posts: plan } = await setUp(folder)
    await using _ = store
    await collections.create(plan, alice, { title: 'hers', isPublic: false })
    const codes = async (): Promise<string[]> => [
      (await faultOf(() => collections.update(plan, bob, '1', { title: 'his' }))).code,
      (await faultOf(() => collections.remove(plan, bob, '1'))).code,
      (await faultOf(() => collections.update(plan, bob, '9', { title: 'his' }))).code,
    ]
    expect(await codes()).toEqual(['not_found', 'not_found', 'not_found'])
    await collections.update(plan, alice, '1', { isPublic: true })
    expect(await codes()).toEqual(['denied', 'denied', 'not_found'])
  })
})

describe('a write and the cache', () => {
  test('a read right after a write never gives the old value', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    await collections.create(plan, null, { region: 'NSW1', at: at(0), price: 0 })
    for (let price = 1; price <= 100; price++) {
      await collections.list(plan, null, '')
      await collections.update(plan, null, `NSW1,${at(0)}`, { price })
      const page: Page = jsonOf(await collections.list(plan, null, ''))
      expect(page.items[0]).toMatchObject({ price })
    }
  })

  test('race: a load in flight during a write never lands in the cache', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan, hold } = await setUp(folder)
    await using _ = store
    await collections.create(plan, null, { region: 'NSW1', at: at(0), price: 1 })
    const held = Promise.withResolvers<void>()
    hold.until = held.promise
    // This load has read price 1 and is on its way back while price 2 is written.
    const before = hold.brought
    const early = collections.list(plan, null, '')
    await until(() => hold.brought > before, 'the load has read')
    await collections.upsert([{ plan, rows: [{ region: 'NSW1', at: at(0), price: 2 }] }])
    held.resolve()
    hold.until = Promise.resolve()
    const old: Page = jsonOf(await early)
    expect(old.items[0]).toMatchObject({ price: 1 })
    const late = await collections.list(plan, null, '')
    const now: Page = jsonOf(late)
    expect([late.state, now.items[0]?.['price']]).toEqual(['miss', 2])
  })

  test('two collections over one table both notice', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan, cache } = await setUp(folder)
    await using _ = store
    await collections.list(plan, null, '')
    const twin = { ...plan, path: 'prices/twin' }
    await collections.create(twin, null, { region: 'NSW1', at: at(0), price: 1 })
    expect((await collections.list(plan, null, '')).state).toBe('miss')
    expect(cache.stats().hits).toBe(0)
  })
})
