/**
 * The queue in front of the one writer, and its turns: a group of writes, or one interactive transaction.
 *
 *   write ──┐
 *   write ──┼─► queue ─► [ group: one commit ] ─► [ transaction: ≤ 2 s ] ─► [ group ] …
 *   transaction                    │
 *                                  └─► follower.accept(entries), THEN the writers are answered
 *
 * Invariants: turns do not overlap; what arrives while one runs is the next; whoever is answered finds
 * every listener told. A writer thread that dies is replaced; what it was doing is answered as failed.
 *
 * Limits: writes waiting are bounded; a transaction that takes too long is rolled back; while the database
 * cannot be reached, writes are refused at once instead of each waiting for its own time-out.
 */
import { Fault, toFault, unwrapped } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Change } from './change.ts'
import { faultOf, isUnreachable } from './errors.ts'
import type { Follower } from './follower.ts'
import { entriesAfter } from './engine.ts'
import type { LogEntry, Logged, Query, RawRow, Write, WriteOutcome } from './messages.ts'
import type { ThreadClient } from './thread-client.ts'

/**
 * Writes that may wait at once, and statements in one commit: what one group's answers take of the event loop
 * (12 ms for 128 answered requests, 30 for 512) is what everybody else waits.
 */
const writesWaitingMax = 10_000
const opsPerCommitMax = 128

/** An interactive transaction holds every other writer back for no longer. */
export const transactionMsMax = 2_000

/** After a failure to reach the database: writes are refused for so long, then one group tries again. */
const restMs = 1_000

/** Between the death of the thread and its successor. */
const respawnMs = 500

export type Execute = (query: Query) => Promise<readonly RawRow[]>

export interface Writer {
  start(): Promise<void>
  write(ops: Write): Promise<readonly Change[]>
  /** `run` gets a function that executes in the transaction. Its result is given once that is committed. */
  transaction<T>(run: (execute: Execute) => Promise<T>, options?: TransactionOptions): Promise<T>
  readonly isUp: boolean
  stats(): { readonly writes: number; readonly commits: number; readonly waiting: number }
  /** How long the one that is next has waited for its turn. */
  waitMs(): number
  stop(): Promise<void>
}

export interface TransactionOptions {
  readonly foreignKeys?: 'on' | 'off'
  /** A migration takes as long as it takes. */
  readonly isUnbounded?: boolean
}

export interface WriterDeps {
  readonly clock: Clock
  readonly log: Log
  readonly follower: Follower
  /** Opens a thread that writes; asked again when one has died. */
  readonly open: (onDeath: (error: Error) => void) => Promise<ThreadClient>
}

interface Waiting<T> {
  readonly resolve: (value: T) => void
  readonly reject: (fault: Fault) => void
}

type WriteTurn = {
  readonly kind: 'write'
  readonly ops: Write
  /** `clock.tick()`. */
  readonly since: number
} & Waiting<readonly Change[]>

type Turn =
  | WriteTurn
  | {
      readonly kind: 'transaction'
      readonly since: number
      /** Settles its caller; never rejects. */
      readonly run: () => Promise<void>
      readonly reject: (fault: Fault) => void
    }

export function createWriter({ clock, log, follower, open }: WriterDeps): Writer {
  const queue: Turn[] = []
  const counts = { writes: 0, commits: 0 }
  let thread: ThreadClient | undefined
  let isBusy = false
  let isStopped = false
  let restUntil = 0

  const respawn = (error: Error): void => {
    log.error('store.writer_died', { error })
    const again = (): void => {
      if (isStopped) return
      detach(openThread(), (cause) => {
        log.error('store.writer_not_replaced', { error: cause })
        clock.after(respawnMs, again)
      })
    }
    clock.after(respawnMs, again)
  }

  const openThread = async (): Promise<void> => {
    const opened = await open(respawn)
    if (isStopped) await opened.stop()
    else thread = opened
  }

  const living = (): ThreadClient => {
    if (thread && !thread.isDead) return thread
    throw new Fault('unavailable', 'the database cannot be written right now', {
      retryAfterMs: respawnMs,
    })
  }

  const enqueue = (turn: Turn): void => {
    queue.push(turn)
    if (!isBusy) detach(takeTurns(), (cause) => log.error('store.turn_failed', { cause }))
  }

  const refusal = (): Fault | undefined => {
    if (clock.tick() < restUntil) {
      const retryAfterMs = Math.max(1, restUntil - clock.tick())
      return new Fault('unavailable', 'the primary database cannot be reached', { retryAfterMs })
    }
    return queue.length < writesWaitingMax
      ? undefined
      : new Fault('unavailable', 'too many writes are waiting', { retryAfterMs: restMs })
  }

  const takeTurns = async (): Promise<void> => {
    isBusy = true
    try {
      for (let turn = queue.shift(); turn; turn = queue.shift()) {
        if (turn.kind === 'write') await commitGroup(groupFrom(turn))
        else await turn.run()
      }
    } finally {
      isBusy = false
    }
  }

  /** The writes at the head of the queue that fit into one commit. A large one is alone in its own. */
  const groupFrom = (first: WriteTurn): WriteTurn[] => {
    const group = [first]
    let ops = first.ops.length
    for (let next = queue[0]; next?.kind === 'write'; next = queue[0]) {
      ops += next.ops.length
      if (ops > opsPerCommitMax) break
      group.push(next)
      queue.shift()
    }
    return group
  }

  const commitGroup = async (group: readonly WriteTurn[]): Promise<void> => {
    try {
      const answer = await living().ask({
        kind: 'commit',
        writes: group.map(({ ops }) => ops),
        after: follower.applied,
      })
      counts.commits++
      if (!('outcomes' in answer)) throw new Fault('internal', 'the writer gave no answer')
      const changes = await handOut({ clock, follower, thread: living() }, answer)
      group.forEach((one, at) => settle(one, answer.outcomes[at], changes))
    } catch (thrown) {
      const fault = failed(toFault(thrown))
      for (const one of group) one.reject(fault)
    }
  }

  const settle = (
    { resolve, reject }: Waiting<readonly Change[]>,
    outcome: WriteOutcome | undefined,
    changes: readonly Change[],
  ): void => {
    if (!outcome) return reject(new Fault('internal', 'the writer gave no answer'))
    if ('error' in outcome) return reject(failed(faultOf(outcome.error)))
    counts.writes++
    const first = changes[0]?.seq ?? 0
    const at = (seq: number): number => Math.max(0, seq + 1 - first)
    resolve(changes.slice(at(outcome.from), at(outcome.upTo)))
  }

  /** Whoever waits behind an unreachable database is told now. */
  const failed = (fault: Fault): Fault => {
    if (isUnreachable(fault)) {
      restUntil = clock.tick() + restMs
      for (const turn of queue.splice(0)) turn.reject(fault)
    }
    return fault
  }

  return {
    start: openThread,
    write(ops) {
      const refused = refusal()
      if (refused) return Promise.reject(refused)
      return new Promise((resolve, reject) => {
        enqueue({ kind: 'write', ops, since: clock.tick(), resolve, reject })
      })
    },
    transaction<T>(run: (execute: Execute) => Promise<T>, options: TransactionOptions = {}) {
      const refused = refusal()
      if (refused) return Promise.reject(refused)
      return new Promise<T>((resolve, reject) => {
        const take = async (): Promise<void> => {
          try {
            const result = await interact({ clock, follower, thread: living() }, run, options)
            counts.commits++
            counts.writes++
            resolve(result)
          } catch (thrown) {
            const failure = unwrapped(thrown)
            reject(failure instanceof Fault ? failed(failure) : (failure as Error))
          }
        }
        enqueue({ kind: 'transaction', since: clock.tick(), run: take, reject })
      })
    },
    get isUp() {
      return thread !== undefined && !thread.isDead && clock.tick() >= restUntil
    },
    stats: () => ({ ...counts, waiting: queue.length }),
    waitMs: () => (queue[0] ? clock.tick() - queue[0].since : 0),
    async stop() {
      isStopped = true
      while (isBusy) await new Promise<void>((resolve) => clock.soon(resolve))
      await thread?.stop()
    },
  }
}

interface InteractDeps {
  readonly clock: Clock
  readonly follower: Follower
  readonly thread: ThreadClient
}

async function interact<T>(
  { clock, follower, thread }: InteractDeps,
  run: (execute: Execute) => Promise<T>,
  { foreignKeys = 'on', isUnbounded = false }: TransactionOptions,
): Promise<T> {
  await thread.ask({ kind: 'begin', foreignKeys, isUnbounded })
  const { applied: after } = follower
  let isOpen = true
  const execute: Execute = async (query) => {
    if (!isOpen) throw new Fault('invalid', 'the transaction is over')
    const answer = await thread.ask({ kind: 'run', query })
    return 'rows' in answer ? answer.rows : []
  }
  const expired = Promise.withResolvers<never>()
  // Whichever loses the race may still reject, with nobody left to hear it.
  expired.promise.catch(() => {})
  const expire = (): void => {
    const text = `the transaction took over ${transactionMsMax} ms and was rolled back`
    expired.reject(new Fault('timeout', text))
  }
  const cancel = isUnbounded ? () => {} : clock.after(transactionMsMax, expire)
  try {
    const running = run(execute)
    running.catch(() => {})
    const result = await Promise.race([running, expired.promise])
    isOpen = false
    const answer = await thread.ask({ kind: 'end', how: 'commit', after })
    if ('entries' in answer) await handOut({ clock, follower, thread }, answer)
    return result
  } catch (thrown) {
    isOpen = false
    // What cannot be rolled back is gone with its connection.
    await thread.ask({ kind: 'end', how: 'rollback', after }).catch(() => {})
    throw thrown
  } finally {
    cancel()
  }
}

/** Of a large commit, answer by answer, with room for others between them. */
async function handOut(
  { clock, follower, thread }: InteractDeps,
  { entries, upTo }: Logged,
): Promise<readonly Change[]> {
  const changes = [...follower.accept(entries)]
  for (let last = entries.at(-1)?.[0] ?? upTo; last < upTo;) {
    await new Promise<void>((resolve) => clock.soon(resolve))
    const answer = await thread.ask({ kind: 'read', query: entriesAfter(last) })
    const more = 'rows' in answer ? (answer.rows as unknown as LogEntry[]) : []
    const newest = more.at(-1)
    if (!newest) break
    changes.push(...follower.accept(more))
    ;[last] = newest
  }
  return changes
}
