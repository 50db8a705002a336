/** The community app on a port, with its whole sample: loaded once, by its own feed, and copied for each test. */
import { copyFileSync } from 'node:fs'
import community from '../../src/apps/community.ts'
import { tempFolder, until, type TempFolder } from '../harness.ts'
import { runServer, type TestServer } from '../server.ts'

export const { name: _, ...communityApp } = community.options

/** What was seen while the sample was loaded. */
export interface Loading {
  readonly folder: TempFolder
  /** Of a server that was asked while it loaded. */
  readonly health: number
  /** When one was stopped in the middle, and when another had gone on. */
  readonly stopped: Progress
  readonly loaded: Progress
}

export interface Progress {
  readonly batches: number
  readonly posts: number
  readonly comments: number
  readonly users: number
}

export const whole: Progress = { batches: 12, posts: 612, comments: 4_473, users: 402 }

let loading: Promise<Loading> | undefined

/** Once for all tests of a file; a few seconds: `beforeAll(…, loadingMsMax)`. */
export function loadCommunity(): Promise<Loading> {
  return (loading ??= load())
}

export const loadingMsMax = 60_000

async function load(): Promise<Loading> {
  const folder = tempFolder()
  process.once('exit', () => folder[Symbol.dispose]())
  const { health, stopped } = await stopInTheMiddle(folder)
  await using server = await runServer({ app: communityApp, folder })
  await tickUntil(server, ({ batches }) => batches === whole.batches)
  return { folder, health, stopped, loaded: await progressOf(server) }
}

async function stopInTheMiddle(folder: TempFolder): Promise<Pick<Loading, 'health' | 'stopped'>> {
  await using server = await runServer({ app: communityApp, folder })
  await tickUntil(server, ({ batches }) => batches >= 3)
  const health = (await server.get('/api/health')).status
  return { health, stopped: await progressOf(server) }
}

/** By hand as well as by the clock: a batch that comes twice writes nothing. */
export async function tickUntil(
  server: TestServer,
  isThere: (progress: Progress) => boolean,
): Promise<void> {
  const tick = async () => {
    await server.rooms.feeds.tick('sample')
    return isThere(await progressOf(server))
  }
  await until(tick, 'so much of the sample is loaded', loadingMsMax)
}

export async function progressOf(server: TestServer): Promise<Progress> {
  const counts = [
    'batches from sample_loads',
    'count(*) from posts',
    'count(*) from comments',
    'count(*) from users',
  ]
  const sql = `select ${counts.map((count) => `(select ${count})`).join(', ')}`
  const [row] = await server.rooms.store.read({ sql, params: [] })
  const [batches = 0, posts = 0, comments = 0, users = 0] = row?.map(Number) ?? []
  return { batches, posts, comments, users }
}

/** With the whole sample in it. */
export async function runCommunity(folder: TempFolder): Promise<TestServer> {
  const made = await loadCommunity()
  copyFileSync(made.folder.file('test.db'), folder.file('test.db'))
  return await runServer({ app: communityApp, folder })
}

/** Of `hotOf`, in JavaScript. */
export function hotReference(score: number, createdAt: Date | string): number {
  const sign = Math.sign(score) * Math.log10(Math.max(Math.abs(score), 1))
  return sign + (new Date(createdAt).getTime() / 1000 - 1_134_028_003) / 45_000
}
