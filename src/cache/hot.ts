/**
 * What is asked for and becomes invalid is loaded anew before anybody asks again: of a hundred reads then one
 * waits for the database instead of ten.
 *
 *   hit ─► noted ─► a write ─► (20 ms) look at all that are noted ─► the invalid ones, most asked first,
 *                                                                    four at a time
 *
 * An entry is noted at its first hit and loaded ahead once: if nobody asks for the new one, nobody gets it
 * loaded again. So of all that is loaded ahead, at most every second is for nobody. What the log itself can
 * mend (`Source.repair`) needs no load.
 */
import type { Cancel, Clock } from '../lib/clock.ts'

/** After a write: others that come with it are looked at together, and a burst of them costs one look. */
const waitMs = 20

/** Looked at each time: 0.2 µs each, so at most two hundredths of a core. */
const hotMax = 2_000

/** Loads at a time: visitors' own find free readers. */
const loadsAtOnce = 4

export interface Hot<Entry> {
  add(entry: Entry): void
  /** Something changed. */
  look(): void
  stop(): void
}

export interface HotDeps<Entry> {
  readonly clock: Pick<Clock, 'after'>
  readonly isGood: (entry: Entry) => boolean
  /** Never shown: who asks later is told what is wrong. */
  readonly reload: (entry: Entry) => Promise<void>
}

export function createHot<Entry extends WeakKey & { readonly hits: number }>({
  clock,
  isGood,
  reload,
}: HotDeps<Entry>): Hot<Entry> {
  // Weakly: what has left the cache is not kept by this.
  const noted = new Set<WeakRef<Entry>>()
  let waiting: Entry[] = []
  let loads = 0
  let cancel: Cancel | undefined
  let isStopped = false

  const next = (): void => {
    while (loads < loadsAtOnce && !isStopped) {
      const entry = waiting.pop()
      if (!entry) return
      loads++
      reload(entry)
        .catch(() => {})
        .finally(() => {
          loads--
          next()
        })
    }
  }

  const lookAtAll = (): void => {
    cancel = undefined
    for (const one of noted) {
      const entry = one.deref()
      if (entry && isGood(entry)) continue
      noted.delete(one)
      if (entry) waiting.push(entry)
    }
    // What has waited since the last look and is still behind goes before what is less asked for.
    waiting.sort((a, b) => a.hits - b.hits)
    if (waiting.length > hotMax) waiting = waiting.slice(-hotMax)
    next()
  }

  return {
    add(entry) {
      if (isStopped) return
      noted.add(new WeakRef(entry))
      if (noted.size <= hotMax) return
      // The one noted longest ago: what is both hot and often written is noted anew each time.
      for (const oldest of noted) {
        noted.delete(oldest)
        break
      }
    },
    look() {
      if (!isStopped) cancel ??= clock.after(waitMs, lookAtAll)
    },
    stop() {
      isStopped = true
      cancel?.()
      noted.clear()
      waiting = []
    },
  }
}
