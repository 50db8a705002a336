/**
 * Publications on their way to Redis, in the order they were made: some at once, the others wait.
 *
 * Invariant: what Redis does not take is published by this node alone before anything that was made after it.
 */
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { Pace } from '../lib/pace.ts'
import type { Once } from './broker.ts'
import type { Encoded, Match } from './hub.ts'
import type { Position } from './recovery.ts'

/** Redis does them in 20 ms, a fifth of what a command may take. */
const inFlightMax = 1_000
const inFlightBytesMax = 4 * 1024 * 1024

/** Whoever is refused hears when there is room again. */
const waitingMax = 50_000
const waitingBytesMax = 32 * 1024 * 1024

/** Of one publication, until it is known: a thousand in 20 ms. */
const msPerPublicationAtFirst = 0.02

/** Counted together: one alone is a round trip, and says nothing of how many go at once. */
const pacedAtOnce = 100

export interface Job {
  readonly match: Match
  readonly encoded: Encoded
  readonly once: Once | undefined
}

interface Waiting extends Job {
  readonly resolve: (position: Position | Promise<Position>) => void
  readonly reject: (thrown: unknown) => void
}

/** Redis is to be asked; or is away, perhaps for a moment only; or this node goes on without it. */
export type Way = 'shared' | 'wait' | 'alone'

export interface LaneDeps {
  readonly clock: Pick<Clock, 'tick'>
  readonly wayOf: (match: Match) => Way
  readonly share: (job: Job) => Promise<Position>
  readonly publishAlone: (job: Job) => Position | Promise<Position>
}

export interface Lane {
  /** Faults: `too_many`, and those of being alone. */
  publish(job: Job): Position | Promise<Position>
  /** Looks whether what waits may go. */
  go(): void
  settled(): Promise<void>
}

export function createLane({ clock, wayOf, share, publishAlone }: LaneDeps): Lane {
  let queue: Waiting[] = []
  let head = 0
  let inFlight = 0
  let inFlightBytes = 0
  let waitingBytes = 0
  let onIdle: PromiseWithResolvers<void> | undefined
  const pace = new Pace(msPerPublicationAtFirst)
  /** Gone since `pacedAt`. */
  let gone = 0
  let pacedAt = 0

  const isIdle = (): boolean => inFlight === 0 && head === queue.length

  const settle = ({ resolve, reject }: Waiting, run: () => Position | Promise<Position>): void => {
    try {
      resolve(run())
    } catch (thrown) {
      reject(thrown)
    }
  }

  const send = (job: Waiting): void => {
    const { bytes } = job.encoded
    inFlight += 1
    inFlightBytes += bytes
    const over = (): void => {
      inFlight -= 1
      inFlightBytes -= bytes
      count()
      go()
    }
    share(job).then(
      (position) => {
        job.resolve(position)
        over()
      },
      () => {
        settle(job, () => publishAlone(job))
        over()
      },
    )
  }

  /** How fast it goes while it is busy. */
  const count = (): void => {
    gone += 1
    if (gone < pacedAtOnce) return
    const now = clock.tick()
    pace.took(gone, now - pacedAt)
    gone = 0
    pacedAt = now
  }

  const go = (): void => {
    for (let job = queue[head]; job; job = queue[head]) {
      const way = wayOf(job.match)
      const isFull = inFlight >= inFlightMax || inFlightBytes > inFlightBytesMax
      if (way === 'shared' ? isFull : way === 'wait' || inFlight > 0) return
      head += 1
      waitingBytes -= job.encoded.bytes
      const one = job
      if (way === 'shared') send(one)
      else settle(one, () => publishAlone(one))
    }
    queue = []
    head = 0
    if (isIdle()) onIdle?.resolve()
  }

  return {
    publish(job) {
      if (isIdle() && wayOf(job.match) === 'alone') return publishAlone(job)
      const waiting = queue.length - head
      if (waiting >= waitingMax || waitingBytes > waitingBytesMax) {
        const text = 'publications come faster than redis takes them'
        throw new Fault('too_many', text, { retryAfterMs: pace.waitMs(waiting + inFlight) })
      }
      if (isIdle()) {
        gone = 0
        pacedAt = clock.tick()
      }
      waitingBytes += job.encoded.bytes
      const { promise, resolve, reject } = Promise.withResolvers<Position>()
      queue.push({ ...job, resolve, reject })
      go()
      return promise
    },
    go,
    async settled() {
      while (!isIdle()) {
        onIdle ??= Promise.withResolvers()
        await onIdle.promise
        onIdle = undefined
      }
    },
  }
}
