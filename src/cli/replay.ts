/**
 * `belfry replay`: what a topic said, said again in another, with the pauses that were between, at any speed. The
 * running server has the topics; this has the clock.
 */
import { Fault } from '../fault.ts'
import { systemClock, wait } from '../lib/clock.ts'
import { timeOf } from '../lib/time.ts'
import type { Realtime } from '../realtime/realtime.ts'
import { appSource, parseOptions } from './args.ts'
import type { Verb } from './cli.ts'
import { findServer, requireServer, type LocalServer } from './local.ts'
import { targetOf } from './target.ts'

type Page = Awaited<ReturnType<Realtime['replay']>>
type Said = Page['publications'][number]

/** Publications that are asked for, and said, at once. */
const pageMax = 500

/** Characters of data said at once: publications may have 64 KB. */
const sayLengthMax = 1_000_000

/** A pause is slept through in steps, so that what is late is said together and no timer is asked for less. */
const stepMsMin = 5

export const replay: Verb = {
  usage:
    'replay <app.ts>|--app <name> <topic> --into <topic> [--since <time>] [--until <time>] [--speed 10|max]',
  about:
    'say again in --into what a topic said, with its pauses divided by --speed (1), or without any (max);\n' +
    '      times are ISO 8601 with a zone, or ms since 1970; all that a topic keeps by default',
  async run(args) {
    const { values, positionals } = parseOptions('replay', {
      args: [...args],
      options: {
        app: { type: 'string' },
        into: { type: 'string' },
        since: { type: 'string' },
        until: { type: 'string' },
        speed: { type: 'string', default: '1' },
      },
      allowPositionals: true,
    })
    const { app, into, since, until, speed } = values
    const from = positionals.at(-1)
    if (from === undefined || (app === undefined && positionals.length < 2)) {
      throw new Fault('invalid', 'say of which app, and which topic')
    }
    if (into === undefined) throw new Fault('invalid', 'say where to: --into <topic>')
    if (into === from) throw new Fault('invalid', 'a topic is not replayed into itself')
    const range = { since: timeOption('since', since), until: timeOption('until', until) }
    const times = speedOf(speed)
    const { plan, config } = await targetOf(appSource(positionals.slice(0, -1), app))
    const server = requireServer(await findServer(config, plan.name))
    const count = await sayAgain(server, { from, into, range, speed: times })
    console.log(`${count.toLocaleString('en')} publications of ${from} were said again in ${into}`)
    return 0
  },
}

interface Wanted {
  readonly from: string
  readonly into: string
  readonly range: { readonly since: number | undefined; readonly until: number | undefined }
  /** Infinity: without pauses. */
  readonly speed: number
}

async function sayAgain(
  server: LocalServer,
  { from, into, range, speed }: Wanted,
): Promise<number> {
  const say = async (publications: readonly Said[]): Promise<void> => {
    // The data is JSON text already.
    const body = `{"topic":${JSON.stringify(into)},"data":[${publications.map(({ data }) => data).join(',')}]}`
    await server.post('/say', body)
  }
  const startedAt = systemClock.tick()
  let firstAtMs: number | undefined
  let count = 0
  let after: number | undefined
  do {
    const asked = JSON.stringify({ topic: from, ...range, after, limit: pageMax })
    const page = (await server.post('/said', asked)) as Page
    firstAtMs ??= page.publications[0]?.atMs
    const dueMs = ({ atMs }: Said): number => (atMs - (firstAtMs ?? atMs)) / speed
    let left: readonly Said[] = page.publications
    for (let first = left[0]; first; first = left[0]) {
      const waitMs = startedAt + dueMs(first) - systemClock.tick()
      if (waitMs > 0) await wait(Math.max(stepMsMin, waitMs))
      const now = systemClock.tick() - startedAt
      let length = first.data.length
      let size = 1
      for (; size < left.length; size += 1) {
        const next = left[size]
        if (!next || dueMs(next) > now || (length += next.data.length) > sayLengthMax) break
      }
      await say(left.slice(0, size))
      count += size
      left = left.slice(size)
    }
    after = page.next
  } while (after !== undefined)
  return count
}

function timeOption(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const ms = timeOf(text)
  if (ms !== undefined) return ms
  throw new Fault('invalid', `--${name} ${text} is neither ISO 8601 with a zone nor ms since 1970`)
}

function speedOf(text: string): number {
  if (text === 'max') return Infinity
  const speed = Number(text)
  if (/^\d{1,6}(\.\d{1,3})?$/.test(text) && speed > 0) return speed
  throw new Fault('invalid', `--speed ${text} is neither a number above 0 nor max`)
}
