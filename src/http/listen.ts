/** `Bun.serve`, and its end. */
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Connection } from '../realtime/realtime.ts'
import { websocket } from './socket.ts'

/** Above our own limit of 1 MiB, which answers with a problem; Bun's answer has no body. */
const requestBytesMax = 32 * 1024 * 1024

/** A drain waits so long for requests that are under way. */
const finishMs = 5_000

/** Seconds a quiet HTTP connection stays open. SSE streams lift it for themselves. */
const idleTimeoutS = 60

export interface ListenOptions {
  readonly host: string
  readonly port: number
}

/** Faults: `unavailable`. */
export function listen(
  { host, port }: ListenOptions,
  fetch: (request: Request) => unknown,
): Bun.Server<Connection> {
  try {
    return Bun.serve({
      hostname: host,
      port,
      // Said aloud: left out, Bun 1.4.5 lets a second process bind the same port of 0.0.0.0.
      reusePort: false,
      idleTimeout: idleTimeoutS,
      maxRequestBodySize: requestBytesMax,
      // Else Bun adds its hot-reload script to the page, and stack traces to answers.
      development: false,
      fetch: fetch as (request: Request) => Response,
      websocket,
    })
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error'
    const reason = code === 'EADDRINUSE' ? 'it is in use' : code
    throw new Fault('unavailable', `cannot listen on ${host} port ${port}: ${reason}`, {
      hint: 'choose another with PORT=…, or stop what listens there',
      cause,
    })
  }
}

/** What was accepted is answered: a write that is committed and then cut off looks like one that failed. */
export async function finishRequests(
  server: Pick<Bun.Server<unknown>, 'stop' | 'pendingRequests'>,
  clock: Clock,
): Promise<void> {
  // Closes the listener; its promise waits for idle keep-alive connections too, so nobody awaits it.
  void server.stop(false)
  const deadline = clock.tick() + finishMs
  while (server.pendingRequests > 0 && clock.tick() < deadline) {
    await new Promise<void>((resolve) => void clock.after(5, resolve))
  }
  await server.stop(true)
}
