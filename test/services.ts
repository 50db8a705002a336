/**
 * Real servers for tests: a Redis and a sqld (the libSQL server), each in an own temporary folder
 * on a free port, gone at the end of the `await using` block.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { createServer, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

export type ServiceName = 'redis-server' | 'sqld' | 'chromium'

export interface Service extends AsyncDisposable {
  readonly url: string
  readonly port: number
  /** Ends it at once, as a crash would; disposing afterwards is fine. */
  kill(): Promise<void>
  /** Stops it where it stands: connections stay open, and nobody answers. */
  pause(): void
  resume(): void
  /** Starts it again on the same port, over what it left in its folder. */
  restart(): Promise<void>
}

export interface Sqld extends Service {
  /** What it keeps; emptied between `kill` and `restart`, it is a new one. */
  readonly folder: string
  /** Where replicas of it (`primaryGrpcUrl`) ask for frames, if it was given a `grpcPort`. */
  readonly grpcUrl: string | undefined
}

export interface SqldOptions {
  readonly port?: number | undefined
  /** The caller's own, which outlives this one. By default a temporary one. */
  readonly folder?: string | undefined
  readonly grpcPort?: number | undefined
  /** Makes it a replica of the primary that serves frames there. */
  readonly primaryGrpcUrl?: string | undefined
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
  return start('redis-server', 'redis', options, (port, folder) => [
    ...['--port', String(port), '--bind', '127.0.0.1', '--dir', folder],
    ...['--save', '', '--appendonly', 'no'],
  ])
}

/** A libSQL primary, or a replica of one; its URL serves queries and embedded replicas. */
export async function startSqld(options: SqldOptions = {}): Promise<Sqld> {
  const { grpcPort, primaryGrpcUrl } = options
  const service = await start('sqld', 'http', options, (port, folder) => [
    ...['--http-listen-addr', `127.0.0.1:${port}`, '--db-path', join(folder, 'data.sqld')],
    ...(grpcPort === undefined ? [] : ['--grpc-listen-addr', `127.0.0.1:${grpcPort}`]),
    ...(primaryGrpcUrl === undefined ? [] : ['--primary-grpc-url', primaryGrpcUrl]),
    '--no-welcome',
  ])
  const grpcUrl = grpcPort === undefined ? undefined : `http://127.0.0.1:${grpcPort}`
  return { ...service, grpcUrl }
}

async function start(
  name: ServiceName,
  scheme: string,
  options: { readonly port?: number | undefined; readonly folder?: string | undefined },
  argumentsFor: (port: number, folder: string) => string[],
): Promise<Service & { readonly folder: string }> {
  const program = requireService(name)
  if (!program) throw new Error(`${name} is missing: ask requireService('${name}') first`)
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), `belfry-${name}-`)))
  await mkdir(folder, { recursive: true })
  const forget = async (): Promise<void> => {
    if (options.folder === undefined) await rm(folder, { recursive: true, force: true })
  }
  let port = 0
  let child: Bun.Subprocess | undefined
  const kill = async (): Promise<void> => {
    child?.kill('SIGKILL')
    await child?.exited
  }
  /** `wantedPort` undefined: any that is free. */
  const run = async (wantedPort: number | undefined): Promise<void> => {
    for (let attempt = 1; ; attempt += 1) {
      port = wantedPort ?? (await freePort())
      await mkdir(folder, { recursive: true })
      child = Bun.spawn([program, ...argumentsFor(port, folder)], {
        cwd: folder,
        stdout: Bun.file(join(folder, 'out.log')),
        stderr: Bun.file(join(folder, 'err.log')),
      })
      if (await accepts(port, child)) return
      await kill()
      if (attempt < attemptsMax) continue
      const said = await Promise.all(
        ['out.log', 'err.log'].map((log) => Bun.file(join(folder, log)).text()),
      )
      await forget()
      throw new Error(`${name} did not start on port ${port}: ${said.join('').slice(-2_000)}`)
    }
  }
  await run(options.port)
  return {
    url: `${scheme}://127.0.0.1:${port}`,
    port,
    folder,
    kill,
    pause: () => child?.kill('SIGSTOP'),
    resume: () => child?.kill('SIGCONT'),
    async restart() {
      await kill()
      await run(port)
    },
    async [Symbol.asyncDispose]() {
      await kill()
      await forget()
    },
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

/**
 * Below those that the kernel gives to whoever connects or listens on port 0 (Linux: from 32768 on): between this and
 * its use, or between a kill and a restart, it is taken by nobody, nor does a connection to it meet itself.
 */
const ports = { first: 10_000, count: 22_000 }

/** By process, so that those that run at once are apart. */
let nextPort = (process.pid * 101) % ports.count

export async function freePort(): Promise<number> {
  for (let left = ports.count; left > 0; left -= 1) {
    const port = ports.first + (nextPort++ % ports.count)
    if (await isFree(port)) return port
  }
  throw new Error('no port is free')
}

function isFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer().once('error', () => done(false))
    server.listen(port, '127.0.0.1', () => void server.close(() => done(true)))
  })
}
