/** Durable topics that nobody publishes to are pruned by age: so many each time, of all that are kept. */
import { toFault } from '../fault.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Publications } from '../store/store.ts'
import type { Hub } from './hub.ts'

const tidyMs = 10_000
const tidyTopics = 500

export interface TidyDeps {
  readonly hub: Pick<Hub, 'match'>
  readonly clock: Clock
  readonly log: Pick<Log, 'warn'>
  readonly store: Publications
}

export function startTidying({ hub, clock, log, store }: TidyDeps): Cancel {
  let cursor = ''

  const tidy = async (): Promise<void> => {
    const found = await store.names(cursor, tidyTopics)
    cursor = found.length < tidyTopics ? '' : (found.at(-1)?.topic ?? '')
    const now = clock.now()
    const old = found.flatMap(({ topic, oldestMs = Infinity }) => {
      const persist = hub.match(topic)?.plan.persist
      if (!persist || oldestMs >= now - persist.ttlMs) return []
      return [{ topic, upTo: 0, beforeMs: now - persist.ttlMs }]
    })
    await store.prune(old)
  }

  return clock.every(tidyMs, () =>
    detach(tidy(), (error) => log.warn('realtime.not-tidied', { error: toFault(error) })),
  )
}
