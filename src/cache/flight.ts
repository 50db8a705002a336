/**
 * Coalescing: a thousand callers who miss the same key at once cost one load. A flight remembers
 * when it took off (`asOf`); whoever arrives after an invalidation takes the next one, because this
 * one may carry the old value, and so does whoever finds one that has been away too long: a load that never
 * ends is not waited for by everybody for good.
 */
import type { Clock } from '../lib/clock.ts'

/** Nobody joins an older one. Reads of the store, and upstreams, are given up sooner by themselves. */
export const joinMsMax = 30_000

export interface Flight<T> {
  readonly asOf: number
  readonly tags: readonly string[]
  /** `clock.tick()` */
  readonly departedMs: number
  readonly landing: Promise<T>
}

export interface Flights<T> {
  /** The flight to join, if one is under way and `isValid` for it. */
  find(key: string, isValid: (flight: Flight<T>) => boolean): Flight<T> | undefined
  /** Starts one; it is forgotten when it lands, unless a newer one has taken its place. */
  depart(key: string, asOf: number, tags: readonly string[], load: () => Promise<T>): Flight<T>
  readonly size: number
}

export function createFlights<T>({ tick }: Pick<Clock, 'tick'>): Flights<T> {
  const inAir = new Map<string, Flight<T>>()

  return {
    find(key, isValid) {
      const flight = inAir.get(key)
      const isJoinable = flight && tick() - flight.departedMs < joinMsMax && isValid(flight)
      return isJoinable ? flight : undefined
    },
    depart(key, asOf, tags, load) {
      const flight: Flight<T> = {
        ...{ asOf, tags, departedMs: tick() },
        landing: load().finally(land),
      }
      function land(): void {
        if (inAir.get(key) === flight) inAir.delete(key)
      }
      inAir.set(key, flight)
      return flight
    },
    get size() {
      return inAir.size
    },
  }
}
