/**
 * A price that one server asks upstream for each second and tells 10,000 subscribers when it has changed; against the
 * same 10,000 asking an nginx that keeps it for a second, each once a second.
 *
 * How long from a change at upstream to its subscribers, which is mostly the wait for the next tick; CPU of the server
 * for a change; and what both cost a second, for a price that changes so often. A push is a write for each subscriber,
 * a poll a read and a write: what push saves is the polls that bring nothing, and the headers.
 * Bytes are those of the application, both ways; a poll has the headers that a browser sends.
 */
import { tempFolder } from '../harness.ts'
import { openAudience } from './audience.ts'
import {
  cpuSeconds,
  httpPool,
  quantile,
  requestBytes,
  rounded,
  type HttpPool,
  type HttpRequest,
} from './load.ts'
import { hasNginx, startNginx } from './nginx.ts'
import { startServer } from './start.ts'
import { mark, protocols, topicName } from './wire.ts'

const clients = Number(process.env['CLIENTS'] ?? 10_000)
const changes = Number(process.env['CHANGES'] ?? 15)
const polls = Number(process.env['POLLS'] ?? 5)

/** Connections opened together: below what a listen queue holds. */
const openBatch = 200

const browser: HttpRequest = {
  path: '/',
  headers: {
    'user-agent':
      'Mozilla/5.0 (X11; Linux x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36',
    accept: '*/*',
    'accept-language': 'en-US,en;q=0.9',
    'accept-encoding': 'gzip, deflate, br, zstd',
    referer: 'https://prices.example/board',
    'sec-fetch-site': 'same-origin',
    'sec-fetch-mode': 'cors',
    'sec-fetch-dest': 'empty',
  },
}

/** Of a WebSocket's frame of this size. */
const frameHeadBytes = 4

const priceAt = (n: number) => ({ usdPrice: 180 + n / 100, blockId: 348_004_023 + n, mark })

/** What is answered, and when it was answered first. */
function startUpstream() {
  let n = 0
  let toldAt = 0
  let told = -1
  const server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch() {
      if (told !== n) toldAt = performance.now()
      told = n
      return Response.json(priceAt(n))
    },
  })
  return {
    host: `127.0.0.1:${server.port}`,
    change: () => void (n += 1),
    get toldAt() {
      return toldAt
    },
    stop: () => server.stop(true),
  }
}

interface Cost {
  readonly cpuSeconds: number
  readonly bytes: number
}

async function pushes(upstream: ReturnType<typeof startUpstream>) {
  const server = await startServer(['feed-latency.server.ts', `http://${upstream.host}/`])
  const heard = {
    name: 'belfry',
    port: server.port,
    protocol: protocols.belfry,
    subscribers: () => Promise.resolve(clients),
  } as const
  const audience = await openAudience(heard, clients)
  let delivered = 0
  let changedAt = 0
  const fromChange: number[] = []
  const fromAnswer: number[] = []
  const last: number[] = []
  audience.onDeliveries = (count) => {
    delivered += count
    const now = performance.now()
    for (let n = 0; n < count; n += 1) {
      fromChange.push(now - changedAt)
      fromAnswer.push(now - upstream.toldAt)
    }
  }
  const change = async (): Promise<void> => {
    const wanted = delivered + clients
    changedAt = performance.now()
    upstream.change()
    while (delivered < wanted) await Bun.sleep(1)
    last.push(performance.now() - changedAt)
  }
  // The first value, and code that is compiled.
  await change()
  await change()
  fromChange.length = fromAnswer.length = last.length = 0

  const cpu = await cpuSeconds(server.pid)
  const startedAt = performance.now()
  for (let n = 0; n < changes; n += 1) {
    await change()
    await Bun.sleep(Math.random() * 1_000)
  }
  const seconds = (performance.now() - startedAt) / 1_000
  const used = (await cpuSeconds(server.pid)) - cpu
  // What it costs when nothing changes: ticks, pings.
  const idleAt = await cpuSeconds(server.pid)
  await Bun.sleep(5_000)
  const idlePerSecond = ((await cpuSeconds(server.pid)) - idleAt) / 5
  audience.close()
  await server.stop()
  const perChange = Math.max(0, used - idlePerSecond * seconds) / changes
  return { fromChange, fromAnswer, last, perChange, idlePerSecond }
}

/** Of one poll of each client. */
async function polling(upstream: ReturnType<typeof startUpstream>): Promise<Cost> {
  using folder = tempFolder()
  const nginx = await startNginx(folder, upstream.host, {
    validFor: '1s',
    connections: clients + 1_000,
  })
  try {
    const response = await fetch(`http://127.0.0.1:${nginx.port}/`)
    const body = await response.text()
    const head = [...response.headers].map(([name, value]) => `${name}: ${value}\r\n`).join('')
    const bytes =
      requestBytes(nginx.port, browser).length + `HTTP/1.1 200 OK\r\n${head}\r\n${body}`.length
    const pools: HttpPool[] = []
    for (let n = 0; n < clients; n += openBatch) {
      pools.push(await httpPool({ ...browser, port: nginx.port, connections: openBatch }))
    }
    const all = async () => await Promise.all(pools.map((pool) => pool.run(openBatch)))
    const cpuOf = async () => {
      const each = await Promise.all(nginx.pids().map((pid) => cpuSeconds(pid)))
      return each.reduce((a, b) => a + b, 0)
    }
    await all()
    const cpu = await cpuOf()
    for (let n = 0; n < polls; n += 1) await all()
    const used = (await cpuOf()) - cpu
    for (const pool of pools) pool.close()
    return { cpuSeconds: used / polls, bytes: bytes * clients }
  } finally {
    await nginx.stop()
  }
}

export async function run(): Promise<void> {
  if (!hasNginx) {
    console.warn('skipped: feed-latency needs nginx; `apt-get install nginx-light` brings it')
    return
  }
  const upstream = startUpstream()
  try {
    const pushed = await pushes(upstream)
    const ms = (values: readonly number[], share: number) => rounded(quantile(values, share))
    console.log(`\na change at upstream, asked for each second, to ${clients} subscribers, in ms`)
    console.table({
      'from the change': { p50: ms(pushed.fromChange, 0.5), p99: ms(pushed.fromChange, 0.99) },
      'from the answer': { p50: ms(pushed.fromAnswer, 0.5), p99: ms(pushed.fromAnswer, 0.99) },
      'from the change to the last': { p50: ms(pushed.last, 0.5), p99: ms(pushed.last, 0.99) },
    })
    const poll = await polling(upstream)
    const data = JSON.stringify(priceAt(12))
    const text = `{"push":{"channel":"${topicName}","pub":{"data":${data},"offset":1000}}}`
    const frame = (text.length + frameHeadBytes) * clients
    const row = (everyS: number) => {
      const cpu = pushed.idlePerSecond + pushed.perChange / everyS
      return {
        'CPU ms a second': rounded(cpu * 1_000),
        nginx: rounded(poll.cpuSeconds * 1_000),
        'times less': rounded(poll.cpuSeconds / cpu),
        'KB a second': rounded(frame / everyS / 1_000),
        'nginx ': rounded(poll.bytes / 1_000),
        'times less ': rounded((poll.bytes * everyS) / frame),
      }
    }
    console.log(
      `\nserver CPU for a change: ${rounded(pushed.perChange * 1_000)} ms, and ${rounded(pushed.idlePerSecond * 1_000)} ms a second in any case`,
    )
    console.table({ 'changes each 1 s': row(1), '5 s': row(5), '30 s': row(30) })
  } finally {
    await upstream.stop()
  }
}

if (import.meta.main) await run()
