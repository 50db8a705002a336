/**
 * Topics that are kept elsewhere, in the store or for several nodes, come from there when they are first needed.
 * That takes a moment: what a client asked for goes on then, and its later commands wait, so that they are done in
 * the order they came.
 */
import type { Broker } from './broker.ts'
import type { Hub, Topic } from './hub.ts'
import type { Peer } from './peer.ts'
import { errors } from './protocol.ts'
import type { Position } from './recovery.ts'
import { askOf } from './rules.ts'

interface Context {
  readonly hub: Hub
  readonly broker: Broker
}

/**
 * Undefined: nothing has to be waited for. Names that are no topics are no matter. Faults: `unavailable`.
 * `sinceOf`: where somebody was in a topic that is alive here, perhaps at another node that is further.
 */
export function bringAlive(
  { hub, broker }: Context,
  names: Iterable<string>,
  sinceOf: (alive: Topic) => Position | undefined = () => undefined,
): Promise<unknown> | undefined {
  const loads: Promise<void>[] = []
  for (const name of names) {
    const match = hub.match(name)
    const alive = hub.peek(name)
    const loading = match && broker.ready(match, alive && sinceOf(alive))
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
  const { hub, broker } = peer.context
  const match = typeof channel === 'string' ? hub.match(channel) : undefined
  const isNeeded =
    match && broker.keeps(match.plan) && (since !== undefined || !hub.peek(match.name))
  if (isNeeded && (isGranted || askOf(peer, match, 'subscribe') === 'allowed')) {
    const loading = broker.ready(match, since)
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
