/** One topic: what is heard, what is missing, who is there. */
import type {
  HistoryResult,
  PresenceResult,
  Subscription as Stock,
  SubscribedContext,
} from 'centrifuge'
import type { Link } from './link.ts'
import { refused } from './problem.ts'
import { Tracker, type Gap, type Position, type Subscribed } from './position.ts'

export interface Message {
  /** Its number in the topic. */
  readonly offset: number | undefined
}

export interface Member {
  readonly client: string
  readonly user: string
}

export interface Handlers<Data> {
  readonly message?: (data: Data, message: Message) => void
  /** Some publications will never come: read again what depends on them. Told before what follows them. */
  readonly gap?: (gap: Gap) => void
  /** It listens, first or again. Nothing was missed unless `gap` was told. */
  readonly subscribed?: () => void
  /** With `attendance`: who comes and goes. */
  readonly join?: (member: Member) => void
  readonly leave?: (member: Member) => void
  /** Over: refused, or ended by the server. */
  readonly ended?: (why: { readonly code: number; readonly reason: string }) => void
}

export interface Subscription<Data, Published = unknown> {
  readonly topic: string
  /** The last publication that was heard; to be given as `since` by whoever goes on later. */
  readonly position: Position | undefined
  /** As a client, where the topic's rule lets in. Problems: `refused`. */
  publish(data: Published): Promise<void>
  /** The newest first with `reverse`. */
  history(
    options: HistoryOptions,
  ): Promise<readonly { readonly data: Data; readonly offset: number }[]>
  presence(): Promise<readonly Member[]>
  /** Connections, and users among them. */
  presenceStats(): Promise<{ readonly clients: number; readonly users: number }>
  close(): void
}

export interface HistoryOptions {
  readonly limit: number
  readonly since?: Position
  readonly reverse?: boolean
}

interface Deps {
  readonly link: Link
  readonly subscription: Stock
  readonly guard: (run: () => void) => void
  readonly note: (error: unknown) => void
}

export function createSubscription<Data>(
  { link, subscription, guard, note }: Deps,
  handlers: Handlers<Data>,
  since: Position | undefined,
): Subscription<Data> {
  const tracker = new Tracker(since)
  const tellGap = (gap: Gap | undefined): void => {
    if (gap) guard(() => handlers.gap?.(gap))
  }
  subscription.on('subscribed', (context) => {
    tellGap(tracker.subscribed(replyOf(context)))
    guard(() => handlers.subscribed?.())
  })
  subscription.on('publication', ({ data, offset, tags }) => {
    const after = tags?.['after']
    const heard = tracker.heard(offset, after === undefined ? undefined : Number(after))
    if (heard === 'again') return
    if (heard !== 'next') tellGap(heard)
    guard(() => handlers.message?.(data as Data, { offset }))
  })
  subscription.on('join', ({ info }) => guard(() => handlers.join?.(info)))
  subscription.on('leave', ({ info }) => guard(() => handlers.leave?.(info)))
  subscription.on('unsubscribed', (why) => guard(() => handlers.ended?.(why)))
  subscription.on('error', ({ error }) => note(error))
  subscription.subscribe()

  return {
    topic: subscription.channel,
    get position() {
      return tracker.position
    },
    async publish(data) {
      await refused(subscription.publish(data))
    },
    async history({ limit, since: from, reverse = false }) {
      const given = { limit, reverse, ...(from ? { since: from } : {}) }
      const { publications }: HistoryResult = await refused(subscription.history(given))
      return publications.map(({ data, offset = 0 }) => ({ data: data as Data, offset }))
    },
    async presence() {
      const { clients }: PresenceResult = await refused(subscription.presence())
      return Object.values(clients)
    },
    async presenceStats() {
      const { numClients, numUsers } = await refused(subscription.presenceStats())
      return { clients: numClients, users: numUsers }
    },
    close() {
      subscription.unsubscribe()
      link.removeSubscription(subscription)
    },
  }
}

function replyOf(context: SubscribedContext): Subscribed {
  const { recovered, streamPosition, hasRecoveredPublications } = context
  const position = streamPosition && {
    epoch: streamPosition.epoch,
    offset: Number(streamPosition.offset),
  }
  return { recovered, position, hasLatest: !recovered && hasRecoveredPublications }
}
