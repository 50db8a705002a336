/**
 * A link that can be made bad: a TCP proxy on loopback, between belfry and a sqld.
 *
 *   open        bytes pass, each way `delayMs` later
 *   cut         connections are reset, and new ones are refused
 *   half-open   connections are taken and kept, and what is sent vanishes: the worst kind of broken
 *
 * What waits to be passed on is bounded: above `waitingBytesMax` a connection's sender is paused.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'

export type LinkState = 'open' | 'cut' | 'half-open'

export interface Proxy extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly state: LinkState
  /** Connections that are open now, counted at the near end. */
  readonly connections: number
  /** Resets what is open, refuses what comes. */
  cut(): void
  /** Swallows from now on, both ways, old connections and new. What was swallowed never arrives. */
  halfOpen(): void
  /** Passes again. Connections that have lost bytes are reset: TCP never loses the middle of a stream. */
  resume(): void
  /** From now on; what is on its way arrives when it was to. */
  setDelay(delayMs: number): void
}

export interface ProxyOptions {
  /** Where the other end listens, on loopback. */
  readonly target: number
  /** Each way: 100 is a link of 200 ms there and back. */
  readonly delayMs?: number
}

const connectionsMax = 256
const waitingBytesMax = 4 * 1024 * 1024

interface Pair {
  readonly near: Socket
  readonly far: Socket
  isHoled: boolean
}

export async function startProxy({ target, delayMs = 0 }: ProxyOptions): Promise<Proxy> {
  const pairs = new Set<Pair>()
  let state: LinkState = 'open'
  let delay = delayMs

  const drop = (pair: Pair): void => {
    if (!pairs.delete(pair)) return
    pair.near.resetAndDestroy()
    pair.far.resetAndDestroy()
  }

  /** Everything a socket says goes this way, and in this order: bytes, the end, the failure. */
  const pass = (pair: Pair, from: Socket, to: Socket): void => {
    let waitingBytes = 0
    let lastAt = 0
    const later = (run: () => void): void => {
      // A shorter delay does not overtake what was sent under a longer one.
      lastAt = Math.max(lastAt, performance.now() + delay)
      const waitMs = lastAt - performance.now()
      if (waitMs <= 0) run()
      // A timer leaves out fractions, and would be early.
      else setTimeout(run, Math.ceil(waitMs))
    }
    from.on('data', (chunk) => {
      if (state === 'half-open' || pair.isHoled) {
        pair.isHoled = true
        return
      }
      waitingBytes += chunk.length
      if (waitingBytes > waitingBytesMax) from.pause()
      later(() => {
        if (to.writable && !pair.isHoled) to.write(chunk)
        waitingBytes -= chunk.length
        if (from.isPaused() && waitingBytes <= waitingBytesMax / 2) from.resume()
      })
    })
    from.on('end', () => {
      if (state !== 'half-open' && !pair.isHoled) later(() => to.end())
    })
    from.on('error', () => drop(pair))
    from.on('close', (hadError) => {
      if (!hadError && from.readableEnded && !to.destroyed) return
      drop(pair)
    })
  }

  const server = createServer({ allowHalfOpen: true }, (near) => {
    if (state === 'cut' || pairs.size >= connectionsMax) {
      near.on('error', () => undefined)
      near.resetAndDestroy()
      return
    }
    const far = connect({ port: target, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    near.setNoDelay(true)
    const pair = { near, far, isHoled: false }
    pairs.add(pair)
    pass(pair, near, far)
    pass(pair, far, near)
  })
  const port = await listen(server, 0)
  let isListening = true

  const enter = (next: LinkState): void => {
    state = next
    if (next === 'cut') for (const pair of pairs) drop(pair)
    if (next === 'open') for (const pair of pairs) if (pair.isHoled) drop(pair)
    // A closed listener refuses; one that is open and resets would have answered the handshake.
    if (next === 'cut' && isListening) server.close()
    else if (next !== 'cut' && !isListening) server.listen(port, '127.0.0.1')
    isListening = next !== 'cut'
  }

  return {
    url: `http://127.0.0.1:${port}`,
    port,
    get state() {
      return state
    },
    get connections() {
      return pairs.size
    },
    cut: () => enter('cut'),
    halfOpen: () => enter('half-open'),
    resume: () => enter('open'),
    setDelay: (nextMs) => void (delay = nextMs),
    async [Symbol.asyncDispose]() {
      enter('cut')
      await Promise.resolve()
    },
  }
}

function listen(server: Server, port: number): Promise<number> {
  return new Promise((done, fail) => {
    server.once('error', fail)
    server.listen(port, '127.0.0.1', () => {
      const address = server.address()
      server.off('error', fail)
      done(typeof address === 'object' && address ? address.port : port)
    })
  })
}
