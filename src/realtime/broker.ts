/**
 * Where publications get their number, and so their order: this process, or Redis for several nodes.
 *
 *   publish ─► Broker ─► Hub.emit, in the order of the offsets ─► history, subscribers
 *
 * Whatever the broker, `Hub` has the topic's copy that subscribers are served from. Invariants, at each node:
 * offsets of an epoch have no hole; one epoch's offsets mean the same publications everywhere; what cannot be
 * kept up is said (`Hub.restart`: unsubscribe 2500 on a socket, `event: gap` on a stream).
 */
import type { Telling } from '../store/store.ts'
import type { Encoded, Hub, Match } from './hub.ts'
import type { TopicPlan } from './realtime.ts'
import type { Position } from './recovery.ts'

export interface Broker {
  /** Whether such topics come alive by `ready` alone. */
  keeps(plan: TopicPlan): boolean
  /**
   * Undefined: the topic may be opened. Otherwise once it is as the others know it, and not behind `since`, which
   * somebody may have from another node. Faults: `unavailable`.
   */
  ready(match: Match, since?: Position): Promise<void> | undefined
  /**
   * What every node says by itself is published once; for the others the answer is where the topic stands.
   * Faults: `unavailable`, `too_many`.
   */
  publish(match: Match, encoded: Encoded, once?: Once): Position | Promise<Position>
  /** What the topic keeps goes, at every node; it counts on. Faults: `unavailable`. */
  forget(match: Match): void | Promise<void>
  /** Topics that count by themselves because Redis is away. */
  readonly alone: number
  /** All that was published has its position. */
  settled(): Promise<void>
  start(): void
  stop(): void
}

/** Of what every node says by itself: the change it tells; or that it is said only if it differs from what was last said so. */
export type Once = Telling | 'differs'

/** For one node: nothing outlives the process, and its epochs say so. */
export function createMemoryBroker(hub: Hub): Broker {
  return {
    keeps: () => false,
    ready: () => undefined,
    publish: ({ name }, encoded) => hub.publish(name, encoded),
    forget: ({ name }) => hub.peek(name)?.history.clear(),
    alone: 0,
    settled: () => Promise.resolve(),
    start: () => {},
    stop: () => {},
  }
}
