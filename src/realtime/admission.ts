/**
 * Who may come in, and when. How many: in all, of one address, of one user. How fast: when a restart
 * brings everybody back at once, what `connect` costs (a token to verify, topics to join, histories to
 * send) is spread by a token bucket, and whoever finds it empty stands in line; so do event streams, which come back
 * with a replay each:
 *
 *   connect ─┬─► the bucket has one ─────────────────────────► goes on
 *            ├─► in line, first come, first served ─► 10 ms ─► goes on
 *            └─► the line is full ─► error 111, or `retry` and the end of the stream: the client comes back later
 *
 * So nobody is refused at random, and those inside are served meanwhile.
 */
import { Fault } from '../fault.ts'
import { Bucket } from '../lib/bucket.ts'
import type { Cancel, Clock } from '../lib/clock.ts'

export interface AdmissionLimits {
  /** Sockets and streams. */
  readonly connectionsMax: number
  /** Infinity: behind a proxy all are of one. */
  readonly connectionsPerAddressMax: number
  readonly connectionsPerUserMax: number
  readonly connectsPerSecond: number
  /** At once, after a rest. */
  readonly connectsBurst: number
  /** In line. No more than are served before a client gives a command up. */
  readonly connectsWaitingMax: number
}

/** Between two looks at the line. */
const stepMs = 10

/** Who stands in line; closed, it has gone home. */
export interface Guest {
  readonly state: 'opened' | 'connected' | 'closed'
}

export interface Admission {
  readonly addresses: Tally
  readonly users: Tally
  /** In line. */
  readonly waiting: number
  /** One more of them may come. Faults: `too_many`. */
  check(address: string, user: string | undefined): void
  /** Takes a place. The promise never fails; who is closed by then takes none. */
  enter(guest: Guest): 'now' | 'full' | Promise<void>
  /** Whoever stands in line goes on, and finds that nobody is served any more. */
  stop(): void
}

/** How many there are of each. Nothing is counted where there is no limit. */
export class Tally {
  readonly #max: number
  readonly #counts = new Map<string, number>()

  constructor(max: number) {
    this.#max = max
  }

  isFull(key: string): boolean {
    return (this.#counts.get(key) ?? 0) >= this.#max
  }

  /** What to remove it by: empty, so that nobody keeps it, where nothing is counted. */
  add(key: string): string {
    if (this.#max === Infinity) return ''
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1)
    return key
  }

  remove(key: string): void {
    const left = (this.#counts.get(key) ?? 0) - 1
    if (left > 0) this.#counts.set(key, left)
    else this.#counts.delete(key)
  }

  /** Keys that are counted. */
  get size(): number {
    return this.#counts.size
  }
}

interface Waiting {
  readonly guest: Guest
  readonly goOn: () => void
}

export function createAdmission(clock: Clock, limits: AdmissionLimits): Admission {
  const { connectsPerSecond, connectsBurst, connectsWaitingMax } = limits
  const addresses = new Tally(limits.connectionsPerAddressMax)
  const users = new Tally(limits.connectionsPerUserMax)
  let line: Waiting[] = []
  /** Those before it have gone on. */
  let served = 0
  const tokens = new Bucket(clock, { perSecond: connectsPerSecond, most: connectsBurst })
  let cancel: Cancel | undefined

  const serve = (): void => {
    tokens.fill()
    for (let next = line[served]; next; next = line[served]) {
      if (next.guest.state !== 'closed') {
        if (tokens.isEmpty) return
        tokens.take()
      }
      served += 1
      next.goOn()
    }
    line = []
    served = 0
    cancel?.()
    cancel = undefined
  }

  return {
    addresses,
    users,
    get waiting() {
      return line.length - served
    },
    check(address, user) {
      if (addresses.isFull(address)) {
        throw new Fault(
          'too_many',
          `more than ${limits.connectionsPerAddressMax} connections of this address`,
        )
      }
      if (user !== undefined && users.isFull(user)) {
        throw new Fault(
          'too_many',
          `more than ${limits.connectionsPerUserMax} connections of this user`,
        )
      }
    },
    enter(guest) {
      tokens.fill()
      if (line.length === 0 && !tokens.isEmpty) {
        tokens.take()
        return 'now'
      }
      if (line.length - served >= connectsWaitingMax) return 'full'
      cancel ??= clock.every(stepMs, serve)
      return new Promise((goOn) => void line.push({ guest, goOn }))
    },
    stop() {
      cancel?.()
      cancel = undefined
      for (const { goOn } of line.slice(served)) goOn()
      line = []
      served = 0
    },
  }
}
