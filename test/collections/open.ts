/** Any collections over a real store and a real cache, and every statement they read with. */
import { createCache, type Cache, type CacheRead } from '../../src/cache/cache.ts'
import {
  createCollections,
  type CollectionPlan,
  type LiveEvent,
} from '../../src/collections/collections.ts'
import type { CollectionDeclaration } from '../../src/collections/declare.ts'
import { must } from '../../src/lib/assert.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { app } from '../../src/plan/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { tableTagOf, type Query } from '../../src/store/store.ts'
import { createTestLog, openStore, type TempFolder } from '../harness.ts'

export async function openCollections(
  folder: TempFolder,
  declared: Readonly<Record<string, CollectionDeclaration>>,
  cursorKey = new Uint8Array(32),
  topics: Parameters<typeof app>[0]['topics'] = {},
) {
  const plan = compilePlan(app({ name: 'test', collections: declared, topics }))
  const store = await openStore(folder.file('a.db'), plan.tables)
  const groups = plan.tables.map(tableTagOf)
  const cache = createCache({ clock: systemClock }, { groups })
  const reads: Query[] = []
  const published: LiveEvent[] = []
  const over = (which: Pick<Cache, 'read'>) =>
    createCollections(
      {
        store: {
          ...store,
          read: (query, options) => {
            reads.push(query)
            return store.read(query, options)
          },
        },
        cache: which,
        topics: { publish: (_, event) => void published.push(event) },
        log: createTestLog(),
        cursorKey: () => cursorKey,
      },
      plan.collections,
    )
  const collections = over(cache)
  store.onChange((change) => cache.apply(change.seq, change.tags, change))
  const planOf = (path: string): CollectionPlan =>
    must(
      plan.collections.find((one) => one.path === path),
      () => path,
    )
  return {
    store,
    cache,
    collections,
    /** The same ones over another cache. */
    over,
    reads,
    /** If `collections.changed` is told of changes. */
    published,
    plan,
    planOf,
    [Symbol.asyncDispose]: async () => await store.stop(),
  }
}

export const jsonOf = <T>({ entry }: CacheRead): T =>
  JSON.parse(new TextDecoder().decode(entry.body)) as T

export interface Page {
  readonly items: readonly Readonly<Record<string, unknown>>[]
  readonly next: string | null
  readonly prev: string | null
  readonly count?: number
}
