/**
 * The fast lane: where a URL leads is made out once, by the router, and then remembered by its text. What comes
 * again goes straight to the gates of its door: every gate stays on, only the way to them is shorter.
 *
 *   GET ─► URL known? ─► gates ─► door, with the URL already taken apart
 *        └ no ─► router ─► gates ─► door ─► answered at once (a cache hit)? remember
 *
 * Only what the cache answered is remembered: no flood of wrong URLs drives out the good ones.
 */
import type { Enter } from './gates.ts'
import type { Fetch } from './http.ts'
import type { Door, ReadDoor } from './visit.ts'

/** As many as the cache keeps entries; half a KB each, so 5 MB. Beyond, all are forgotten at once. */
const knownMax = 10_000

/** Longer URLs go through the router each time. */
const knownLengthMax = 512

export interface Lane {
  /** The full way for a door that reads, which teaches the short one. */
  learning(enter: Enter, read: ReadDoor): (request: Request) => Response | Promise<Response>
  /** `otherwise` takes whatever is not known. */
  before(otherwise: Fetch): Fetch
}

interface Known {
  readonly enter: Enter
  readonly door: Door
}

export function createLane(): Lane {
  const known = new Map<string, Known>()

  const learn = (url: string, one: Known): void => {
    if (url.length > knownLengthMax) return
    if (known.size >= knownMax) known.clear()
    known.set(url, one)
  }

  return {
    learning: (enter, read) => (request) => {
      const { url } = request
      const door = read(url)
      const response = enter(request, door)
      // Synchronous and good: the cache had it.
      if (!(response instanceof Promise) && response.status < 400) learn(url, { enter, door })
      return response
    },
    before: (otherwise) => (request) => {
      if (request.method !== 'GET') return otherwise(request)
      const found = known.get(request.url)
      return found ? found.enter(request, found.door) : otherwise(request)
    },
  }
}
