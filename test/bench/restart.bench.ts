/**
 * A restart under many subscribers: SIGTERM sends them away over five seconds, each with the time to come
 * back; the new process lets them in no faster than it admits. What each missed is recovered, or it is
 * told that it cannot be; nobody has a gap without a word.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawnBelfry, type BelfryProcess } from '../process.ts'
import { handshake, masked, openBatch, ping, pong } from './peer.ts'

const subscribers = Number(process.env['SUBSCRIBERS'] ?? 15_000)
/** 15,000 deliveries each: what is left of the core is for those who come back. */
const publishEveryMs = 1_000
const bucketMs = 500
const key = 'the key of this bench'

/** `PERSIST=1`: a topic that survives the restart. */
const persist = process.env['PERSIST'] === '1' ? ', persist: true' : ''
const app = `import { app, topic } from 'belfry'
export default app({
  name: 'restart',
  topics: { bench: topic({ subscribe: 'public', history: { size: 1000, ttl: '1h' }${persist} }) },
})
`

class Subscriber {
  offset = 0
  epoch = ''
  state: 'away' | 'handshake' | 'connecting' | 'open' = 'away'
  recovered = 0
  notRecovered = 0
  gaps = 0
  isTold = false
  backAt = 0
  readonly #port: number
  #text = ''

  constructor(port: number) {
    this.#port = port
  }

  open(onOpen: () => void): Promise<unknown> {
    this.state = 'handshake'
    this.#text = ''
    return Bun.connect({
      hostname: '127.0.0.1',
      port: this.#port,
      socket: {
        open: (socket) => void socket.write(handshake(this.#port)),
        data: (socket, chunk) => {
          if (this.state === 'handshake') {
            this.state = 'connecting'
            socket.write(masked(`{"id":1,"connect":{}}\n{"id":2,"subscribe":${this.#wish()}}`))
            return
          }
          if (chunk.includes(ping)) socket.write(pong)
          this.#hear(chunk.toString('latin1'), onOpen)
        },
        close: () => this.#closed(onOpen),
        error: () => {},
      },
    })
  }

  #wish(): string {
    const since = this.epoch === '' ? {} : { recover: true, offset: this.offset, epoch: this.epoch }
    return JSON.stringify({ channel: 'bench', ...since })
  }

  /** Frames may be cut anywhere; what is looked for ends in a brace. */
  #hear(chunk: string, onOpen: () => void): void {
    const text = this.#text + chunk
    const whole = text.lastIndexOf('}') + 1
    this.#text = text.slice(whole)
    for (const [, id, epoch, offset, told] of text
      .slice(0, whole)
      .matchAll(
        /"id":(2),"subscribe":\{|"epoch":"(\w+)"|"offset":(\d+)|"reconnect_after_ms":(\d+)/g,
      )) {
      if (id) {
        const wasRecovering = this.epoch !== ''
        const isRecovered = text.includes('"recovered":true')
        if (wasRecovering && isRecovered) this.recovered += 1
        else if (wasRecovering) this.notRecovered += 1
        this.#isAnswer = !isRecovered
        this.state = 'open'
        onOpen()
      } else if (epoch) this.epoch = epoch
      else if (offset) this.#count(Number(offset))
      else if (told) {
        this.isTold = true
        this.backAt = performance.now() + Number(told)
      }
    }
  }

  #isAnswer = false

  #count(offset: number): void {
    // The position in an answer: where it begins anew, or where it recovers from.
    if (this.#isAnswer) this.offset = offset
    else if (offset === this.offset + 1) this.offset = offset
    else if (offset !== this.offset) this.gaps += 1
    this.#isAnswer = false
  }

  #closed(onOpen: () => void): void {
    if (this.state !== 'open' && this.isTold) this.backAt = performance.now() + 100
    this.state = 'away'
    const waitMs = Math.max(0, this.backAt - performance.now())
    setTimeout(() => {
      this.open(onOpen).catch(() => {
        this.backAt = performance.now() + 100
        this.#closed(onOpen)
      })
    }, waitMs)
  }
}

async function start(cwd: string, port = 0): Promise<BelfryProcess> {
  return await spawnBelfry({
    args: ['serve', 'app.ts'],
    cwd,
    env: { API_KEY: key, PORT: String(port), LOG_LEVEL: 'warn' },
  })
}

export async function run(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'belfry-restart-'))
  await Bun.write(join(folder, 'app.ts'), app)
  let server = await start(folder)
  const { port } = server
  const publish = async (): Promise<void> => {
    const body = JSON.stringify({ channel: 'bench', data: { at: Date.now() } })
    const headers = { 'x-api-key': key, 'content-type': 'application/json' }
    await fetch(`${server.url}/api/publish`, { method: 'POST', headers, body }).catch(() => {})
  }
  const all = Array.from({ length: subscribers }, () => new Subscriber(port))
  const backs: number[] = []
  let restartedAt = Infinity
  let open = 0
  const onOpen = (): void => {
    open += 1
    if (restartedAt < Infinity) backs.push(performance.now() - restartedAt)
  }
  for (let n = 0; n < subscribers; n += openBatch) {
    await Promise.all(all.slice(n, n + openBatch).map((one) => one.open(onOpen)))
    while (open < Math.min(subscribers, n + openBatch)) await Bun.sleep(5)
  }
  const timer = setInterval(() => void publish(), publishEveryMs)
  await Bun.sleep(2 * publishEveryMs)

  const drainAt = performance.now()
  server.kill('SIGTERM')
  const exitCode = await server.exited
  const drainMs = performance.now() - drainAt
  const told = all.filter(({ isTold }) => isTold).length
  restartedAt = performance.now()
  server = await start(folder, port)
  const deadline = performance.now() + 60_000
  while (all.some(({ state }) => state !== 'open') && performance.now() < deadline)
    await Bun.sleep(50)
  await Bun.sleep(2 * publishEveryMs)
  clearInterval(timer)
  await Bun.sleep(1_000)

  const sum = (of: (one: Subscriber) => number) => all.reduce((total, one) => total + of(one), 0)
  const newest = Math.max(...all.map(({ offset }) => offset))
  const perBucket = new Map<number, number>()
  for (const back of backs) {
    const bucket = Math.floor(back / bucketMs) * bucketMs
    perBucket.set(bucket, (perBucket.get(bucket) ?? 0) + 1)
  }
  console.log(`\na restart under ${subscribers} subscribers`)
  console.table({
    'exit code': exitCode,
    'drain, ms': Math.round(drainMs),
    'told when to come back': told,
    back: all.filter(({ state }) => state === 'open').length,
    recovered: sum(({ recovered }) => recovered),
    'told that they are not': sum(({ notRecovered }) => notRecovered),
    'gaps without a word': sum(({ gaps }) => gaps),
    'at the newest offset': all.filter(({ offset }) => offset === newest).length,
    'most connects in a second': mostIn(backs, 1_000),
  })
  console.log('connects after the restart')
  console.table(
    [...perBucket]
      .toSorted(([a], [b]) => a - b)
      .map(([at, count]) => ({ 'from ms': at, connects: count, '': '█'.repeat(count / 50) })),
  )
  server.kill('SIGKILL')
  await server.exited
  rmSync(folder, { recursive: true })
}

function mostIn(times: readonly number[], windowMs: number): number {
  const sorted = times.toSorted((a, b) => a - b)
  let from = 0
  let most = 0
  for (const [at, time] of sorted.entries()) {
    while ((sorted[from] ?? 0) <= time - windowMs) from += 1
    most = Math.max(most, at - from + 1)
  }
  return most
}

if (import.meta.main) {
  await run()
  process.exit()
}
