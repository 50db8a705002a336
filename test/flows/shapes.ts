/**
 * The four shapes of the store as clusters of real processes, and what can be broken in each. Between
 * every node and what it talks to is a link of its own (test/proxy.ts).
 *
 *   file               belfry ── file
 *   file + replicas    belfry ── file, ── link ──► sqld, ── link ──► sqld
 *   remote             belfry ×3 ── link ──► sqld
 *   remote + embedded  belfry ×3 ── link ──► sqld, each with a copy of it on its disk
 */
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { readConfig } from '../../src/config.ts'
import { Fault } from '../../src/fault.ts'
import type { TempFolder } from '../harness.ts'
import { spawnBelfry, type BelfryProcess } from '../process.ts'
import { startProxy, type Proxy } from '../proxy.ts'
import { testSecret } from '../server.ts'
import { freePort, startSqld, type Service, type Sqld } from '../services.ts'
import type { Truth } from './history.ts'
import { readFileTruth, readSqldTruth } from './truth.ts'

export const shapes = ['file', 'file + replicas', 'remote', 'remote + embedded'] as const
export type Shape = (typeof shapes)[number]

/** One belfry, again and again: always on its port and in its folder. */
export interface Node {
  readonly at: number
  readonly url: string
  /** Processes before this one. */
  readonly life: number
  /** Ends of processes that nobody here had ended, with what they said last. */
  readonly crashes: readonly string[]
  kill(): Promise<void>
  restart(): Promise<void>
  pause(): void
  resume(): void
  /** As an operator does; its exit code. */
  stop(): Promise<number>
  /** What all its processes have said. */
  said(): Promise<string>
}

/** Something to break, and to mend. */
export interface Breakage {
  readonly name: string
  /** Two breakages of one victim are never at work together. */
  readonly victim: string
  /** Nodes that cannot be asked meanwhile. */
  readonly down: readonly number[]
  /** See `Outage`. */
  readonly readers: readonly number[]
  readonly refusers: readonly number[]
  break(): Promise<void> | void
  mend(): Promise<void> | void
}

export interface Cluster extends AsyncDisposable {
  readonly nodes: readonly Node[]
  readonly breakages: readonly Breakage[]
  /** The database, read behind belfry's back. */
  truth(): Promise<Truth>
  /** Copies that must come to the same once all is well. */
  readonly copies: readonly { readonly name: string; read(): Promise<Truth> }[]
  /** False where other nodes write: see `CheckInput`. */
  readonly isOneView: boolean
}

/** False for a shape whose settings this belfry refuses as not supported. */
export function isSupported(shape: Shape): boolean {
  const url = 'http://127.0.0.1:1'
  const env: Record<Shape, Record<string, string>> = {
    file: {},
    'file + replicas': { DATABASE_READ_REPLICA_URL: url },
    remote: { DATABASE_URL: url },
    'remote + embedded': { DATABASE_URL: url, DATABASE_REPLICA_PATH: '/tmp/replica.db' },
  }
  try {
    readConfig('probe', env[shape])
    return true
  } catch (thrown) {
    if (thrown instanceof Fault && thrown.code === 'invalid') return false
    throw thrown
  }
}

interface Place {
  readonly folder: TempFolder
  readonly appFile: string
  /** Everything that was started, to be ended in reverse. */
  readonly started: AsyncDisposable[]
}

export async function startCluster(
  shape: Shape,
  folder: TempFolder,
  appFile: string,
): Promise<Cluster> {
  const place: Place = { folder, appFile, started: [] }
  const end = async (): Promise<void> => {
    for (const one of place.started.toReversed()) await one[Symbol.asyncDispose]()
  }
  try {
    const parts = await starters[shape](place)
    return { ...parts, [Symbol.asyncDispose]: end }
  } catch (thrown) {
    await end()
    throw thrown
  }
}

type Parts = Omit<Cluster, typeof Symbol.asyncDispose>

const starters: Record<Shape, (place: Place) => Promise<Parts>> = {
  async file(place) {
    const node = await startNode(place, 0, {})
    return {
      nodes: [node],
      breakages: nodeBreakages([node]),
      truth: () => Promise.resolve(readFileTruth(databaseFile(place, 0))),
      copies: [],
      isOneView: true,
    }
  },

  async 'file + replicas'(place) {
    const replicas = await Promise.all([0, 1].map((at) => startRemote(place, `replica-${at}`)))
    const links = await Promise.all(replicas.map((replica) => startLink(place, replica)))
    const node = await startNode(place, 0, {
      DATABASE_READ_REPLICA_URL: links.map(({ url }) => url).join(),
    })
    const all = { readers: [0], refusers: [0] }
    return {
      nodes: [node],
      breakages: [
        ...nodeBreakages([node]),
        ...replicas.flatMap((replica, at) => [
          ...serviceBreakages(`replica ${at}`, replica, all),
          emptied(`replica ${at}`, replica, all),
        ]),
        ...links.flatMap((link, at) => linkBreakages(`link to replica ${at}`, [link], all)),
      ],
      truth: () => Promise.resolve(readFileTruth(databaseFile(place, 0))),
      copies: replicas.map(({ url }, at) => ({
        name: `replica ${at}`,
        read: () => readSqldTruth(url),
      })),
      isOneView: true,
    }
  },

  async remote(place) {
    const { primary, links } = await startPrimary(place)
    const nodes = await Promise.all(
      links.map((link, at) => startNode(place, at, { DATABASE_URL: link.url })),
    )
    return {
      nodes,
      breakages: [...nodeBreakages(nodes), ...primaryBreakages(primary, links, [])],
      truth: () => readSqldTruth(primary.url),
      copies: [],
      isOneView: false,
    }
  },

  async 'remote + embedded'(place) {
    const { primary, links } = await startPrimary(place)
    const copy = (at: number): string => join(nodeFolder(place, at), 'copy')
    const nodes = await Promise.all(
      links.map((link, at) =>
        startNode(place, at, {
          DATABASE_URL: link.url,
          DATABASE_REPLICA_PATH: join(copy(at), 'replica.db'),
        }),
      ),
    )
    return {
      nodes,
      breakages: [
        ...nodeBreakages(nodes),
        ...primaryBreakages(primary, links, allOf(links)),
        ...nodes.flatMap((node) => [
          copyBreakage(node, 'lost', () => rm(copy(node.at), { recursive: true, force: true })),
          copyBreakage(node, 'garbled', () => garble(copy(node.at))),
        ]),
      ],
      truth: () => readSqldTruth(primary.url),
      copies: [],
      isOneView: false,
    }
  },
}

const allOf = (things: readonly unknown[]): number[] => things.map((_, at) => at)

async function startRemote(place: Place, name: string): Promise<Sqld> {
  const sqld = await startSqld({ folder: place.folder.file(name) })
  place.started.push(sqld)
  return sqld
}

async function startLink(place: Place, { port }: Service): Promise<Proxy> {
  const link = await startProxy({ target: port })
  place.started.push(link)
  return link
}

async function startPrimary(place: Place): Promise<{ primary: Sqld; links: Proxy[] }> {
  const primary = await startRemote(place, 'primary')
  return { primary, links: await Promise.all([0, 1, 2].map(() => startLink(place, primary))) }
}

const nodeFolder = (place: Place, at: number): string => place.folder.file(`node-${at}`)
const databaseFile = (place: Place, at: number): string =>
  join(nodeFolder(place, at), 'data', 'jepsen.db')

/** A database that has just come back may take a moment; a supervisor would try again, too. */
const startsMax = 3

async function startNode(
  place: Place,
  at: number,
  env: Readonly<Record<string, string>>,
): Promise<Node> {
  const cwd = nodeFolder(place, at)
  await mkdir(cwd, { recursive: true })
  await Bun.write(join(cwd, 'app.ts'), place.appFile)
  const port = await freePort()
  const crashes: string[] = []
  const said: Promise<string>[] = []
  let current: BelfryProcess | undefined
  let life = -1

  const run = async (): Promise<void> => {
    for (let attempt = 1; ; attempt++) {
      try {
        current = await spawnBelfry({
          args: ['serve', 'app.ts'],
          cwd,
          env: { JWT_SECRET: testSecret, LOG_LEVEL: 'info', PORT: String(port), ...env },
        })
        break
      } catch (thrown) {
        if (attempt === startsMax) throw thrown
        said.push(Promise.resolve(`${String(thrown)}\n`))
      }
    }
    life++
    const mine = current
    said.push(mine.stderr())
    void mine.exited.then(async (code) => {
      if (current !== mine) return
      crashes.push(`node ${at}.${life} ended by itself with ${code}: ${await mine.stderr()}`)
    })
  }
  /** From here on its end is no crash. */
  const take = (): BelfryProcess | undefined => {
    const mine = current
    current = undefined
    return mine
  }
  const kill = async (): Promise<void> => {
    const mine = take()
    mine?.kill('SIGKILL')
    await mine?.exited
  }
  await run()
  place.started.push({ [Symbol.asyncDispose]: kill })
  return {
    at,
    url: `http://127.0.0.1:${port}`,
    get life() {
      return life
    },
    crashes,
    kill,
    restart: run,
    pause: () => current?.pause(),
    resume: () => current?.resume(),
    async stop() {
      const mine = take()
      mine?.kill('SIGTERM')
      return (await mine?.exited) ?? Number.NaN
    },
    said: async () => (await Promise.all(said)).join(''),
  }
}

/** One node down; the others are asked on. */
function nodeBreakages(nodes: readonly Node[]): Breakage[] {
  return nodes.flatMap((node): Breakage[] => {
    const others = allOf(nodes).filter((at) => at !== node.at)
    const of = {
      victim: `node ${node.at}`,
      down: [node.at],
      readers: others,
      refusers: others,
    }
    return [
      { ...of, name: `node ${node.at} killed`, break: node.kill, mend: node.restart },
      { ...of, name: `node ${node.at} paused`, break: node.pause, mend: node.resume },
    ]
  })
}

interface Promised {
  readonly readers: readonly number[]
  readonly refusers: readonly number[]
}

function serviceBreakages(victim: string, service: Service, promised: Promised): Breakage[] {
  const of = { victim, down: [], ...promised }
  return [
    { ...of, name: `${victim} killed`, break: service.kill, mend: service.restart },
    // What is paused refuses nothing: only time tells.
    { ...of, name: `${victim} paused`, refusers: [], break: service.pause, mend: service.resume },
  ]
}

function emptied(victim: string, sqld: Sqld, promised: Promised): Breakage {
  return {
    ...{ name: `${victim} emptied`, victim, down: [], ...promised },
    async break() {
      await sqld.kill()
      await rm(sqld.folder, { recursive: true, force: true })
    },
    mend: sqld.restart,
  }
}

const slowMs = 100

function linkBreakages(victim: string, links: readonly Proxy[], promised: Promised): Breakage[] {
  const each = (run: (link: Proxy) => void) => (): void => links.forEach(run)
  const of = { victim, down: [], ...promised, mend: each((link) => link.resume()) }
  return [
    { ...of, name: `${victim} cut`, break: each((link) => link.cut()) },
    { ...of, name: `${victim} half-open`, refusers: [], break: each((link) => link.halfOpen()) },
    {
      ...of,
      name: `${victim} slow`,
      break: each((link) => link.setDelay(slowMs)),
      mend: each((link) => link.setDelay(0)),
    },
  ]
}

function primaryBreakages(
  primary: Sqld,
  links: readonly Proxy[],
  readers: readonly number[],
): Breakage[] {
  const refusers = allOf(links)
  return [
    ...serviceBreakages('primary', primary, { readers, refusers }),
    ...linkBreakages('every link', links, { readers, refusers }),
    ...links.flatMap((link, at) => {
      const others = refusers.filter((node) => node !== at)
      const reading = readers.length > 0 ? readers : others
      return linkBreakages(`link of node ${at}`, [link], { readers: reading, refusers })
    }),
  ]
}

/** Its copy is spoiled while it is down. */
function copyBreakage(node: Node, how: string, spoil: () => Promise<unknown>): Breakage {
  const name = `copy of node ${node.at} ${how}`
  return {
    ...{ name, victim: `node ${node.at}`, down: [node.at], readers: [], refusers: [] },
    async break() {
      await node.kill()
      await spoil()
    },
    mend: node.restart,
  }
}

/** The first page of every file: no SQLite takes it for a database any more. */
async function garble(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    // The lock and the admin socket are not of the copy.
    if (name.startsWith('belfry.')) continue
    const file = Bun.file(join(folder, name))
    const bytes = new Uint8Array(await file.arrayBuffer())
    bytes.fill(0x5a, 0, 4096)
    await Bun.write(file, bytes)
  }
}
