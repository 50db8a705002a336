import type { Clock } from './clock.ts'

/** A long-lived thing. The root starts services upwards, drains and stops them downwards. */
export interface Service {
  start?(): Promise<void> | void
  /** Stop taking new work; let what runs finish. */
  drain?(): Promise<void> | void
  stop(): Promise<void> | void
}

/** Runs a promise nobody awaits, and says where its failure goes: no promise floats. */
export function detach(promise: Promise<unknown>, onFailure: (cause: unknown) => void): void {
  promise.catch(onFailure)
}

/** Waits for what never rejects, but no longer than that: a goodbye that nobody hears. */
export async function atMost(clock: Clock, ms: number, promise: Promise<unknown>): Promise<void> {
  const over = Promise.withResolvers<void>()
  const cancel = clock.after(ms, over.resolve)
  await Promise.race([promise, over.promise])
  cancel()
}
