/**
 * Reader threads of one place: the least busy one reads; one that dies is replaced, because a reader has
 * nothing of its own. Used for the file, for an embedded replica's file, and (one thread, many requests at
 * a time) for what is read over the network.
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

export function createPool({ clock, log, open }: PoolDeps, size: number): Pool {
  let threads: ThreadClient[] = []
  let isStopped = false

  const add = async (): Promise<void> => {
    const thread = await open((error) => {
      log.error('store.reader_died', { error })
      replace()
    })
    if (isStopped) await thread.stop()
    else threads.push(thread)
  }

  const replace = (): void => {
    threads = threads.filter(({ isDead }) => !isDead)
    clock.after(respawnMs, () => {
      if (isStopped) return
      detach(add(), (error) => {
        log.error('store.reader_not_replaced', { error })
        replace()
      })
    })
  }

  return {
    async start() {
      await Promise.all(Array.from({ length: size }, add))
    },
    async read(query) {
      const thread = leastBusy(threads)
      if (thread.pending >= readsWaitingMax / threads.length) {
        throw new Fault('unavailable', 'too many reads are waiting for the database')
      }
      const answer = await thread.ask({ kind: 'read', query })
      if (!('rows' in answer)) throw new Fault('internal', 'a reader gave no rows')
      return answer
    },
    async stop() {
      isStopped = true
      await Promise.all(threads.map((thread) => thread.stop()))
    },
  }
}

function leastBusy(threads: readonly ThreadClient[]): ThreadClient {
  let [best] = threads
  if (!best) throw new Fault('unavailable', 'no reader of the database is alive')
  for (const thread of threads) if (thread.pending < best.pending) best = thread
  return best
}
