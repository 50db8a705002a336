/**
 * Coalescing: a thousand callers who miss the same key at once cost one load. A flight remembers
 * when it took off (`asOf`); whoever arrives after an invalidation takes the next one, because this
 * one may carry the old value.
 */
export interface Flight<T> {
  readonly asOf: number
  readonly tags: readonly string[]
  readonly landing: Promise<T>
}

export interface Flights<T> {
  /** The flight to join, if one is under way and `isValid` for it. */
  find(key: string, isValid: (flight: Flight<T>) => boolean): Flight<T> | undefined
  /** Starts one; it is forgotten when it lands, unless a newer one has taken its place. */
  depart(key: string, asOf: number, tags: readonly string[], load: () => Promise<T>): Flight<T>
  readonly size: number
}

export function createFlights<T>(): Flights<T> {
  const inAir = new Map<string, Flight<T>>()

  return {
    find(key, isValid) {
      const flight = inAir.get(key)
      return flight && isValid(flight) ? flight : undefined
    },
    depart(key, asOf, tags, load) {
      const flight: Flight<T> = { asOf, tags, landing: load().finally(land) }
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
