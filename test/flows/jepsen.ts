/**
 * A Jepsen-style run: clients at work on a cluster while a nemesis breaks and mends it, then the
 * history of what they were told is checked against what the database says (`history.ts`).
 *
 * The seed decides who does what and what is broken when; how that interleaves is the machine's.
 */
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { tempFolder } from '../harness.ts'
import { createRandom, type Random } from '../lib/random.ts'
import { appFile } from './jepsen-app.ts'
import { createClient, type Client, type Journal } from './jepsen-client.ts'
import { check, type Done, type Outage, type Row, type Truth } from './history.ts'
import { startCluster, type Breakage, type Cluster, type Node, type Shape } from './shapes.ts'

export interface RunOptions {
  readonly shape: Shape
  readonly seed: number
  /** How long the nemesis is at work. */
  readonly ms: number
  /** What to break, by name; by default everything there is. */
  readonly only?: RegExp
}

export interface RunReport {
  readonly problems: readonly string[]
  /** One line for people. */
  readonly summary: string
  /** What was broken when, what was recorded, what the processes said: a file, if there are problems. */
  readonly dump: string | undefined
}

const clientsCount = 3
/** Of each client, so that commits have company. Each does one thing after the other. */
const lanesPerClient = 4

const registersCount = 5
const accountsCount = 5
const balanceAtStart = 100

/** Between two operations of a lane, at most. */
const paceMs = 20
const calmMs = { least: 200, most: 600 }
const brokenMs = { least: 400, most: 1_500 }

/** After the last mending, until every node serves and all copies agree. */
const recoveryMsMax = 15_000

export async function runJepsen({ shape, seed, ms, only }: RunOptions): Promise<RunReport> {
  using folder = tempFolder()
  await using cluster = await startCluster(shape, folder, appFile)
  const startedAt = performance.now()
  const journal: Journal = { done: [], now: () => performance.now() - startedAt }
  const problems: string[] = []
  const outages: Outage[] = []
  const { nodes } = cluster
  const clientOf = (at: number, name: string): Client => createClient(nodes, at, journal, name)

  await setUp(clientOf(0, 'setup'))
  for (const node of nodes) await expectRows(node, 'accounts', accountsCount)

  let isOver = false
  const lanes = Array.from({ length: clientsCount * lanesPerClient }, async (_, at) => {
    const random = createRandom(seed * 1_000 + at)
    const client = clientOf(at % clientsCount, `c${at}`)
    while (!isOver) {
      await step(client, random)
      await Bun.sleep(random.below(paceMs))
    }
  })
  try {
    const chosen = cluster.breakages.filter(({ name }) => only?.test(name) ?? true)
    await torment(chosen, createRandom(seed), ms, journal.now, outages)
  } finally {
    isOver = true
    await Promise.all(lanes)
  }

  const mendedAt = journal.now()
  for (const { at } of nodes) {
    const client = clientOf(at, `after${at}`)
    if (!(await comesTrue(() => client.add(false)))) {
      problems.push(`no recovery: node ${at} takes no write after ${recoveryMsMax} ms`)
    }
  }
  const recoveredMs = Math.round(journal.now() - mendedAt)
  problems.push(...(await agreement(cluster)))
  const convergedMs = Math.round(journal.now() - mendedAt)
  problems.push(...nodes.flatMap(({ crashes }) => crashes))
  for (const node of nodes) {
    const code = await node.stop()
    if (code !== 0) problems.push(`bad end: node ${node.at} ended with ${code} when told to stop`)
  }

  const truth = await cluster.truth()
  problems.push(
    ...check({
      history: journal.done,
      truth,
      outages,
      total: accountsCount * balanceAtStart,
      isOneView: cluster.isOneView,
    }),
  )
  const summary =
    `${shape}, seed ${seed}: ${figures(journal.done)}; log ${truth.log.length}; ` +
    `${outages.map(({ name }) => name).join(', ')}; serves again after ${recoveredMs} ms, ` +
    `agrees after ${convergedMs}; ${problems.length} problems`
  if (problems.length === 0) return { problems, summary, dump: undefined }
  const said = await Promise.all(nodes.map((node) => node.said()))
  const dump = join(tmpdir(), `belfry-jepsen-${seed}-${process.pid}.json`)
  await Bun.write(
    dump,
    JSON.stringify({ summary, problems, outages, history: journal.done, truth, said }, null, 1),
  )
  return { problems, summary, dump }
}

/** All rows that change, made before anything breaks. */
async function setUp(client: Client): Promise<void> {
  for (let id = 1; id <= registersCount; id++) await must(client.create('registers', id, {}))
  for (let id = 1; id <= accountsCount; id++) {
    await must(client.create('accounts', id, { balance: balanceAtStart }))
  }
}

async function must(succeeded: Promise<boolean>): Promise<void> {
  if (!(await succeeded)) throw new Error('a write failed before anything was broken')
}

/** One thing that a client does. */
async function step(client: Client, random: Random): Promise<unknown> {
  const register = 1 + random.below(registersCount)
  const chance = random.next()
  if (chance < 0.25) return await client.readRegister(register)
  if (chance < 0.35) return await client.set(register)
  if (chance < 0.5) {
    const current = await client.readRegister(register)
    return current && (await client.set(register, current))
  }
  if (chance < 0.65) return await client.add(random.next() < 0.5)
  if (chance < 0.75) return await client.readEntry(random)
  if (chance < 0.8) return await client.scan('registers')
  if (chance < 0.87) return await client.scan('accounts')
  const from = 1 + random.below(accountsCount)
  const to = 1 + ((from + random.below(accountsCount - 1)) % accountsCount)
  return await client.transfer(from, to, 1 + random.below(40), random.next() < 0.5)
}

/** Breaks, waits, mends, waits, until the time is over. Everything is whole when it returns. */
async function torment(
  breakages: readonly Breakage[],
  random: Random,
  ms: number,
  now: () => number,
  outages: Outage[],
): Promise<void> {
  const between = ({ least, most }: typeof calmMs) => Bun.sleep(least + random.below(most - least))
  const endsAt = now() + ms
  let left: Breakage[] = []
  const next = (victims: readonly string[]): Breakage | undefined => {
    // Everything once, in some order, before anything twice.
    if (left.length === 0) left = shuffled(breakages, random)
    const at = left.findIndex(({ victim }) => !victims.includes(victim))
    return at < 0 ? undefined : left.splice(at, 1)[0]
  }
  while (now() < endsAt) {
    await between(calmMs)
    const first = next([])
    const second = first && random.next() < 0.3 ? next([first.victim]) : undefined
    const broken = [first, second].filter((one) => one !== undefined)
    for (const one of broken) await one.break()
    const from = now()
    await between(brokenMs)
    const to = now()
    // What nodes need comes back before they do.
    for (const one of broken.toSorted((a, b) => a.down.length - b.down.length)) await one.mend()
    outages.push(outageOf(broken, from, to))
  }
}

function shuffled<T>(things: readonly T[], random: Random): T[] {
  return things
    .map((thing) => ({ thing, at: random.next() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ thing }) => thing)
}

/** Two at once promise what both do. */
function outageOf(broken: readonly Breakage[], from: number, to: number): Outage {
  const common = (of: (one: Breakage) => readonly number[]): number[] =>
    [...new Set(broken.flatMap(of))].filter((at) => broken.every((one) => of(one).includes(at)))
  return {
    name: broken.map(({ name }) => name).join(' + '),
    from,
    to,
    readers: common(({ readers }) => readers),
    refusers: common(({ refusers }) => refusers),
  }
}

async function comesTrue(condition: () => Promise<boolean>): Promise<boolean> {
  const deadline = performance.now() + recoveryMsMax
  while (performance.now() < deadline) {
    if (await condition()) return true
    await Bun.sleep(50)
  }
  return false
}

async function listed(node: Node, table: string): Promise<readonly Row[]> {
  const response = await fetch(`${node.url}/api/${table}?limit=100`, {
    keepalive: false,
    signal: AbortSignal.timeout(2_000),
  })
  if (response.status !== 200) return []
  return ((await response.json()) as { items: Row[] }).items
}

async function expectRows(node: Node, table: string, count: number): Promise<void> {
  const isThere = await comesTrue(async () => (await listed(node, table)).length === count)
  if (!isThere) throw new Error(`node ${node.at} never sees ${count} ${table}`)
}

/** Every node and every copy comes to say the same as the database. */
async function agreement({ nodes, copies, truth }: Cluster): Promise<string[]> {
  const problems: string[] = []
  for (const node of nodes) {
    const agrees = await comesTrue(async () => {
      const { tables } = await truth()
      for (const table of ['registers', 'accounts']) {
        const seen = await listed(node, table).catch(() => [])
        if (!Bun.deepEquals(seen, tables[table])) return false
      }
      return true
    })
    if (!agrees) problems.push(`no agreement: node ${node.at} shows other rows than there are`)
  }
  for (const copy of copies) {
    let difference = ''
    const agrees = await comesTrue(async () => {
      try {
        difference = differenceOf(await copy.read(), await truth())
      } catch (thrown) {
        difference = String(thrown)
      }
      return difference === ''
    })
    if (!agrees) problems.push(`no agreement: ${copy.name} is not what there is: ${difference}`)
  }
  return problems
}

function differenceOf(copy: Truth, truth: Truth): string {
  for (const [table, rows] of Object.entries(truth.tables)) {
    const others = copy.tables[table] ?? []
    if (!Bun.deepEquals(others, rows)) return `${table} has ${others.length} rows of ${rows.length}`
  }
  return ''
}

function figures(history: readonly Done[]): string {
  const count = (what: (done: Done) => boolean): number => history.filter(what).length
  const isRead = ({ op }: Done): boolean => op.kind === 'read' || op.kind === 'scan'
  const told = (isMine: (done: Done) => boolean): string =>
    (['ok', 'failed', 'unknown'] as const)
      .map((outcome) => `${count((done) => isMine(done) && done.outcome === outcome)} ${outcome}`)
      .join(', ')
  return `reads ${told(isRead)}; writes ${told((done) => !isRead(done))}`
}
