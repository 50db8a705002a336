/**
 * What is cached is what would be read anew, after every write, for every kind of question: the invariant of
 * src/collections/depends.ts. Seeded; a failure names its seed.
 */
import { describe, expect, test } from 'bun:test'
import { index, integer, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import type { User } from '../../src/auth/declare.ts'
import type { CacheEntry, CacheRead } from '../../src/cache/cache.ts'
import { asc, collection, desc, eq, gt, not, or } from '../../src/collections/declare.ts'
import { Fault } from '../../src/fault.ts'
import { must } from '../../src/lib/assert.ts'
import { tempFolder } from '../harness.ts'
import { createRandom, type Random } from '../lib/random.ts'
import { openCollections } from './open.ts'
import { alice, bob } from './setup.ts'

const writable = { create: 'public', update: 'public', remove: 'public' } as const

const users = sqliteTable('users', {
  id: text({ length: 20 }).primaryKey(),
  handle: text({ length: 20 }).unique(),
  isHidden: integer('is_hidden', { mode: 'boolean' }).notNull().default(false),
})
const boards = sqliteTable('boards', {
  id: integer().primaryKey(),
  code: text({ length: 10 }).notNull().unique(),
})
const posts = sqliteTable(
  'posts',
  {
    id: integer().primaryKey(),
    title: text({ length: 20 }).notNull(),
    score: real().notNull(),
    kind: text({ length: 10 }),
    authorId: text('author_id').references(() => users.id, { onDelete: 'set null' }),
    boardCode: text('board_code').references(() => boards.code, { onUpdate: 'cascade' }),
  },
  (t) => [index('posts_author').on(t.authorId)],
)

const declared = {
  users: collection(users, {
    ...writable,
    read: ({ user }) => or(eq(users.isHidden, false), eq(users.id, user?.id)),
    lookup: ['handle'],
    children: { posts: posts.authorId },
  }),
  boards: collection(boards, { ...writable, read: 'public', lookup: ['code'] }),
  posts: collection(posts, {
    ...writable,
    read: ({ user }) => (user ? not(eq(posts.kind, 'draft')) : gt(posts.score, 2)),
    filters: ['kind', 'authorId'],
    orders: {
      top: [desc(posts.score), desc(posts.id)],
      title: [asc(posts.title), asc(posts.id)],
      mixed: [desc(posts.title), asc(posts.score), asc(posts.id)],
    },
    expand: { author: posts.authorId, board: posts.boardCode },
  }),
}

// Some differ by case, some sort otherwise in UTF-16 than in UTF-8.
const titles = ['a', 'A', 'b', 'Zebra', 'ärger', '\u{1f600}', '\u{fffd}', '']
const kinds = ['draft', 'Draft', 'note', null]
const handles = ['ann', 'Ann', 'ben', 'cleo', null]
const ids = ['alice', 'bob', 'carl', 'dora']
const codes = ['x', 'y', 'Z']

describe('what is cached', () => {
  for (const seed of [1, 2, 3, 4]) {
    test(`is what would be read anew, seed ${seed}`, { timeout: 60_000 }, async () => {
      using folder = tempFolder()
      await using opened = await openCollections(folder, declared)
      const { collections, planOf } = opened
      const random = createRandom(seed)
      // Loads each time.
      const anew = opened.over({
        async read(_, __, ___, from) {
          if (typeof from === 'function') throw new Error('collections give sources')
          const { body } = await from.load(0)
          const absent = body ? {} : ({ isAbsent: true } as const)
          const entry = { body: body ?? new Uint8Array(), ...absent } as CacheEntry
          return { state: 'miss', isCoalesced: false, entry }
        },
      })
      const plans = { users: planOf('users'), boards: planOf('boards'), posts: planOf('posts') }
      const child = must(plans.users.children[0], () => 'declared')

      const put = (path: keyof typeof plans, row: Record<string, unknown>) =>
        collections.upsert([{ plan: plans[path], rows: [row] }])
      for (const id of ids) await put('users', { id, handle: null })
      for (const [at, code] of codes.entries()) await put('boards', { id: at, code })

      const write = async (): Promise<void> => {
        const id = random.below(40)
        const chance = random.next()
        try {
          if (chance < 0.6) await put('posts', someRow(random, id))
          else if (chance < 0.75) await collections.remove(plans.posts, null, String(id))
          else if (chance < 0.9) {
            const isHidden = random.next() < 0.3
            await put('users', { id: random.pick(ids), handle: random.pick(handles), isHidden })
          } else if (chance < 0.95) {
            await collections.remove(plans.users, null, random.pick(ids))
          } else await put('boards', { id: random.below(4), code: random.pick([...codes, 'w']) })
        } catch (thrown) {
          // A value that is taken, a row that is not there.
          if (!(thrown instanceof Fault)) throw thrown
        }
      }

      const seen: string[] = ['']
      const ask = (): ((from: typeof collections) => CacheRead | Promise<CacheRead>) => {
        const user: User | null = random.pick([null, alice, bob])
        const search = random.pick(seen)
        const expand = random.pick(['', 'expand=author', 'expand=board', 'expand=author,board'])
        const kind = random.below(6)
        const id = String(random.below(40))
        if (kind === 0) return (from) => from.read(plans.posts, user, id, expand)
        if (kind === 1) {
          const lookup = {
            property: 'handle',
            text: random.pick(['ann', 'Ann', 'ben']),
            search: '',
          }
          return (from) => from.lookup(plans.users, user, lookup)
        }
        if (kind === 2) {
          const within = { id: random.pick(ids), child, search: 'order=top&limit=3' }
          return (from) => from.children(plans.users, user, within)
        }
        const parts = [search, expand].filter((part) => part !== '')
        return (from) => from.list(plans.posts, user, parts.join('&'))
      }
      for (const order of ['top', 'title', 'mixed']) {
        for (const limit of [1, 3, 100]) {
          const base = `order=${order}&limit=${limit}`
          seen.push(base, `${base}&kind=note`, `${base}&kind=draft`, `${base}&authorId=bob`)
          if (limit === 3) seen.push(`${base}&count=true`)
        }
      }

      let hits = 0
      let reads = 0
      const questions = Array.from({ length: 60 }, ask)
      for (let round = 0; round < 400; round++) {
        await write()
        for (let time = 0; time < 6; time++) {
          const question = random.pick(questions)
          const [cached, fresh] = [
            await outcome(collections, question),
            await outcome(anew, question),
          ]
          expect([seed, round, cached.text]).toEqual([seed, round, fresh.text])
          reads++
          if (cached.state === 'hit') hits++
          // Pages beyond: from now on they are asked for, too.
          if (questions.length < 100) {
            for (const beyond of beyondOf(cached.text)) {
              const user = random.pick([null, alice])
              questions.push((from) => from.list(plans.posts, user, beyond))
            }
          }
        }
      }
      // Not by loading each time.
      expect(opened.cache.stats().repairs).toBeGreaterThan(20)
      expect(hits / reads).toBeGreaterThan(0.2)
    })
  }
})

function someRow(random: Random, id: number): Record<string, unknown> {
  return {
    id,
    title: random.pick(titles),
    score: random.pick([0, 1, 2, 2.5, 3, 1e300, -0.1]),
    kind: random.pick(kinds),
    authorId: random.pick([...ids, null]),
    boardCode: random.pick([...codes, null]),
  }
}

function beyondOf(text: string): string[] {
  const { next, prev } = JSON.parse(text) as { next?: string | null; prev?: string | null }
  // A cursor is good for its order alone; others answer 400 on both sides.
  return ['top', 'title', 'mixed'].flatMap((order) => [
    ...(next ? [`order=${order}&limit=3&after=${next}`] : []),
    ...(prev ? [`order=${order}&limit=2&before=${prev}&kind=note`] : []),
  ])
}

/** As text: the answer, or what was refused. */
async function outcome<T>(
  from: T,
  question: (from: T) => CacheRead | Promise<CacheRead>,
): Promise<{ readonly text: string; readonly state: string }> {
  try {
    const { entry, state } = await question(from)
    return { text: new TextDecoder().decode(entry.body), state }
  } catch (thrown) {
    if (!(thrown instanceof Fault)) throw thrown
    return { text: JSON.stringify({ fault: thrown.code }), state: 'fault' }
  }
}
