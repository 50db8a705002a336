/** The child of `peer.ts`: one server by name, told over IPC what to publish. */
import { createEventsDoor } from '../../src/http/events.ts'
import { createSocketDoor, websocket } from '../../src/http/socket.ts'
import type { Visit } from '../../src/http/visit.ts'
import { createLimits } from '../../src/limits/limits.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createLog } from '../../src/observe/log.ts'
import { compilePattern, createRealtime, type Connection } from '../../src/realtime/realtime.ts'
import type { Order, PeerName, Report } from './peer.ts'
import { pushText, sample, topicName } from './wire.ts'

interface Served {
  readonly port: number
  publish(): void
  subscribers(): number
}

const served = process.argv[2] === ('raw' satisfies PeerName) ? serveRaw() : serveBelfry()
const report = (): Report => ({
  port: served.port,
  subscribers: served.subscribers(),
  blockMs,
})

/**
 * CPU time between two turns of the loop. Not the time that passed: on a busy machine that is the
 * scheduler's.
 */
let blockMs = 0
let watcher: ReturnType<typeof setInterval> | undefined
function watch(): void {
  const cpuMs = (): number => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1_000
  }
  let at = cpuMs()
  clearInterval(watcher)
  watcher = setInterval(() => {
    const now = cpuMs()
    blockMs = Math.max(blockMs, now - at)
    at = now
  }, 1)
}

process.on('message', (order: Order) => {
  if (order.kind === 'publish') for (let n = 0; n < order.count; n += 1) served.publish()
  else if (order.kind === 'report') Bun.gc(true)
  process.send?.(report())
  if (order.kind === 'watch') {
    blockMs = 0
    watch()
  }
})
process.on('disconnect', () => process.exit())
process.send?.(report())

/** The least that fans out: the same frames, native publish, nothing else. */
function serveRaw(): Served {
  let open = 0
  let offset = 0
  const server = Bun.serve<{ id: number }>({
    hostname: '127.0.0.1',
    port: 0,
    fetch(request, self) {
      if (self.upgrade(request, { data: { id: 0 } })) return undefined
      return new Response('not a WebSocket', { status: 400 })
    },
    websocket: {
      maxPayloadLength: 64 * 1024,
      backpressureLimit: 256 * 1024,
      closeOnBackpressureLimit: true,
      sendPings: false,
      // Seconds: the peers of a run take turns.
      idleTimeout: 960,
      open(ws) {
        open += 1
        ws.subscribe(topicName)
        // So that the load knows that the handshake is over, as Belfry's replies tell it.
        ws.send('{}')
      },
      message() {},
      close() {
        open -= 1
      },
    },
  })
  return {
    port: server.port ?? 0,
    subscribers: () => open,
    publish() {
      offset += 1
      server.publish(topicName, pushText(offset))
    },
  }
}

function serveBelfry(): Served {
  const realtime = createRealtime({
    topics: [
      {
        pattern: topicName,
        matcher: compilePattern(topicName),
        subscribe: 'public',
        historySize: 100,
        historyTtlMs: 60_000,
        last: false,
      },
    ],
    identify: () => ({ ok: false, reason: 'invalid', message: 'no tokens here' }),
    clock: systemClock,
    log: createLog({ level: 'error', now: Date.now }),
    limits: (policy) => createLimits({ clock: systemClock }, policy),
  })
  const visit: Visit = {
    id: '',
    startedAt: 0,
    identity: { kind: 'anonymous', user: null },
  }
  const addressOf = (request: Request) => server.requestIP(request)?.address ?? ''
  const socket = createSocketDoor(
    realtime,
    () => server,
    addressOf,
    () => true,
  )
  const events = createEventsDoor({
    realtime,
    tick: systemClock.tick,
    addressOf,
    keepOpen: (request) => server.timeout(request, 0),
  })
  const server: Bun.Server<Connection> = Bun.serve<Connection>({
    hostname: '127.0.0.1',
    port: 0,
    websocket,
    fetch: (request) =>
      request.url.includes('/api/stream') ? events(request, visit) : socket(request, visit),
  })
  realtime.start()
  return {
    port: server.port ?? 0,
    subscribers: () => realtime.stats().subscriptions,
    publish: () => void realtime.publish(topicName, sample),
  }
}
