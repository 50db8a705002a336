/**
 * Durable topics are numbered by the store, whatever numbers the others. Nodes on one database tell each other
 * through Redis that there is something to read, and need not wait for their next look.
 */
import { detach } from '../lib/service.ts'
import type { Redis } from '../store/store.ts'
import type { Broker } from './broker.ts'
import type { Durable } from './durable.ts'
import type { Hub } from './hub.ts'
import type { Position } from './recovery.ts'

export interface DurableBrokerDeps {
  readonly hub: Hub
  readonly durable: Durable
  /** For all other topics. */
  readonly base: Broker
  readonly redis: Pick<Redis, 'publish' | 'subscribe'> | undefined
}

export function createDurableBroker(
  { hub, durable, base, redis }: DurableBrokerDeps,
  { namespace }: { readonly namespace: string },
): Broker {
  const channel = `${namespace}:durable`
  let end: (() => void) | undefined

  /** Being read back, each with the newest position that was told. */
  const behind = new Map<string, Position>()

  const hear = (text: string): void => {
    const [epoch = '', offset, name = ''] = text.split(' ')
    const isRead = behind.has(name)
    behind.set(name, { epoch, offset: Number(offset) })
    if (!isRead) look(name)
  }

  const look = (name: string): void => {
    const topic = hub.peek(name)
    const since = behind.get(name)
    const flight = topic?.plan.persist && since && durable.ready(topic, since)
    if (!flight) return void behind.delete(name)
    const again = flight.then(
      () => (behind.get(name) === since ? void behind.delete(name) : look(name)),
      () => void behind.delete(name),
    )
    detach(again, () => undefined)
  }

  return {
    keeps: (plan) => plan.persist !== undefined || base.keeps(plan),
    ready: (match, since) =>
      match.plan.persist ? durable.ready(match, since) : base.ready(match, since),
    publish(match, encoded, once) {
      if (!match.plan.persist) return base.publish(match, encoded, once)
      const outcome = durable.publish(match, encoded, once)
      if (!redis) return outcome
      return outcome.then((position) => {
        redis.publish(channel, `${position.epoch} ${position.offset} ${match.name}`)
        return position
      })
    },
    forget: (match) => (match.plan.persist ? durable.forget(match) : base.forget(match)),
    get alone() {
      return base.alone
    },
    async settled() {
      await durable.settled()
      await base.settled()
    },
    start() {
      durable.start()
      base.start()
      end ??= redis?.subscribe(channel, hear, () => {})
    },
    stop() {
      end?.()
      base.stop()
      durable.stop()
    },
  }
}
