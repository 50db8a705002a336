/**
 * At most one publication per key and interval; the latest wins.
 *
 *   said      a1   a2 a3        a4              a5
 *   window    ├───────────────┤├───────────────┤          (a key's own, from its last publication on)
 *   heard     a1               a3                a4 …      a5 at once if its window is over
 *
 * The first one of a quiet key goes at once. What comes within its window waits, each in the place of the one
 * before; when the window ends, what waits goes and opens the next. Nothing else is lost: a stop lets all go.
 *
 * Limits: keys and the bytes that wait are bounded, over all topics. Above that what comes goes at once: a
 * topic is then heard more often than declared, never something older.
 */
import type { Cancel, Clock } from '../lib/clock.ts'

export interface ConflatePlan {
  readonly everyMs: number
  /** Of a publication's data; absent: the whole topic is one key. */
  readonly key?: ((data: unknown) => unknown) | undefined
}

export interface ConflateLimits {
  /** Windows open at once, of all topics: about 200 bytes each. */
  readonly conflatedKeysMax: number
  /** Data that waits, of all topics. */
  readonly conflatedBytesMax: number
}

/** What waits: JSON text and its length in bytes. */
interface Waiting {
  readonly bytes: number
}

interface Window<T> {
  endsAt: number
  waiting: T | undefined
}

/** The windows of one topic are equally long, so that the order in which they open is the one in which they end. */
interface Keys<T> {
  readonly everyMs: number
  readonly windows: Map<string, Window<T>>
  cancel: Cancel | undefined
}

export interface Conflator<T> {
  /** True: it waits. False: a window is open from now on, and the caller lets it go at once. */
  holds(topic: string, everyMs: number, key: string, publication: T): boolean
  /** All that waits goes. */
  flush(): void
  readonly keys: number
  readonly bytes: number
}

export interface ConflateDeps<T> {
  readonly clock: Clock
  /** A publication whose window has ended. Must not throw. */
  readonly go: (topic: string, publication: T) => void
}

export function createConflator<T extends Waiting>(
  { clock, go }: ConflateDeps<T>,
  limits: ConflateLimits,
): Conflator<T> {
  const topics = new Map<string, Keys<T>>()
  let keys = 0
  let bytes = 0

  const keysOf = (topic: string, everyMs: number): Keys<T> => {
    const found = topics.get(topic)
    if (found) return found
    const made: Keys<T> = { everyMs, windows: new Map(), cancel: undefined }
    topics.set(topic, made)
    return made
  }

  const open = (of: Keys<T>, key: string): void => {
    if (keys >= limits.conflatedKeysMax) return
    of.windows.set(key, { endsAt: clock.tick() + of.everyMs, waiting: undefined })
    keys += 1
  }

  /** What waited in it, if anything. */
  const close = (of: Keys<T>, key: string, { waiting }: Window<T>): T | undefined => {
    of.windows.delete(key)
    keys -= 1
    bytes -= waiting?.bytes ?? 0
    return waiting
  }

  /** One timer for each topic: for the window that ends first. */
  const arm = (topic: string, of: Keys<T>): void => {
    if (of.cancel) return
    const [first] = of.windows.values()
    if (first)
      of.cancel = clock.after(Math.max(0, first.endsAt - clock.tick()), () => end(topic, of))
    else topics.delete(topic)
  }

  const end = (topic: string, of: Keys<T>): void => {
    of.cancel = undefined
    const now = clock.tick()
    for (const [key, window] of of.windows) {
      if (window.endsAt > now) break
      const waiting = close(of, key, window)
      if (!waiting) continue
      open(of, key)
      go(topic, waiting)
    }
    arm(topic, of)
  }

  return {
    holds(topic, everyMs, key, publication) {
      const of = keysOf(topic, everyMs)
      const window = of.windows.get(key)
      const isOpen = window !== undefined && window.endsAt > clock.tick()
      const before = window?.waiting?.bytes ?? 0
      if (isOpen && bytes - before + publication.bytes <= limits.conflatedBytesMax) {
        bytes += publication.bytes - before
        window.waiting = publication
        return true
      }
      // What waits here is older than the one that goes now.
      if (window) close(of, key, window)
      open(of, key)
      arm(topic, of)
      return false
    },
    flush() {
      for (const [topic, of] of topics) {
        of.cancel?.()
        topics.delete(topic)
        keys -= of.windows.size
        for (const { waiting } of of.windows.values()) {
          if (!waiting) continue
          bytes -= waiting.bytes
          go(topic, waiting)
        }
      }
    },
    get keys() {
      return keys
    },
    get bytes() {
      return bytes
    },
  }
}
