/** The exam-prep app on a port, with its whole bank: loaded once, by its own feed, and copied for each test. */
import { copyFileSync } from 'node:fs'
import exams from '../../src/apps/exams.ts'
import { signToken } from '../../src/auth/auth.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { tempFolder, until, type TempFolder } from '../harness.ts'
import { runServer, testSecret, type TestServer } from '../server.ts'

const { name: _, ...app } = exams.options

/** What was seen while the bank was loaded. */
export interface Loading {
  readonly folder: TempFolder
  /** Of a server that was asked while it loaded. */
  readonly health: number
  /** Of one that was started after another had been stopped in the middle. */
  readonly resumed: Progress
  /** When the first test could be seen: its title, and how many of its questions could not. */
  readonly missing: Readonly<Record<string, number>>
  readonly loaded: Progress
}

export interface Progress {
  readonly batches: number
  readonly questions: number
  readonly tests: number
}

let loading: Promise<Loading> | undefined

/** Once for all tests; it takes some ten seconds, more on a busy machine: `beforeAll(…, loadingMsMax)`. */
export function loadExams(): Promise<Loading> {
  return (loading ??= load())
}

export const loadingMsMax = 120_000

async function load(): Promise<Loading> {
  const folder = tempFolder()
  process.once('exit', () => folder[Symbol.dispose]())
  const health = await stopInTheMiddle(folder)
  await using server = await runServer({ app, folder })
  const resumed = await progressOf(server)
  await tickUntil(server, ({ tests }) => tests > 0)
  const missing: Record<string, number> = {}
  for (const { id, questionCount } of (await json<Page>(server, '/api/tests')).items) {
    const path = `/api/tests/${String(id)}/questions?count=true&limit=1`
    const { count } = await json<{ count: number }>(server, path)
    missing[String(id)] = Number(questionCount) - count
  }
  await tickUntil(server, ({ tests }) => tests === 631)
  return { folder, health, resumed, missing, loaded: await progressOf(server) }
}

async function stopInTheMiddle(folder: TempFolder): Promise<number> {
  await using server = await runServer({ app, folder })
  await tickUntil(server, ({ batches }) => batches >= 3)
  return (await server.get('/api/health')).status
}

/** By hand as well as by the clock: a batch that comes twice writes nothing. */
async function tickUntil(
  server: TestServer,
  isThere: (progress: Progress) => boolean,
): Promise<void> {
  const tick = async () => {
    await server.rooms.feeds.tick('bank')
    return isThere(await progressOf(server))
  }
  await until(tick, 'so much of the bank is loaded', loadingMsMax)
}

async function progressOf(server: TestServer): Promise<Progress> {
  const counts = ['batches from bank_loads', 'count(*) from questions', 'count(*) from tests']
  const sql = `select ${counts.map((count) => `(select ${count})`).join(', ')}`
  const [row] = await server.rooms.store.read({ sql, params: [] })
  const [batches = 0, questions = 0, tests = 0] = row?.map(Number) ?? []
  return { batches, questions, tests }
}

/** With the whole bank in it. */
export async function runExams(folder: TempFolder, clock?: Clock): Promise<TestServer> {
  const made = await loadExams()
  copyFileSync(made.folder.file('test.db'), folder.file('test.db'))
  return await runServer({ app, folder, ...(clock ? { clock } : {}) })
}

export interface Asker {
  get(path: string): Promise<Response>
  send(
    method: 'POST' | 'PATCH' | 'DELETE',
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<Response>
  readonly headers: Readonly<Record<string, string>>
}

/** Requests of one user, or of a visitor. */
export async function as(
  server: TestServer,
  sub: string | null,
  claims: Readonly<Record<string, unknown>> = {},
): Promise<Asker> {
  const times = { nowMs: Date.now(), ttlMs: 600_000 }
  const headers: Record<string, string> =
    sub === null
      ? {}
      : { authorization: `Bearer ${await signToken(testSecret, { ...claims, sub }, times)}` }
  return {
    headers,
    get: (path) => server.get(path, { headers }),
    send: (method, path, body, more = {}) =>
      server.get(path, {
        method,
        headers: { ...headers, 'content-type': 'application/json', ...more },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      }),
  }
}

export async function json<T>(
  from: { get(path: string): Promise<Response> },
  path: string,
): Promise<T> {
  const response = await from.get(path)
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
  return (await response.json()) as T
}

export interface Page<T = Readonly<Record<string, unknown>>> {
  readonly items: readonly T[]
  readonly next: string | null
  readonly prev: string | null
}

/** Server-sent events as they come. */
export async function listen(
  server: TestServer,
  path: string,
  headers: Readonly<Record<string, string>>,
) {
  const abort = new AbortController()
  const response = await server.get(path, { headers, signal: abort.signal })
  let text = ''
  const read = async (): Promise<void> => {
    const decoder = new TextDecoder()
    for await (const chunk of response.body ?? []) text += decoder.decode(chunk, { stream: true })
  }
  const reading = read().catch(() => {})
  return {
    response,
    text: () => text,
    /** The data of every event. */
    events: () =>
      [...text.matchAll(/^data: (.*)$/gm)].map(([, data = '']) => JSON.parse(data) as HeardEvent),
    async [Symbol.asyncDispose]() {
      abort.abort()
      await reading
    },
  }
}

export interface HeardEvent {
  readonly channel: string
  readonly data: {
    readonly collection: string
    readonly op: string
    readonly row: Readonly<Record<string, unknown>>
  }
}
