/**
 * Hands messages to the app's `send`, behind the requests that caused them: nobody can tell by the time of an answer
 * whether there is anybody to write to. What cannot be sent is tried again, and logged in the end; a stop waits for what
 * is being sent. Jobs that outlive the process are a room of their own, one day.
 */
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { AccountMessage, AccountsOptions, SendContext } from './declare.ts'

/** Messages under way; a mail service that hangs must not fill the memory. */
const pendingMax = 1_000

/** At once: a service has limits of its own. */
const atOnceMax = 8

const tryMsMax = 10_000
const pausesMs = [1_000, 5_000] as const

export interface Mailer {
  /** `prepare` makes the message; undefined: there is nobody to send one to. Faults: `unavailable`, if too many wait. */
  later(prepare: () => Promise<AccountMessage | undefined>): void
  /** Waits for what is under way, and tries nothing again. */
  stop(): Promise<void>
}

export interface MailerDeps {
  readonly clock: Clock
  readonly log: Log
  readonly env: SendContext['env']
}

export function createMailer(
  { clock, log, env }: MailerDeps,
  send: NonNullable<AccountsOptions['send']>,
): Mailer {
  const pending = new Set<Promise<void>>()
  const line: (() => void)[] = []
  const stopped = Promise.withResolvers<void>()
  let running = 0
  let isStopped = false

  const tryOnce = async (message: AccountMessage): Promise<void> => {
    const abort = new AbortController()
    const { signal } = abort
    const expired = Promise.withResolvers<never>()
    // Whichever loses the race may still reject, with nobody left to hear it.
    expired.promise.catch(() => {})
    const cancel = clock.after(tryMsMax, () => {
      const fault = new Fault('timeout', `sending took over ${tryMsMax} ms`)
      abort.abort(fault)
      expired.reject(fault)
    })
    const context = {
      env,
      log,
      fetch: (url: string | URL, init?: RequestInit) => fetch(url, { ...init, signal }),
    }
    const sending = (async () => void (await send(message, context)))()
    sending.catch(() => {})
    try {
      await Promise.race([sending, expired.promise])
    } finally {
      cancel()
    }
  }

  const deliver = async (message: AccountMessage): Promise<void> => {
    const { kind, user, token } = message
    for (const pauseMs of [...pausesMs, undefined]) {
      try {
        if (isStopped) throw new Fault('unavailable', 'the server is stopping')
        return await tryOnce(message)
      } catch (thrown) {
        const isLast = pauseMs === undefined || isStopped
        const text = thrown instanceof Error ? thrown.message : String(thrown)
        // Whoever reads the log must not be able to use it.
        const reason = token === undefined ? text : text.replaceAll(token, '…')
        log.warn(isLast ? 'accounts.not_sent' : 'accounts.send_failed', {
          ...{ kind, user: user.id, reason },
        })
        if (isLast) return
        await Promise.race([
          new Promise<void>((resolve) => void clock.after(pauseMs, resolve)),
          stopped.promise,
        ])
      }
    }
  }

  const inLine = async (work: () => Promise<void>): Promise<void> => {
    if (running >= atOnceMax) await new Promise<void>((resolve) => void line.push(resolve))
    else running++
    try {
      await work()
    } finally {
      const next = line.shift()
      if (next) next()
      else running--
    }
  }

  return {
    later(prepare) {
      if (pending.size >= pendingMax || isStopped) {
        throw new Fault('unavailable', 'too many messages are being sent', { retryAfterMs: 5_000 })
      }
      const work = inLine(async () => {
        const message = await prepare()
        if (message) await deliver(message)
      })
      const done = work.catch((error: unknown) => log.warn('accounts.not_prepared', { error }))
      pending.add(done)
      detach(
        done.finally(() => pending.delete(done)),
        () => {},
      )
    },
    async stop() {
      isStopped = true
      stopped.resolve()
      await Promise.all(pending)
    },
  }
}
