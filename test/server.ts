/** The whole server on port 0, for tests that go through a door. */
import { readConfig, type Env } from '../src/config.ts'
import { app, type AppOptions } from '../src/plan/declare.ts'
import { compilePlan } from '../src/plan/plan.ts'
import { startServer, type Server, type ServerOptions } from '../src/server.ts'
import { calm, createTestLog, patientMs, until, type TempFolder } from './harness.ts'

export interface TestServer extends Server, AsyncDisposable {
  readonly log: ReturnType<typeof createTestLog>
  /** Path under the server, with `X-…` of ours left as they are. */
  get(path: string, init?: RequestInit): Promise<Response>
}

export const testSecret = 'a secret of at least thirty-two bytes'
export const testApiKey = 'test-api-key'

export interface TestServerOptions extends Partial<Omit<ServerOptions, 'plan' | 'config'>> {
  readonly app: Omit<AppOptions, 'name'>
  readonly folder: TempFolder
  readonly env?: Env
}

/** What a start reads behind it is read: from now on reads are those of requests. */
export const startIsOver = ({ log }: TestServer): Promise<void> =>
  until(
    () => log.lines.some(({ event }) => event === 'collections.indexes_checked'),
    'the reads of the start are over',
  )

/** The whole server on a free port, over a file in `folder`. */
export async function runServer({
  app: options,
  folder,
  env,
  ...rest
}: TestServerOptions): Promise<TestServer> {
  const log = createTestLog()
  const plan = compilePlan(app({ name: 'test', ...options }))
  const config = readConfig(plan.name, {
    PORT: '0',
    HOST: '127.0.0.1',
    DATABASE_URL: `file:${folder.file('test.db')}`,
    JWT_SECRET: testSecret,
    API_KEY: testApiKey,
    ...calm,
    ...env,
  })
  const server = await startServer({ plan, config, log, redisMs: patientMs, ...rest })
  return {
    ...server,
    log,
    get: (path, init) => fetch(server.url + path, init),
    [Symbol.asyncDispose]: () => server.stop(),
  }
}
