/** `ws` and Socket.IO as peers: fetched once from npm into a folder outside the repository. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Pinned, because a bench names what it measured. */
const versions = { ws: '8.23.0', 'socket.io': '4.8.4' }
const packages = Object.entries(versions).map(([name, version]) => `${name}@${version}`)

const home = join(tmpdir(), `belfry-bench-peers-${packages.join('-')}`)

export interface NpmServer {
  /** `npm-peers.server.ts` as JavaScript, beside the packages: Node takes no TypeScript from everybody. */
  readonly file: string
  /** Why there is none. */
  readonly problem?: string
}

let once: Promise<NpmServer> | undefined

export async function npmServer(): Promise<NpmServer> {
  once ??= make()
  return await once
}

async function make(): Promise<NpmServer> {
  const file = join(home, 'npm-peers.server.js')
  const modules = join(home, 'node_modules')
  if (!Object.keys(versions).every((name) => existsSync(join(modules, name, 'package.json')))) {
    mkdirSync(home, { recursive: true })
    writeFileSync(join(home, 'package.json'), '{"private":true,"type":"module"}')
    const { exitCode, stderr } = Bun.spawnSync([process.execPath, 'add', '--exact', ...packages], {
      cwd: home,
      stdout: 'ignore',
      stderr: 'pipe',
    })
    if (exitCode !== 0) return { file, problem: stderr.toString().trim() }
  }
  const { success, logs } = await Bun.build({
    entrypoints: [`${import.meta.dir}/npm-peers.server.ts`],
    outdir: home,
    target: 'node',
    external: ['ws', 'socket.io'],
  })
  return success ? { file } : { file, problem: logs.map(({ message }) => message).join('\n') }
}
