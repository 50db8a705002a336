/** The stream of a feed: where it is in this environment, and what its messages come to. */
import { Fault } from '../fault.ts'
import type { Follower } from '../upstream/upstream.ts'
import type { StreamMessage } from '../upstream/declare.ts'
import type { FeedPlan, FeedsDeps } from './feeds.ts'

/** Messages whose rows are one transaction. */
const messagesPerWrite = 100

export interface StreamTaker {
  /** What `parse` made of some messages, in order. */
  take(answers: readonly unknown[]): Promise<void>
  /** At the beginning of a connection, of which the signal tells the end. */
  catchUp(signal: AbortSignal): Promise<void>
  onLost(): void
}

/** Undefined: the feed has none. Faults: `invalid` for a URL that is none in this environment. */
export function streamOf(
  { follow, env, log }: Pick<FeedsDeps, 'follow' | 'env' | 'log'>,
  { name, stream }: FeedPlan,
  { take, catchUp, onLost }: StreamTaker,
): Follower | undefined {
  if (!stream || !follow) return undefined
  const { url, parse, headers, subscribe, silenceMs, lengthMax } = stream
  const where = typeof url === 'function' ? url(env) : url
  const kind = streamKindOf(where)
  if (!kind) {
    const message = 'gave no URL like https://… (server-sent events) or wss://… (a WebSocket)'
    throw new Fault('invalid', 'the app file has one problem', {
      fields: [{ field: `feeds.${name}.stream.url`, message }],
    })
  }

  const answersOf = (messages: readonly StreamMessage[], send: (message: unknown) => void) =>
    messages.flatMap((message) => {
      try {
        const answer = parse(message, send)
        return answer === null || answer === undefined ? [] : [answer]
      } catch (error) {
        // One that nobody understands is no reason to lose the others.
        log.warn('feed.not_understood', { feed: name, error })
        return []
      }
    })

  return follow({
    ...{ name, kind, url: where, silenceMs, lengthMax },
    headers: headers?.(env) ?? {},
    subscribe: () => subscribe?.(env) ?? [],
    catchUp: stream.isCatchingUp ? catchUp : undefined,
    async take(messages, send) {
      for (let at = 0; at < messages.length; at += messagesPerWrite) {
        const answers = answersOf(messages.slice(at, at + messagesPerWrite), send)
        if (answers.length > 0) await take(answers)
      }
    },
    onState: ({ isLive }) => void (isLive || onLost()),
  })
}

export function streamKindOf(url: unknown): 'sse' | 'websocket' | undefined {
  const parsed = typeof url === 'string' ? URL.parse(url) : null
  if (/^wss?:$/.test(parsed?.protocol ?? '')) return 'websocket'
  return /^https?:$/.test(parsed?.protocol ?? '') ? 'sse' : undefined
}
