/**
 * Redis, as something that may be away: it makes answers cheaper, news faster and nodes one, and nothing depends on it.
 *
 *   get set delete claim script publish ──► breaker open? ─ yes ─► refused at once
 *                                    └─ no ─► one connection, pipelined; answered within 100 ms, or all that wait no
 *                                             longer than that are given up and the breaker opens
 *   subscribe ──► a second connection (a subscribed one takes no commands); after each reconnection `onReady`
 *
 * `start` waits for nothing: a server starts without Redis and finds it later, by itself, within 5 s.
 *
 * Limits: commands and bytes on their way are bounded; what is beyond is refused. No queue for later.
 */
import { createHash } from 'node:crypto'
import type { Redis as Client } from 'ioredis'
import { Fault } from '../fault.ts'
import { createBreaker, type BreakerOptions } from '../lib/breaker.ts'
import type { Clock } from '../lib/clock.ts'
import { detach, type Service } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import { createLink, describeFailure, isReply, type RedisTarget } from './redis-link.ts'

export type { RedisTarget } from './redis-link.ts'

/** A round trip in a data centre is below 1 ms; what takes 100 is slower than the database it is to spare. */
const commandMsDefault = 100

/**
 * One time-out opens it, or errors in a row: a few may be about a few keys. An outage costs what was waiting when it
 * began one time-out, and after that nothing; a Redis that answers probes and no commands costs one per window.
 */
export const breakerOptions: BreakerOptions = { failuresMax: 5, windowMs: 1_000, isClosed: false }

/** On their way at once: what 10,000 sockets can ask in one turn. */
const pendingMax = 10_000
const pendingBytesMax = 32 * 1024 * 1024

/** A timer this late was held up by our own event loop, and the answers may lie in the socket unread. */
const lateMs = 20

/** An outage is told once, and told again if it goes on. */
const sayEveryMs = 10_000

/** A hint is a sequence number; whoever publishes more has mistaken this for something else. */
const textBytesMax = 64 * 1024

export interface RedisOptions {
  readonly target: RedisTarget
  /** A command is waited for so long; for tests. */
  readonly commandMs?: number | undefined
}

export interface RedisStats {
  readonly isUp: boolean
  /** Subscribed, to everything that was asked for. */
  readonly isListening: boolean
  readonly commands: number
  /** Of them: answered too late. */
  readonly timeouts: number
  /** Of them: answered by an error, or lost with the connection. */
  readonly failures: number
  /** Not sent: it is away, or too much is on its way. */
  readonly skipped: number
  readonly pending: number
  readonly pendingBytes: number
  /** Times the breaker opened. */
  readonly opened: number
  readonly connects: number
}

/** Lua that Redis runs as one step. */
export interface Script {
  readonly text: string
  /** Redis knows it by this after the first time. */
  readonly sha: string
}

export function scriptOf(text: string): Script {
  return { text, sha: createHash('sha1').update(text).digest('hex') }
}

export interface Redis extends Service {
  /** It answers: asking it is worth while. */
  readonly isUp: boolean
  start(): void
  /**
   * A window into all that the socket read: whoever keeps it keeps 64 KB, so copy. Faults (of all these, and
   * soon): `unavailable`, `timeout`.
   */
  get(key: string): Promise<Uint8Array | undefined>
  /** `refused`: it is full, or takes no writes now. Whatever is set has an end. */
  set(key: string, value: Uint8Array, ttlMs: number): Promise<'kept' | 'refused'>
  delete(key: string): Promise<void>
  /** True for the first who claims it, until `ms` have passed. */
  claim(key: string, ms: number): Promise<boolean>
  /**
   * The script's answer. In the order of the calls, one after the other. `ms`: it is waited for so long, even if others
   * were given up: for what nobody can do without Redis.
   */
  script(
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
    ms?: number,
  ): Promise<unknown>
  /** Tells whoever listens now; lost when nobody does, or when Redis is away. */
  publish(channel: string, text: string): void
  /**
   * `onReady` is called whenever listening begins, again after each gap: whatever was told before may have been
   * missed. Neither may throw. The result ends it.
   */
  subscribe(channel: string, onMessage: (text: string) => void, onReady: () => void): () => void
  stats(): RedisStats
  stop(): Promise<void>
}

interface Pending {
  readonly sinceMs: number
  readonly bytes: number
  readonly reject: (fault: Fault) => void
}

/** Those that wait equally long. */
interface Patience {
  readonly ms: number
  readonly pending: Set<Pending>
  isWatched: boolean
}

interface Listener {
  readonly channel: string
  readonly onMessage: (text: string) => void
  readonly onReady: () => void
}

// Made once: they are many when they come, and where they were made says nothing.
const away = new Fault('unavailable', 'redis is away')
const tooMuch = new Fault('unavailable', 'too much is on its way to redis')
const tooLate = new Fault('timeout', 'redis took too long')

export function createRedis(
  deps: { readonly clock: Clock; readonly log: Log },
  options: RedisOptions,
): Redis {
  const { clock, log } = deps
  const { target, commandMs = commandMsDefault } = options
  const server = `${target.host}:${target.port}`
  const breaker = createBreaker({ clock }, breakerOptions)
  const counts = { commands: 0, timeouts: 0, failures: 0, skipped: 0 }
  // By time-out, in the order they were sent: the first is the next to be late.
  const patient = new Map<number, Patience>()
  let pendingCount = 0
  let pendingBytes = 0
  let isStarted = false
  let isToldUp = false
  const saidAtMs = new Map<string, number>()

  const link = createLink(
    { clock },
    {
      target,
      name: 'belfry',
      isDoubted: () => breaker.isProbeDue,
      onReady: () => undefined,
      onAnswer(ms) {
        if (ms > commandMs || !breaker.isProbeDue) return
        breaker.close()
        if (isToldUp) return
        isToldUp = true
        log.info('redis.up', { server })
      },
      onLost(cause) {
        breaker.doubt()
        sayAway(cause)
      },
    },
  )

  const say = (event: string, cause: string): boolean => {
    const now = clock.tick()
    if (now - (saidAtMs.get(event) ?? -Infinity) < sayEveryMs) return false
    saidAtMs.set(event, now)
    log.warn(event, { server, cause })
    return true
  }

  const sayAway = (cause: string): void => {
    if (say('redis.away', cause)) isToldUp = false
  }

  const patienceOf = (ms: number): Patience => {
    const known = patient.get(ms)
    if (known) return known
    const made = { ms, pending: new Set<Pending>(), isWatched: false }
    patient.set(ms, made)
    return made
  }

  const run = <T>(
    bytes: number,
    send: (client: Client) => Promise<T>,
    ms = commandMs,
  ): Promise<T> => {
    const { client } = link
    const isFull = pendingCount >= pendingMax || pendingBytes + bytes > pendingBytesMax
    if (!client || !breaker.isClosed || isFull) {
      counts.skipped++
      return Promise.reject(client && breaker.isClosed ? tooMuch : away)
    }
    counts.commands++
    return new Promise<T>((resolve, reject) => {
      const patience = patienceOf(ms)
      const one: Pending = { sinceMs: clock.tick(), bytes, reject }
      patience.pending.add(one)
      pendingCount++
      pendingBytes += bytes
      if (!patience.isWatched) watch(patience, ms)
      send(client).then(
        (value) => {
          if (!forget(patience, one)) return
          breaker.succeed()
          resolve(value)
        },
        (error: unknown) => {
          if (forget(patience, one)) reject(failed(error))
        },
      )
    })
  }

  /** False: it was given up, and what comes now is too late. */
  const forget = ({ pending }: Patience, one: Pending): boolean => {
    if (!pending.delete(one)) return false
    pendingCount--
    pendingBytes -= one.bytes
    return true
  }

  /** One timer for all, whatever the load; it runs on for one time-out after the last command. */
  const watch = (patience: Patience, ms: number, isSecondLook = false): void => {
    patience.isWatched = true
    const dueMs = clock.tick() + ms
    clock.after(ms, () => {
      patience.isWatched = false
      const [oldest] = patience.pending
      if (!oldest) return
      const now = clock.tick()
      const leftMs = oldest.sinceMs + patience.ms - now
      if (leftMs > 0) watch(patience, leftMs)
      else if (!isSecondLook && now - dueMs > lateMs) {
        watch(patience, commandMs / 2, true)
      } else giveUp(patience)
    })
  }

  const giveUp = (patience: Patience): void => {
    breaker.trip()
    sayAway(`no answer within ${patience.ms} ms`)
    const late = [...patience.pending]
    counts.timeouts += late.length
    for (const one of late) {
      forget(patience, one)
      one.reject(tooLate)
    }
  }

  const failed = (error: unknown): Fault => {
    counts.failures++
    const cause = describeFailure(error, target)
    if (isReply(error) && breaker.fail()) sayAway(cause)
    return new Fault('unavailable', `redis: ${cause}`)
  }

  /** A refused write says nothing about reads, so the breaker does not hear of it. */
  const refused = (error: unknown): 'refused' => {
    if (!isReply(error)) throw error
    const cause = describeFailure(error, target)
    say('redis.refuses', cause)
    // Another one is primary now; the name leads there.
    if (cause.startsWith('READONLY')) link.reset(cause)
    return 'refused'
  }

  const listening = createListening({ clock, say }, target)

  return {
    get isUp() {
      return breaker.isClosed && link.client !== undefined
    },
    start() {
      if (isStarted) return
      isStarted = true
      link.start()
      listening.start()
    },
    get: async (key) => {
      const value = await run(key.length, (client) => client.getBuffer(key))
      return value ?? undefined
    },
    set: (key, value, ttlMs) => {
      const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
      const ms = Math.max(1, Math.ceil(ttlMs))
      return run(key.length + bytes.length, (client) =>
        client.set(key, bytes, 'PX', ms).then(() => 'kept' as const, refused),
      )
    },
    delete: (key) => run(key.length, (client) => client.del(key).then(() => undefined)),
    claim: async (key, ms) =>
      (await run(key.length, (client) => client.set(key, '', 'PX', Math.ceil(ms), 'NX'))) === 'OK',
    script(script, keys, args, ms) {
      let bytes = 0
      for (const text of keys) bytes += text.length
      for (const arg of args) bytes += typeof arg === 'string' ? arg.length : 8
      return run(bytes, (client) => evaluate(client, script, [keys.length, ...keys, ...args]), ms)
    },
    publish(channel, text) {
      if (text.length > textBytesMax) return void counts.skipped++
      // Counted where it failed; a hint is not told twice.
      detach(
        run(text.length, (client) => client.publish(channel, text)),
        () => undefined,
      )
    },
    subscribe: listening.subscribe,
    stats: () => ({
      ...counts,
      isUp: breaker.isClosed && link.client !== undefined,
      isListening: listening.isReady,
      pending: pendingCount,
      pendingBytes,
      opened: breaker.opened,
      connects: link.connects,
    }),
    async stop() {
      await Promise.all([link.stop(), listening.stop()])
    },
  }
}

/** By its hash; the text only when this Redis has not seen it yet, or has been emptied. */
async function evaluate(
  client: Client,
  { text, sha }: Script,
  args: readonly [number, ...(string | number)[]],
): Promise<unknown> {
  try {
    return await client.evalsha(sha, ...args)
  } catch (error) {
    const isUnknown =
      isReply(error) && error instanceof Error && error.message.startsWith('NOSCRIPT')
    if (!isUnknown) throw error
    return await client.eval(text, ...args)
  }
}

/** The second connection, opened for the first who subscribes. */
function createListening(
  deps: { readonly clock: Clock; readonly say: (event: string, cause: string) => unknown },
  target: RedisTarget,
) {
  const { clock, say } = deps
  const listeners = new Set<Listener>()
  let isStarted = false
  let isReady = false

  const link = createLink(
    { clock },
    {
      target,
      name: 'belfry-listening',
      onReady(client) {
        client.on('message', (channel: string, text: string) => {
          for (const one of listeners) if (one.channel === channel) one.onMessage(text)
        })
        listen(client, [...listeners])
      },
      onLost(cause) {
        isReady = false
        say('redis.deaf', cause)
      },
    },
  )

  const listen = (client: Client, wanted: readonly Listener[]): void => {
    if (wanted.length === 0) return
    const channels = [...new Set(wanted.map(({ channel }) => channel))]
    const subscribed = client.subscribe(...channels).then(() => {
      if (link.client !== client) return
      isReady = true
      for (const one of wanted) if (listeners.has(one)) one.onReady()
    })
    // Not permitted, say. News come late then, by polling; a lost connection is told by the link.
    detach(subscribed, (error) => say('redis.deaf', describeFailure(error, target)))
  }

  return {
    get isReady() {
      return isReady
    },
    start() {
      isStarted = true
      if (listeners.size > 0) link.start()
    },
    subscribe(channel: string, onMessage: (text: string) => void, onReady: () => void) {
      const one: Listener = { channel, onMessage, onReady }
      listeners.add(one)
      const { client } = link
      if (client) listen(client, [one])
      else if (isStarted) link.start()
      return () => {
        listeners.delete(one)
        if ([...listeners].some((other) => other.channel === channel)) return
        const left = link.client?.unsubscribe(channel)
        if (left) detach(left, () => undefined)
      }
    },
    stop: () => {
      isStarted = false
      return link.stop()
    },
  }
}
