/**
 * Follows one stream that never ends, server-sent events or a WebSocket: connected again when it ends, subscribed again
 * when it is connected, thrown away when it is silent.
 *
 *   start ─► connect ─► subscribe ─► catch up ─► messages, gathered while the last ones are being taken ─► taker
 *              ▲                        │ ended, silent, too large, refused
 *              └── decorrelated jitter ─┘
 *
 * Invariants: the taker gets messages in order, and never while it still takes others; when it is slower than the
 * stream, the stream is not read (SSE) or paused (WebSocket), so that what waits is bounded; a taker that fails loses
 * what it was given, and is told of what follows. What is caught up with was asked for once the connection was there, and
 * is taken before what it says: so whatever was said since the last one is in it or comes after it.
 *
 * Limits: whoever starts it sees to it that one node does. Between two connections messages are missed, unless there
 * is something to catch up by, or the server replays by `Last-Event-ID` (to the same node). Of a WebSocket, Bun 1.4.5 holds a message of up to 128 MiB before it can be
 * found too large.
 */
import { Fault } from '../fault.ts'
import { createBackoff } from '../lib/backoff.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach, type Service } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { StreamMessage } from './declare.ts'
import { createSseParser } from './sse.ts'

export interface StreamOptions {
  /** For log lines. */
  readonly name: string
  readonly kind: 'sse' | 'websocket'
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** Sent at the beginning of each connection of a WebSocket. */
  readonly subscribe: () => readonly unknown[]
  /** Without a byte for so long (of a WebSocket: without an answer to a ping), it is connected anew. */
  readonly silenceMs: number
  /** Of one message, in characters. */
  readonly lengthMax: number
  /**
   * For what was said before this connection, of which the signal tells the end. Nothing that it says is taken meanwhile. If it
   * fails it is done again, after a while, and the rest goes on. Absent: what was said is missed.
   */
  readonly catchUp?: ((signal: AbortSignal) => Promise<void>) | undefined
  readonly take: (messages: readonly StreamMessage[], send: Send) => Promise<void>
  /** It is connected and says something, or not any more. */
  readonly onState: (state: { readonly isLive: boolean; readonly cause?: unknown }) => void
}

/** To the other end of a WebSocket: text as it is, anything else as JSON. */
export type Send = (message: unknown) => void

export interface Follower extends Service {
  /** Begins, if it has not; may be begun again after a stop. */
  start(): void
  /** Ends, once what is being taken is. */
  stop(): Promise<void>
  stats(): FollowerStats
}

export interface FollowerStats {
  readonly isLive: boolean
  readonly connects: number
  /** Connections that ended, or could not be made. */
  readonly failures: number
  readonly messages: number
  /** Messages that their taker failed on. */
  readonly lost: number
}

export interface FollowerDeps {
  readonly clock: Clock
  readonly log: Log
  /** 0 to 1; tests pin it. */
  readonly random?: (() => number) | undefined
}

const retry = { leastMs: 250, mostMs: 30_000 }

/** A server that wants to be left alone for longer is asked all the same. */
const retryToldMsMax = 60_000

/** Waiting to be taken: beyond, the stream is not read. */
const waitingMax = 1_000
const waitingLengthMax = 4 * 1024 * 1024

/** So many failures in a row are one line of the log. */
const failuresPerLogLine = 30

/** What a connection hears. */
interface Ear {
  readonly signal: AbortSignal
  /** From now on nothing is missed. */
  opened(): void
  /** Something came: it is not silent. */
  heard(): void
  /** False: read no more until `hasRoom`. */
  accept(message: StreamMessage): boolean
  hasRoom(): Promise<void>
  /** The next connection no sooner. */
  retryIn(ms: number): void
}

export function createFollower(deps: FollowerDeps, options: StreamOptions): Follower {
  const { clock, log, random } = deps
  const { name, silenceMs } = options
  const counts = { connects: 0, failures: 0, messages: 0, lost: 0 }
  const backoff = createBackoff({ ...retry, random })
  const patience = createBackoff({ ...retry, random })
  let abort: AbortController | undefined
  let running: Promise<void> | undefined
  let isLive = false
  let failuresInARow = 0
  let lastId = ''
  let send: Send = () => {}

  let waiting: StreamMessage[] = []
  let waitingLength = 0
  let taking: Promise<void> | undefined
  /** The connection that is to catch up. */
  let behind: AbortSignal | undefined

  const takeAll = async (): Promise<void> => {
    while (waiting.length > 0 || behind) {
      if (behind) {
        const signal = behind
        behind = undefined
        await catchUp(signal)
        continue
      }
      const messages = waiting
      waiting = []
      waitingLength = 0
      try {
        await options.take(messages, send)
      } catch (error) {
        counts.lost += messages.length
        log.warn('stream.not_taken', { stream: name, messages: messages.length, error })
      }
    }
    taking = undefined
  }

  const begin = (signal: AbortSignal): void => {
    if (!options.catchUp || signal.aborted) return
    behind = signal
    taking ??= takeAll()
  }

  const catchUp = async (signal: AbortSignal): Promise<void> => {
    try {
      await options.catchUp?.(signal)
      patience.reset()
    } catch (error) {
      if (signal.aborted) return
      log.warn('stream.not_caught_up', { stream: name, error })
      signal.addEventListener(
        'abort',
        clock.after(patience.next(), () => begin(signal)),
      )
    }
  }

  const accept = (message: StreamMessage): boolean => {
    counts.messages++
    backoff.reset()
    waiting.push(message)
    waitingLength += message.data.length
    taking ??= takeAll()
    return waiting.length < waitingMax && waitingLength < waitingLengthMax
  }

  const live = (): void => {
    if (isLive) return
    isLive = true
    if (failuresInARow > 0) log.info('stream.back', { stream: name })
    failuresInARow = 0
    options.onState({ isLive })
  }

  const lost = (cause: unknown): void => {
    counts.failures++
    if (failuresInARow++ % failuresPerLogLine === 0) {
      log.warn('stream.lost', { stream: name, failures: failuresInARow, error: cause })
    }
    isLive = false
    options.onState({ isLive, cause })
  }

  /** One connection, from its beginning to its end, which is always a failure. Resolves to how long to wait at least. */
  const connect = async (stopped: AbortSignal): Promise<number> => {
    const own = new AbortController()
    const onStop = (): void => own.abort(stopped.reason)
    stopped.addEventListener('abort', onStop)
    let heardAt = clock.tick()
    let toldMs = 0
    /** Not read on purpose. */
    let isFull = false
    let cancel: Cancel = () => {}
    const watch = (): void => {
      const leftMs = isFull ? silenceMs : silenceMs - (clock.tick() - heardAt)
      if (leftMs > 0) cancel = clock.after(leftMs, watch)
      else own.abort(new Fault('timeout', `nothing was heard for ${silenceMs} ms`))
    }
    watch()
    let isOpen = false
    const opened = (): void => {
      if (isOpen) return
      isOpen = true
      begin(own.signal)
    }
    const ear: Ear = {
      signal: own.signal,
      opened,
      heard() {
        heardAt = clock.tick()
        live()
        opened()
      },
      accept,
      async hasRoom() {
        isFull = true
        await taking
        isFull = false
        heardAt = clock.tick()
      },
      retryIn: (ms) => void (toldMs = Math.min(ms, retryToldMsMax)),
    }
    try {
      counts.connects++
      await (options.kind === 'sse' ? followEvents(ear) : followSocket(ear))
    } catch (error) {
      if (!stopped.aborted) lost(own.signal.aborted ? own.signal.reason : error)
    } finally {
      cancel()
      stopped.removeEventListener('abort', onStop)
      own.abort(new Fault('unavailable', 'the connection is over'))
    }
    return toldMs
  }

  const followEvents = async (ear: Ear): Promise<never> => {
    const headers = new Headers(options.headers)
    headers.set('accept', 'text/event-stream')
    headers.set('cache-control', 'no-store')
    if (lastId !== '') headers.set('last-event-id', lastId)
    const { host } = new URL(options.url)
    const response = await until(ear.signal, request(options.url, headers, ear.signal))
    const type = response.headers.get('content-type') ?? ''
    const after = Number(response.headers.get('retry-after') ?? Number.NaN)
    if (after > 0) ear.retryIn(after * 1_000)
    if (response.status !== 200 || !type.startsWith('text/event-stream') || !response.body) {
      throw new Fault('unavailable', `${host} answered ${response.status} ${type}`)
    }
    ear.opened()
    const parser = createSseParser(options.lengthMax, lastId)
    const reader = response.body.getReader()
    for (;;) {
      const { done, value } = await until(ear.signal, reader.read())
      if (done) throw new Fault('unavailable', `${host} ended the stream`)
      const events = parser.push(value)
      if (!events) throw new Fault('too_large', `${host} sent more than ${options.lengthMax}`)
      ear.heard()
      lastId = parser.lastId
      if (parser.retryMs !== undefined) ear.retryIn(parser.retryMs)
      let isRoom = true
      for (const event of events) isRoom = ear.accept(event)
      if (!isRoom) await until(ear.signal, ear.hasRoom())
    }
  }

  const followSocket = async (ear: Ear): Promise<never> => {
    const { url, headers, lengthMax } = options
    const { host } = new URL(url)
    const socket = new WebSocket(url, { headers })
    socket.binaryType = 'arraybuffer'
    const end = Promise.withResolvers<never>()
    socket.addEventListener('open', () => {
      for (const message of options.subscribe()) send(message)
      // Once it is answered, what was sent before it has arrived.
      socket.ping()
    })
    socket.addEventListener('message', ({ data }: MessageEvent<string | ArrayBuffer>) => {
      const whole = typeof data === 'string' ? data : new Uint8Array(data)
      if (whole.length > lengthMax) {
        return end.reject(new Fault('too_large', `${host} sent more than ${lengthMax}`))
      }
      ear.heard()
      if (ear.accept({ data: whole, event: 'message', id: '' })) return
      socket.pause()
      detach(
        ear.hasRoom().then(() => socket.resume()),
        (error) => end.reject(error as Error),
      )
    })
    for (const name of ['ping', 'pong'] as const) socket.addEventListener(name, ear.heard)
    // Its own message has the URL in it, which may hold a key.
    socket.addEventListener('error', () => {})
    socket.addEventListener('close', ({ code }) =>
      end.reject(new Fault('unavailable', `${host} closed the connection (${code})`)),
    )
    const isReady = (): boolean => socket.readyState === WebSocket.OPEN
    const ping = clock.every(silenceMs / 2, () => void (isReady() && socket.ping()))
    send = (message) => {
      if (isReady()) socket.send(typeof message === 'string' ? message : JSON.stringify(message))
    }
    try {
      return await until(ear.signal, end.promise)
    } finally {
      ping()
      send = () => {}
      socket.terminate()
    }
  }

  const run = async (stopped: AbortSignal, before: Promise<void> | undefined): Promise<void> => {
    await before
    let wake = (): void => {}
    stopped.addEventListener('abort', () => wake())
    while (!stopped.aborted) {
      const toldMs = await connect(stopped)
      if (stopped.aborted) break
      const over = Promise.withResolvers<void>()
      wake = over.resolve
      const cancel = clock.after(Math.max(toldMs, backoff.next()), over.resolve)
      await over.promise
      cancel()
    }
    await taking
  }

  return {
    start() {
      if (abort) return
      abort = new AbortController()
      running = run(abort.signal, running)
      detach(running, (error) => log.error('stream.died', { stream: name, error }))
    },
    async stop() {
      abort?.abort(new Fault('unavailable', 'it is not followed any more'))
      abort = undefined
      isLive = false
      await running
    },
    stats: () => ({ isLive, ...counts }),
  }
}

/** Bun's failures name the URL, which may hold a key. */
async function request(url: string, headers: Headers, signal: AbortSignal): Promise<Response> {
  try {
    // Who is silent for how long is our affair; Bun's own patience ends after 5 minutes.
    return await fetch(url, { headers, signal, redirect: 'manual', timeout: false })
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error'
    throw new Fault('unavailable', `${new URL(url).host} cannot be reached: ${code}`)
  }
}

/** What it comes to, unless the signal is first. */
async function until<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  const aborted = Promise.withResolvers<never>()
  const onAbort = (): void => aborted.reject(signal.reason as Error)
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort)
  // Whichever loses may still reject, with nobody left to hear it.
  promise.catch(() => {})
  aborted.promise.catch(() => {})
  try {
    return await Promise.race([promise, aborted.promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
