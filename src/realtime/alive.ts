/**
 * Durable topics come from the store when they are first needed, which takes a moment: what a client asked
 * for goes on then, and its later commands wait, so that they are done in the order they came.
 */
import type { Durable } from './durable.ts'
import type { Hub } from './hub.ts'
import type { Peer } from './peer.ts'
import { errors } from './protocol.ts'
import type { Position } from './recovery.ts'
import { askOf } from './rules.ts'

interface Context {
  readonly hub: Hub
  readonly durable: Durable | undefined
}

/** Undefined: nothing has to be waited for. Names that are no durable topics are no matter. Faults: `unavailable`. */
export function bringAlive(
  { hub, durable }: Context,
  names: Iterable<string>,
): Promise<unknown> | undefined {
  const loads: Promise<void>[] = []
  for (const name of names) {
    const match = hub.match(name)
    const loading = match?.plan.persist && durable?.ready(match)
    if (loading) loads.push(loading)
  }
  return loads.length === 0 ? undefined : Promise.all(loads)
}

interface Wanted {
  readonly channel: unknown
  readonly isGranted: boolean
  readonly since?: Position | undefined
}

/** For whoever may subscribe to the topic, or is let in by a grant; for any other `run` will say so. */
export function whenAlive(
  peer: Peer,
  id: number,
  { channel, isGranted, since }: Wanted,
  run: () => void,
): Promise<void> | undefined {
  const { durable, hub } = peer.context
  const match = typeof channel === 'string' ? hub.match(channel) : undefined
  const isNeeded = match?.plan.persist && (since !== undefined || !hub.peek(match.name))
  if (isNeeded && (isGranted || askOf(peer, match, 'subscribe') === 'allowed')) {
    const loading = durable?.ready(match, since)
    if (loading) return goOn(peer, id, loading, run)
  }
  run()
  return undefined
}

export function goOn(
  peer: Peer,
  id: number,
  loading: Promise<unknown>,
  run: () => void,
): Promise<void> {
  return loading.then(
    () => {
      if (peer.state !== 'closed') peer.act(run)
    },
    (error) => {
      peer.context.log.warn('realtime.topic-not-loaded', { error })
      if (peer.state !== 'closed') peer.act(() => peer.error(id, errors.internal))
    },
  )
}
