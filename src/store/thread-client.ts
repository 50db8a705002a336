/**
 * The main thread's end of one store thread: numbered requests out, answers matched to their
 * promises. A thread that dies fails everything that waits on it, loudly.
 */
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Answer, Request } from './messages.ts'
import { faultOf } from './errors.ts'

/** `Request` without its number, which is given here. */
export type Ask = Request extends infer R ? (R extends Request ? Omit<R, 'id'> : never) : never

export interface ThreadClient {
  /** Rejects with a `Fault`. */
  ask(request: Ask): Promise<Answer>
  /** Requests sent and not answered. */
  readonly pending: number
  readonly isDead: boolean
  stop(): Promise<void>
}

interface Waiting {
  readonly resolve: (answer: Answer) => void
  readonly reject: (fault: Fault) => void
}

/** A reader that does not close within this is left to the end of the process. */
const patienceMs = 1_000

export interface ThreadClientDeps {
  readonly clock: Clock
  readonly onDeath: (error: Error) => void
  /** The writer is waited for, however long: it folds the WAL into the file. */
  readonly isPatient: boolean
}

export function startThread({ clock, onDeath, isPatient }: ThreadClientDeps): ThreadClient {
  const worker = new Worker(new URL('./thread.ts', import.meta.url))
  const waiting = new Map<number, Waiting>()
  let lastId = 0
  let closeId = 0
  let dead: Fault | undefined

  worker.onmessage = ({ data }: MessageEvent<Answer>) => {
    const waiter = waiting.get(data.id)
    waiting.delete(data.id)
    // Only now: a thread that is terminated within the native module takes the whole process with it.
    if (data.id === closeId) worker.terminate()
    if ('error' in data) waiter?.reject(faultOf(data.error))
    else waiter?.resolve(data)
  }

  const end = (fault: Fault): void => {
    dead = fault
    for (const waiter of waiting.values()) waiter.reject(fault)
    waiting.clear()
  }

  const die = (error: Error): void => {
    if (dead) return
    end(new Fault('unavailable', 'the database thread has stopped', { cause: error }))
    onDeath(error)
  }
  worker.addEventListener('error', (event) => die(new Error(event.message)))
  worker.addEventListener('close', () => die(new Error('the thread ended')))

  return {
    ask(request) {
      if (dead) return Promise.reject(dead)
      const id = ++lastId
      return new Promise((resolve, reject) => {
        // First, because it throws for what cannot be cloned: nobody would answer that one.
        worker.postMessage({ ...request, id })
        waiting.set(id, { resolve, reject })
      })
    },
    get pending() {
      return waiting.size
    },
    get isDead() {
      return dead !== undefined
    },
    async stop() {
      if (!dead) {
        const closed = this.ask({ kind: 'close' }).catch((cause: unknown) => cause)
        closeId = lastId
        // A thread in a long query answers later, and ends then, or with the process.
        worker.unref()
        const patience = Promise.withResolvers<void>()
        const cancel = clock.after(patienceMs, patience.resolve)
        await (isPatient ? closed : Promise.race([closed, patience.promise]))
        cancel()
        end(new Fault('unavailable', 'the database is closed'))
      }
    },
  }
}
