/** Hidden columns, at every way out. What must not be seen is a text that is found nowhere else. */
import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import type { User } from '../../src/auth/declare.ts'
import {
  asc,
  collection,
  eq,
  or,
  type CollectionOptions,
  type HideOptions,
} from '../../src/collections/declare.ts'
import { Fault } from '../../src/fault.ts'
import { must } from '../../src/lib/assert.ts'
import { etagOf } from '../../src/lib/etag.ts'
import { app } from '../../src/kit.ts'
import { compilePlan, schemaOf } from '../../src/plan/plan.ts'
import { faultOf, tempFolder, type TempFolder } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { jsonOf, openCollections, type Page } from './open.ts'

const users = sqliteTable('users', {
  id: text({ length: 20 }).primaryKey(),
  handle: text({ length: 20 }).notNull().unique(),
  email: text({ length: 80 }).notNull().unique(),
  phone: text({ length: 80 }),
  secret: text({ length: 80 }).notNull(),
})
const notes = sqliteTable('notes', {
  id: integer().primaryKey(),
  ownerId: text('owner_id')
    .notNull()
    .references(() => users.id),
  body: text({ length: 80 }).notNull(),
  memo: text({ length: 80 }).notNull(),
  isPublic: integer('is_public', { mode: 'boolean' }).notNull().default(true),
})

const write = { create: 'signed-in', update: 'signed-in', remove: 'signed-in' } as const
const declared = {
  users: collection(users, {
    ...write,
    read: 'public',
    lookup: ['handle'],
    orders: { handle: asc(users.handle) },
    children: { notes: notes.ownerId },
    hide: {
      secret: true,
      email: { unless: 'signed-in' },
      phone: { unless: ({ user }) => user?.role === 'staff' || eq(users.id, user?.id) },
    },
  }),
  notes: collection(notes, {
    ...write,
    read: ({ user }) => or(eq(notes.isPublic, true), eq(notes.ownerId, user?.id)),
    filters: ['ownerId'],
    expand: { owner: notes.ownerId },
    hide: { memo: { unless: ({ user }) => eq(notes.ownerId, user?.id) } },
  }),
  // Hides nothing itself: only the rows beside its own differ.
  'notes/open': collection(notes, { read: 'public', expand: { owner: notes.ownerId } }),
}

const ann: User = { id: 'ann' }
const bob: User = { id: 'bob' }
const staff: User = { id: 'eve', role: 'staff' }
const readers: readonly (User | null)[] = [null, ann, bob, staff]

async function open(folder: TempFolder) {
  const opened = await openCollections(folder, declared)
  const { collections, planOf } = opened
  const [people, texts] = [planOf('users'), planOf('notes')]
  const person = (id: string) =>
    collections.create(people, staff, {
      ...{ id, handle: `@${id}`, email: `${id}-email`, phone: `${id}-phone` },
      secret: `${id}-secret`,
    })
  const note = (id: number, ownerId: string, isPublic = true) =>
    collections.create(texts, staff, { id, ownerId, body: 'b', memo: `${ownerId}-memo`, isPublic })
  return { ...opened, people, texts, person, note }
}

/** Columns of the row of a person that a reader has. */
const seenOfPerson = (id: string, reader: User | null): readonly string[] => [
  ...['id', 'handle'],
  ...(reader ? ['email'] : []),
  ...(reader?.role === 'staff' || reader?.id === id ? ['phone'] : []),
]

const seenOfNote = (owner: string, reader: User | null): readonly string[] => [
  ...['id', 'ownerId', 'body'],
  ...(reader?.id === owner ? ['memo'] : []),
  'isPublic',
]

function broken(): never {
  throw new Error('broken')
}

describe('hidden columns', () => {
  test.each(readers.map((reader) => [reader?.id ?? 'a visitor', reader] as const))(
    'what %s sees, in lists, rows, look-ups, children and expands',
    async (_name, reader) => {
      using folder = tempFolder()
      await using opened = await open(folder)
      const { collections, people, texts, person, note } = opened
      for (const id of ['ann', 'bob']) await person(id)
      await note(1, 'ann')
      await note(2, 'bob')
      // Others first: what they may see answers nobody else.
      for (const other of readers) await collections.list(people, other, '')
      const page: Page = jsonOf(await collections.list(people, reader, ''))
      expect(page.items.map((item) => Object.keys(item))).toEqual([
        [...seenOfPerson('ann', reader)],
        [...seenOfPerson('bob', reader)],
      ])
      for (const id of ['ann', 'bob']) {
        const keys = [...seenOfPerson(id, reader)]
        const one = jsonOf<object>(await collections.read(people, reader, id))
        expect(Object.keys(one)).toEqual(keys)
        const ask = { property: 'handle', text: `@${id}`, search: '' }
        const found = jsonOf<object>(await collections.lookup(people, reader, ask))
        expect(Object.keys(found)).toEqual(keys)
        const child = must(people.children[0], () => 'notes')
        const inside = { id, child, search: 'expand=owner' }
        const below: Page = jsonOf(await collections.children(people, reader, inside))
        expect(below.items.map((item) => Object.keys(item))).toEqual([
          [...seenOfNote(id, reader), 'owner'],
        ])
        expect(Object.keys(must(below.items[0], () => 'one')['owner'] as object)).toEqual(keys)
      }
      for (const plan of [texts, opened.planOf('notes/open')]) {
        for (const other of readers) await collections.list(plan, other, 'expand=owner')
        const all: Page = jsonOf(await collections.list(plan, reader, 'expand=owner'))
        const owners = all.items.map(({ owner }) => Object.keys(owner as object))
        expect(owners).toEqual([[...seenOfPerson('ann', reader)], [...seenOfPerson('bob', reader)]])
      }
    },
  )

  test('answers to writes, and their versions, are of what the writer may see', async () => {
    using folder = tempFolder()
    await using opened = await open(folder)
    const { collections, people, person } = opened
    const made = await person('ann')
    const keys = ['id', 'handle', 'email', 'phone']
    expect(Object.keys(made.row)).toEqual(keys)
    const patched = await collections.update(people, bob, 'ann', { secret: 'other', phone: '1' })
    expect(Object.keys(patched.row)).toEqual(['id', 'handle', 'email'])
    // Nobody can try values against the ETag of what he does not see.
    expect(patched.version).toBe(etagOf(JSON.stringify(patched.row)))
    const read = await collections.read(people, bob, 'ann')
    expect(read.entry.etag).toBe(patched.version)
    expect((await collections.read(people, null, 'ann')).entry.etag).not.toBe(patched.version)
    const isExpected = (version: string): boolean => version === patched.version
    await collections.update(people, bob, 'ann', { handle: 'new' }, { isExpected })
    const late = await faultOf(() =>
      collections.update(people, bob, 'ann', { handle: 'newer' }, { isExpected }),
    )
    expect(late.code).toBe('precondition')
    const again = { onceKey: 'k' }
    const body = { id: 'cat', handle: 'c', email: 'c', secret: 'cat-secret' }
    for (let round = 0; round < 2; round++) {
      const { row } = await collections.create(people, bob, body, again)
      expect(JSON.stringify(row)).not.toContain('cat-secret')
    }
  })

  test('a problem of a write names the column and no value', async () => {
    using folder = tempFolder()
    await using opened = await open(folder)
    const { collections, people, person } = opened
    await person('ann')
    const body = { id: 'x', handle: 'x', email: 'ann-email', secret: 'x' }
    const fault = await faultOf(() => collections.create(people, bob, body))
    expect(fault.fields).toEqual([{ field: 'email', message: 'is taken' }])
    for (const value of ['ann-secret', 'ann-phone', 'ann-email']) {
      expect(JSON.stringify([fault.message, fault.fields])).not.toContain(value)
    }
  })

  test.each([
    ['throws', broken, 500],
    ['is async', (() => Promise.resolve(true)) as never, 500],
    ['says nothing', (): undefined => undefined, 'hidden'],
    ['says null', (): null => null, 'hidden'],
    ['says something else', (() => 1) as never, 'hidden'],
    ['says a condition that holds for no row', () => eq(users.id, undefined), 'hidden'],
  ] as const)('a rule that %s shows nothing', async (_what, unless, outcome) => {
    using folder = tempFolder()
    const one = collection(users, { ...write, read: 'public', hide: { email: { unless } } })
    await using opened = await openCollections(folder, { users: one })
    const people = opened.planOf('users')
    const body = { id: 'a', handle: 'a', email: 'a-email', secret: 's' }
    const run = async (): Promise<string> => {
      await opened.collections.create(people, ann, body)
      return JSON.stringify(jsonOf(await opened.collections.list(people, ann, '')))
    }
    if (outcome === 'hidden') expect(await run()).not.toContain('a-email')
    else {
      expect((await faultOf(run)).code).toBe('internal')
      // Known before the write: what is answered as failed has not happened.
      expect((await opened.store.db.all('select * from users')).length).toBe(0)
    }
  })

  test('what could be asked by, or named by, a hidden column is refused at start', () => {
    const problems = (options: Omit<CollectionOptions<typeof notes>, 'hide'>, hide: unknown) => {
      try {
        const hidden = collection(notes, { ...options, hide } as never)
        const parents = collection(users, { children: { notes: notes.ownerId } })
        compilePlan(app({ name: 'a', collections: { notes: hidden, users: parents } }))
        return []
      } catch (thrown) {
        if (!(thrown instanceof Fault)) throw thrown
        return (thrown.fields ?? []).map(({ field, message }) => `${field}: ${message}`)
      }
    }
    const learn = 'is hidden: whoever asks by it would learn it'
    expect(problems({ filters: ['memo'] }, { memo: true })).toEqual([
      `collections.notes.filters: memo ${learn}`,
    ])
    const byRule = { unless: 'signed-in' }
    expect(problems({ orders: { memo: asc(notes.memo) } }, { memo: byRule })).toEqual([
      `collections.notes.orders.memo: memo ${learn}`,
    ])
    expect(problems({ expand: { owner: notes.ownerId } }, { ownerId: byRule })).toEqual([
      `collections.notes.expand.owner: ownerId ${learn}`,
      `collections.users.children.notes: ownerId ${learn}`,
    ])
    expect(problems({}, { id: true })).toContain(
      "collections.notes.hide.id: is the key: a row's id says it",
    )
    expect(problems({}, { nothing: true })).toEqual([
      'collections.notes.hide.nothing: is not a column of the table',
    ])
    const form = "must be true, or { unless: 'signed-in' } or { unless: ({ user }) => … }"
    expect(problems({}, { memo: 'signed-in', body: { until: 1 } })).toEqual([
      `collections.notes.hide.memo: ${form}`,
      `collections.notes.hide.body: ${form}`,
    ])
    expect(problems({}, { memo: { unless: 'public' } })).toEqual([
      "collections.notes.hide.memo.unless: must be 'signed-in' or a function",
    ])
    expect(problems({}, ['memo'])).toEqual([
      'collections.notes.hide: must name columns: { passwordHash: true }',
    ])
  })

  test('what another tier kept before a column was hidden is of another schema', () => {
    const schema = (hide: HideOptions<typeof notes>) =>
      schemaOf(compilePlan(app({ name: 'a', collections: { n: collection(notes, { hide }) } })))
    const kinds = [{}, { memo: true }, { memo: { unless: 'signed-in' } }, { body: true }] as const
    expect(new Set(kinds.map(schema)).size).toBe(kinds.length)
  })

  test.each([1, 2, 3, 4])(
    'whatever is written and read, in whatever order: seed %d',
    async (seed) => {
      using folder = tempFolder()
      await using opened = await open(folder)
      const { collections, people, texts, person, note } = opened
      const random = createRandom(seed)
      for (const id of ['ann', 'bob', 'eve']) await person(id)
      for (let id = 1; id <= 6; id++)
        await note(id, random.pick(['ann', 'bob']), random.below(3) > 0)
      const check = (value: unknown, reader: User | null): void => {
        if (Array.isArray(value)) for (const one of value) check(one, reader)
        if (typeof value !== 'object' || value === null || Array.isArray(value)) return
        const row = value as Readonly<Record<string, unknown>>
        const wanted =
          'handle' in row
            ? seenOfPerson(String(row['id']), reader)
            : 'body' in row && seenOfNote(String(row['ownerId']), reader)
        if (wanted) expect(Object.keys(row).filter((key) => key !== 'owner')).toEqual([...wanted])
        for (const one of Object.values(row)) check(one, reader)
      }
      const child = must(people.children[0], () => 'notes')
      for (let round = 0; round < 150; round++) {
        const reader = random.pick(readers)
        const id = random.pick(['ann', 'bob', 'eve'])
        switch (random.below(6)) {
          case 0: {
            const what = random.pick(['email', 'phone', 'secret'])
            const body = { [what]: `${id}-${what}-${round}` }
            check((await collections.update(people, bob, id, body)).row, bob)
            break
          }
          case 1: {
            const body = { memo: `memo-${round}`, ownerId: random.pick(['ann', 'bob']) }
            const one = String(1 + random.below(6))
            check((await collections.update(texts, ann, one, body)).row, ann)
            break
          }
          case 2:
            check(jsonOf(await collections.list(people, reader, 'limit=2')), reader)
            break
          case 3:
            check(jsonOf(await collections.read(people, reader, id)), reader)
            break
          case 4: {
            const search = random.pick(['', 'expand=owner', 'ownerId=ann&expand=owner', 'limit=2'])
            check(jsonOf(await collections.list(texts, reader, search)), reader)
            break
          }
          default: {
            const ask = { id, child, search: random.pick(['', 'expand=owner']) }
            check(jsonOf(await collections.children(people, reader, ask)), reader)
          }
        }
      }
    },
  )
})
