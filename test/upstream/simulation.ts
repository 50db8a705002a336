/**
 * Nodes under one budget, in one thread and in no time: each with a clock of its own (other time of day, slightly other
 * pace, pauses), a ledger in a real SQLite whose time is the simulation's, and a network between them that is slow,
 * loses requests and answers, and delivers what was given up. All follows from a seed, but the names of holders.
 */
import { Database } from 'bun:sqlite'
import shares0006 from '../../db/migrations/0006_shares.sql' with { type: 'text' }
import { Fault } from '../../src/fault.ts'
import { createAllowances, createShares, type Query, type RawRow } from '../../src/store/store.ts'
import { createBudgets } from '../../src/upstream/budget.ts'
import type { BudgetPlan, Budgets, Grant, Priority } from '../../src/upstream/budget-port.ts'
import { createTestClock, type TestClock } from '../clock.ts'
import { createTestLog } from '../harness.ts'
import type { Random } from '../lib/random.ts'
import type { Span } from './adversary.ts'

/** A request to the ledger is given up after so long. */
export const requestMs = 6_000

export interface Node {
  readonly budgets: Budgets
  readonly clock: TestClock
  /** Of 1: how fast its clock runs. */
  readonly pace: number
  isCut: boolean
  isDead: boolean
  isPaused: boolean
  /** Of the clock, not run yet because of a pause. */
  owedMs: number
  /** Answers that came meanwhile. */
  readonly inbox: (() => void)[]
}

export interface Call extends Span {
  readonly key: string
  readonly node: number
}

/** A key is to be left alone, and the ledger has known so since then. */
export interface Rest {
  readonly writtenMs: number
  readonly untilMs: number
}

export interface Simulation {
  readonly nodes: Node[]
  readonly calls: Call[]
  /** Of the first key. */
  readonly rests: Rest[]
  /** Asked and not answered yet. */
  open: number
  readonly nowMs: number
  /** How a take ended: `granted`, or the fault's code, or `cancelled`. */
  readonly outcomes: Map<string, number>
  join(): Node
  /** One call, if it gets its turn. */
  ask(node: Node, ask: { priority: Priority; deadlineMs?: number; cancelMs?: number }): void
  /** Units that nodes believe to have, of the first key. */
  units(): number
  step(ms: number): Promise<void>
}

export interface SimulationOptions {
  readonly random: Random
  readonly plan: BudgetPlan
  readonly env?: Record<string, string>
  readonly isShared: boolean
  /** Share of requests to the ledger that something happens to. */
  readonly trouble?: number
  /** Requests to the ledger take up to so long, there and back each. Default 200. */
  readonly networkMs?: number
  /** Calls take nearly as long as they may. */
  readonly isSlow?: boolean
  /** Share of calls that are answered by a 429, which says when to come again. */
  readonly limited?: number
}

export function simulate(options: SimulationOptions): Simulation {
  const { random, plan, isShared, trouble = 0.05, networkMs = 200, isSlow = false } = options
  const { limited = 0 } = options
  const { timeoutMs } = plan
  const world = createTestClock()
  const ledger = createLedger(world)
  const nodes: Node[] = []
  const calls: Call[] = []
  const rests: Rest[] = []
  const outcomes = new Map<string, number>()
  const count = (outcome: string): void =>
    void outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)

  const simulation: Simulation = {
    ...{ nodes, calls, rests, outcomes, open: 0 },
    get nowMs() {
      return world.tick()
    },
    join() {
      const clock = createTestClock(Date.UTC(2026, 0, 1) + (random.next() - 0.5) * 1e9)
      // ± 200 ppm: what bad crystals do.
      const pace = 1 + (random.next() - 0.5) * 4e-4
      const state: Pick<Node, 'isCut' | 'isDead' | 'isPaused' | 'owedMs' | 'inbox'> = {
        isCut: false,
        isDead: false,
        isPaused: false,
        owedMs: 0,
        inbox: [],
      }
      const request = <T>(run: () => T): Promise<T> =>
        new Promise((resolve, reject) => {
          const there = random.below(networkMs)
          const back = random.below(networkMs)
          const chance = random.next()
          const isLost = state.isCut || chance < trouble
          const isDelayed = !state.isCut && chance < trouble / 3
          const giveUp = clock.after(requestMs, () =>
            reject(new Fault('unavailable', 'the primary database cannot be reached')),
          )
          if (isLost && !isDelayed) return
          world.after(isDelayed ? there + random.below(2 * requestMs) : there, () => {
            const result = run()
            if (chance > 1 - trouble) return
            world.after(back, () => {
              if (state.isCut || state.isDead) return
              const hear = (): void => {
                giveUp()
                resolve(result)
              }
              state.inbox.push(hear)
              if (!state.isPaused) goOn(node)
            })
          })
        })
      const store = {
        read: (query: Query) => request(() => ledger.read(query)),
        writeAside: (ops: readonly Query[]) =>
          request(() => {
            ledger.write(ops)
            noteRest()
          }),
      }
      const log = createTestLog()
      const budgets = createBudgets(
        {
          ...{ clock, log, env: options.env ?? {}, isAlone: !isShared },
          shares: createShares({ store, clock, log }, { isShared }),
          allowances: createAllowances({ store, clock }),
        },
        [plan],
      )
      const node: Node = Object.assign(state, { budgets, clock, pace })
      nodes.push(node)
      void budgets.start?.()
      return node
    },
    ask(node, { priority, deadlineMs, cancelMs }) {
      goOn(node)
      const abort = new AbortController()
      if (cancelMs !== undefined) node.clock.after(cancelMs, () => abort.abort())
      simulation.open++
      const run = async (): Promise<void> => {
        try {
          const grant = await node.budgets.take(plan.name, {
            ...{ priority, deadlineMs, signal: abort.signal },
          })
          count('granted')
          send(node, grant)
        } catch (thrown) {
          count(thrown instanceof Fault ? thrown.code : 'cancelled')
        }
        simulation.open--
      }
      void run()
    },
    units: () =>
      nodes
        .filter(({ isDead }) => !isDead)
        .reduce((sum, { budgets }) => sum + (budgets.stats()[0]?.keys[0]?.units ?? 0), 0),
    async step(ms) {
      // In small ones: what happens in one has one time.
      for (let left = ms; left > 0; left--) {
        world.advance(1)
        for (const node of nodes) advance(node)
        await new Promise<void>((resolve) => setImmediate(resolve))
      }
    },
  }

  const noteRest = (): void => {
    const [row] = ledger.read({ sql: selectRest, params: [] })
    const untilMs = Number(row?.[0] ?? 0) - world.now() + world.tick()
    if (row && untilMs > (rests.at(-1)?.untilMs ?? 0)) {
      rests.push({ writtenMs: world.tick(), untilMs })
    }
  }

  const advance = (node: Node): void => {
    if (node.isDead) return
    if (node.isPaused) node.owedMs += node.pace
    else {
      goOn(node)
      node.clock.advance(node.pace)
    }
  }

  /** After a pause, before anything else: it is as late as it is. */
  const goOn = (node: Node): void => {
    const { owedMs } = node
    node.owedMs = 0
    if (owedMs > 0) node.clock.jump(owedMs)
    for (const hear of node.inbox.splice(0)) hear()
  }

  /** What becomes of a call. */
  const send = (node: Node, grant: Grant): void => {
    const sentMs = world.tick()
    const span = (endMs: number): void =>
      void calls.push({ sentMs, endMs, key: grant.key ?? '', node: nodes.indexOf(node) })
    const [first, second] = [random.next(), random.next()]
    // No answer, and its sender forgets it.
    if (first < 0.03) return span(sentMs + timeoutMs)
    const ms = (isSlow ? 0.99 : second ** 3 * 0.95) * timeoutMs
    if (first < 0.08) {
      // Cancelled, and on its way all the same.
      node.clock.after(ms, () => grant.done({ failed: new Error('cancelled') }))
      return span(sentMs + timeoutMs)
    }
    // A node that is paused learns of it later.
    span(sentMs + ms / node.pace)
    const refused = { failed: new Error('refused'), isOver: true }
    const isLimited = limited > 0 && random.next() < limited
    const waitS = isLimited ? 2 + random.below(20) : 0
    const answered = isLimited
      ? { status: 429, headers: new Headers({ 'retry-after': String(waitS) }) }
      : { status: first < 0.15 ? 500 : 200, headers: new Headers() }
    node.clock.after(ms, () => grant.done(first < 0.13 ? refused : answered))
  }

  return simulation
}

const selectRest = `select max(until) from belfry_shares where holder = '' having max(until) > 0`

export interface Ledger {
  read(query: Query): RawRow[]
  write(ops: readonly Query[]): void
}

/** The statements of `src/store`, at the simulation's time. */
export function createLedger(world: TestClock): Ledger {
  const db = new Database(':memory:')
  db.exec(shares0006)
  const timed = (sql: string): string =>
    sql.replaceAll("unixepoch('subsec')", String(world.now() / 1_000))
  return {
    read: ({ sql, params }) => db.query(timed(sql)).values(...(params as string[])),
    write: db.transaction((ops: readonly Query[]) => {
      for (const { sql, params } of ops) db.query(timed(sql)).run(...(params as string[]))
    }),
  }
}
