/**
 * Warming: what the app says will be asked for, and what was asked for most before the last stop, is loaded
 * before anybody asks. Public answers only: what a user may see is not known before the user comes.
 *
 *   start ─► declared reads (at most 2 s are waited for) ─► hot ones of last time, a few a second
 *   reads ─► one in 61 noted ─► the hottest 500, kept in the database each minute and at stop
 *
 * Limits: a few loads at a time, and a bounded number; readiness waits for no more than `waitMsMax`.
 */
import type { Clock } from '../lib/clock.ts'
import { detach, type Service } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Store } from '../store/store.ts'
import type { CollectionPlan, Collections } from './collections.ts'

/** A start waits no longer. */
const waitMsMax = 2_000

/** Loads under way at a time, so that visitors' own reads find a free reader. */
const loadsAtOnce = 2

/** Between two loads of what was hot: 100 a second. */
const pauseMs = 10

/** Kept of what was hot. */
const hotMax = 500

/**
 * One read in so many is noted: a note costs more than a hit, and makes a text. A prime: of pages that ask for the same
 * few in turn, each has its turn.
 */
const noteEvery = 61

/** A longer question is not worth keeping. */
const notedLengthMax = 512

/** Noted at a time; beyond, all counts are halved and the smallest forgotten. */
const notedMax = 5_000

const keepEveryMs = 60_000

export interface Warmer extends Service {
  /** Resolves when the declared reads are loaded, or after two seconds. */
  start(): Promise<void>
  /** The cache is empty again. */
  again(): void
  stop(): Promise<void>
}

export interface WarmDeps {
  readonly collections: Pick<Collections, 'list' | 'read' | 'lookup' | 'children' | 'plans'>
  readonly store: Pick<Store, 'remember' | 'recall'>
  readonly clock: Clock
  readonly log: Log
}

/** What was read most. */
export interface Noted {
  hottest(): readonly HotRead[]
  /** Was hot before: it counts for one, so that it is not forgotten by a stop soon after the start. */
  recall(reads: readonly HotRead[]): void
}

/** Notes what is read of public collections; the reads themselves are as they were. */
export function noting(collections: Collections): {
  readonly collections: Collections
  readonly noted: Noted
} {
  const counts = new Map<string, number>()
  let left = noteEvery
  const isNoted = ({ rules }: CollectionPlan): boolean => {
    if (--left > 0) return false
    left = noteEvery
    return rules.read === 'public'
  }
  const note = (read: HotRead): void => {
    const key = JSON.stringify(read)
    if (key.length > notedLengthMax) return
    counts.set(key, (counts.get(key) ?? 0) + 1)
    if (counts.size > notedMax) halve(counts)
  }
  const hottest = (): readonly HotRead[] =>
    [...counts]
      .toSorted(([, a], [, b]) => b - a)
      .slice(0, hotMax)
      .map(([key]) => JSON.parse(key) as HotRead)
  return {
    collections: {
      ...collections,
      list(plan, user, search) {
        if (isNoted(plan)) note(['list', plan.path, search])
        return collections.list(plan, user, search)
      },
      read(plan, user, id, search = '') {
        if (isNoted(plan)) note(['row', plan.path, id, search])
        return collections.read(plan, user, id, search)
      },
      lookup(plan, user, ask) {
        if (isNoted(plan)) note(['lookup', plan.path, ask.property, ask.text, ask.search])
        return collections.lookup(plan, user, ask)
      },
      children(plan, user, ask) {
        if (isNoted(plan)) note(['children', plan.path, ask.child.name, ask.id, ask.search])
        return collections.children(plan, user, ask)
      },
    },
    noted: {
      hottest,
      recall(reads) {
        for (const read of reads) note(read)
      },
    },
  }
}

/**
 * What was read of which collection. Of a list its query string; of others a row's id, a property and its value, a
 * child's name and the id, and then the query string.
 */
export type HotRead = readonly [
  kind: 'list' | 'row' | 'lookup' | 'children',
  path: string,
  ...asked: readonly string[],
]

function halve(counts: Map<string, number>): void {
  for (const [key, count] of counts) {
    if (count < 2) counts.delete(key)
    else counts.set(key, count >> 1)
  }
}

export function createWarmer({ collections, store, clock, log }: WarmDeps, noted: Noted): Warmer {
  const byPath = new Map(collections.plans.map((plan) => [plan.path, plan]))
  let isStopped = false
  let cancelKeep = (): void => {}

  const ask = (plan: CollectionPlan, [kind, , first = '', second = '', search = '']: HotRead) => {
    switch (kind) {
      case 'list':
        return collections.list(plan, null, first)
      case 'row':
        return collections.read(plan, null, first, second)
      case 'lookup': {
        if (!plan.lookup.includes(first)) return undefined
        return collections.lookup(plan, null, { property: first, text: second, search })
      }
      case 'children': {
        const child = plan.children.find(({ name }) => name === first)
        return child && collections.children(plan, null, { id: second, child, search })
      }
    }
  }

  const load = async (read: HotRead): Promise<void> => {
    const plan = byPath.get(read[1])
    if (!plan || plan.rules.read !== 'public' || isStopped) return
    try {
      await ask(plan, read)
    } catch {
      // Gone, or a query of an older version of the app: whoever asks for it is told.
    }
  }

  const loadAll = async (reads: readonly HotRead[], restMs: number): Promise<void> => {
    const left = reads.values()
    const worker = async (): Promise<void> => {
      for (const one of left) {
        if (isStopped) return
        await load(one)
        if (restMs > 0) await new Promise<void>((resolve) => void clock.after(restMs, resolve))
      }
    }
    await Promise.all(Array.from({ length: loadsAtOnce }, worker))
  }

  const declared = (): HotRead[] =>
    collections.plans.flatMap((plan) =>
      plan.warm.map((search): HotRead => ['list', plan.path, search]),
    )

  const keep = async (): Promise<void> => {
    const hot = noted.hottest()
    if (hot.length > 0) await store.remember('hot', JSON.stringify(hot))
  }

  const warm = async (): Promise<void> => {
    await loadAll(declared(), 0)
    const kept = await store.recall('hot')
    const hot = kept === undefined ? [] : (JSON.parse(kept) as HotRead[])
    noted.recall(hot)
    detach(loadAll(hot, pauseMs), (error) => log.warn('cache.not_warmed', { error }))
  }

  return {
    async start() {
      const patience = Promise.withResolvers<void>()
      const cancel = clock.after(waitMsMax, patience.resolve)
      const warming = warm().catch((error: unknown) => log.warn('cache.not_warmed', { error }))
      await Promise.race([warming, patience.promise])
      cancel()
      cancelKeep = clock.every(keepEveryMs, () =>
        detach(keep(), (error) => log.warn('cache.hot_not_kept', { error })),
      )
    },
    again() {
      detach(loadAll(declared(), 0), (error) => log.warn('cache.not_warmed', { error }))
    },
    async stop() {
      isStopped = true
      cancelKeep()
      await keep().catch((error: unknown) => log.warn('cache.hot_not_kept', { error }))
    },
  }
}
