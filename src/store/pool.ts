/**
 * Reader threads of one place, and one queue before them: a read goes to a thread that is free, so that none
 * waits behind a long query while another could answer it. A thread that dies is replaced, because a reader
 * has nothing of its own. Used for the file, for an embedded replica's file, and (one thread, many requests
 * at a time) for what is read over the network.
 */
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Query, ReadRows } from './messages.ts'
import type { ThreadClient } from './thread-client.ts'

/** Reads that may wait at once in one place; each holds a request open. */
const readsWaitingMax = 10_000

/** Between the death of a reader and its successor: a cause that lasts must not become a busy loop. */
const respawnMs = 500

export interface Pool {
  start(): Promise<void>
  /** Faults: `unavailable` if too many wait or nobody is there to read. */
  read(query: Query): Promise<ReadRows>
  stop(): Promise<void>
}

export interface PoolDeps {
  readonly clock: Clock
  readonly log: Log
  readonly open: (onDeath: (error: Error) => void) => Promise<ThreadClient>
}

export interface PoolSize {
  readonly threads: number
  /** Requests a thread works on at a time: 1 where it waits for the engine itself. */
  readonly atOnce: number
}

interface Waiting {
  readonly query: Query
  readonly resolve: (answer: ReadRows) => void
  readonly reject: (cause: unknown) => void
}

export function createPool({ clock, log, open }: PoolDeps, size: PoolSize): Pool {
  let threads: ThreadClient[] = []
  let waiting: Waiting[] = []
  let isStopped = false

  const add = async (): Promise<void> => {
    const thread = await open((error) => {
      log.error('store.reader_died', { error })
      replace()
    })
    if (isStopped) return await thread.stop()
    threads.push(thread)
    dispatch()
  }

  const replace = (): void => {
    threads = threads.filter(({ isDead }) => !isDead)
    // Nobody is left to answer these, and they may have waited long enough.
    if (threads.length === 0) for (const one of waiting.splice(0)) one.reject(nobody())
    clock.after(respawnMs, () => {
      if (isStopped) return
      detach(add(), (error) => {
        log.error('store.reader_not_replaced', { error })
        replace()
      })
    })
  }

  const freeThread = (): ThreadClient | undefined => {
    let best: ThreadClient | undefined
    for (const thread of threads) {
      if (thread.pending < (best?.pending ?? size.atOnce)) best = thread
    }
    return best
  }

  const send = async (thread: ThreadClient, query: Query): Promise<ReadRows> => {
    try {
      const answer = await thread.ask({ kind: 'read', query })
      if (!('rows' in answer)) throw new Fault('internal', 'a reader gave no rows')
      return answer
    } finally {
      if (waiting.length > 0) dispatch()
    }
  }

  const dispatch = (): void => {
    let sent = 0
    for (const { query, resolve, reject } of waiting) {
      const thread = freeThread()
      if (!thread) break
      sent++
      send(thread, query).then(resolve, reject)
    }
    if (sent > 0) waiting = waiting.slice(sent)
  }

  return {
    async start() {
      await Promise.all(Array.from({ length: size.threads }, add))
    },
    read(query) {
      if (threads.length === 0) return Promise.reject(nobody())
      const thread = waiting.length === 0 ? freeThread() : undefined
      if (thread) return send(thread, query)
      if (waiting.length >= readsWaitingMax) {
        const text = 'too many reads are waiting for the database'
        return Promise.reject(new Fault('unavailable', text))
      }
      return new Promise((resolve, reject) => waiting.push({ query, resolve, reject }))
    },
    async stop() {
      isStopped = true
      for (const one of waiting.splice(0)) one.reject(nobody())
      await Promise.all(threads.map((thread) => thread.stop()))
    },
  }
}

function nobody(): Fault {
  return new Fault('unavailable', 'no reader of the database is alive')
}
