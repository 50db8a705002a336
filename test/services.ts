/**
 * Real servers for tests: a Redis and a sqld (the libSQL server), each in an own temporary folder
 * on a free port, gone at the end of the `await using` block.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

export type ServiceName = 'redis-server' | 'sqld' | 'chromium'

export interface Service extends AsyncDisposable {
  readonly url: string
  readonly port: number
  /** Ends it at once, as a crash would; disposing afterwards is fine. */
  kill(): Promise<void>
}

const readyMsMax = 10_000
const retryMs = 20
/** Somebody else may take a free port before we do. */
const attemptsMax = 3

const noted = new Set<ServiceName>()

/**
 * Where the program is, or undefined when this machine has none: then say
 * `test.skipIf(!requireService('sqld'))`. With CI=true it must be there.
 */
export function requireService(name: ServiceName): string | undefined {
  const bundled = resolve(import.meta.dir, '../node_modules/.bin')
  const path = Bun.which(name, { PATH: `${bundled}:${process.env['PATH'] ?? ''}` })
  if (path) return path
  const remedy = name === 'sqld' ? '`bun install`' : `\`apt-get install ${name}\``
  if (process.env['CI'] === 'true') throw new Error(`${name} is missing; ${remedy} brings it`)
  if (!noted.has(name)) console.warn(`skipped: tests that need ${name}; ${remedy} brings it`)
  noted.add(name)
  return undefined
}

/** Redis with nothing in it, that keeps nothing. `port` starts it again where it was. */
export function startRedis(options: { port?: number | undefined } = {}): Promise<Service> {
  return start('redis-server', 'redis', options.port, (port, folder) => [
    ...['--port', String(port), '--bind', '127.0.0.1', '--dir', folder],
    ...['--save', '', '--appendonly', 'no'],
  ])
}

/** A libSQL primary; its URL serves queries and embedded replicas. */
export function startSqld(options: { port?: number | undefined } = {}): Promise<Service> {
  return start('sqld', 'http', options.port, (port, folder) => [
    ...['--http-listen-addr', `127.0.0.1:${port}`, '--db-path', join(folder, 'data.sqld')],
    '--no-welcome',
  ])
}

async function start(
  name: ServiceName,
  scheme: string,
  wantedPort: number | undefined,
  argumentsFor: (port: number, folder: string) => string[],
): Promise<Service> {
  const program = requireService(name)
  if (!program) throw new Error(`${name} is missing: ask requireService('${name}') first`)
  const folder = await mkdtemp(join(tmpdir(), `belfry-${name}-`))

  for (let attempt = 1; ; attempt += 1) {
    const port = wantedPort ?? (await freePort())
    const child = Bun.spawn([program, ...argumentsFor(port, folder)], {
      cwd: folder,
      stdout: Bun.file(join(folder, 'out.log')),
      stderr: Bun.file(join(folder, 'err.log')),
    })
    const kill = async (): Promise<void> => {
      child.kill('SIGKILL')
      await child.exited
    }
    if (await accepts(port, child)) {
      return {
        url: `${scheme}://127.0.0.1:${port}`,
        port,
        kill,
        async [Symbol.asyncDispose]() {
          await kill()
          await rm(folder, { recursive: true, force: true })
        },
      }
    }
    await kill()
    if (attempt < attemptsMax) continue
    const said = await Promise.all(
      ['out.log', 'err.log'].map((log) => Bun.file(join(folder, log)).text()),
    )
    await rm(folder, { recursive: true, force: true })
    throw new Error(`${name} did not start on port ${port}: ${said.join('').slice(-2_000)}`)
  }
}

/** True once the port answers, false when the program ended or took too long. */
async function accepts(port: number, child: Bun.Subprocess): Promise<boolean> {
  const deadline = performance.now() + readyMsMax
  while (performance.now() < deadline && child.exitCode === null) {
    if (await answers(port)) {
      // Give a program that lost the port to another a moment to say so.
      await Bun.sleep(retryMs)
      return child.exitCode === null
    }
    await Bun.sleep(retryMs)
  }
  return false
}

function answers(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect({ port, host: '127.0.0.1' })
    const end = (isOpen: boolean): void => {
      socket.destroy()
      done(isOpen)
    }
    socket.once('connect', () => end(true)).once('error', () => end(false))
  })
}

export function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const server = createServer().once('error', fail)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      const port = typeof address === 'object' && address ? address.port : 0
      server.close(() => done(port))
    })
  })
}
