/** `belfry import`: JSON lines into a collection, by the server if one has the folder, else by a store of its own. */
import { createReadStream, existsSync } from 'node:fs'
import {
  createRowWriter,
  importBatchLines,
  importLines,
  type CollectionPlan,
  type Imported,
  type LineProblem,
} from '../collections/collections.ts'
import type { Config } from '../config.ts'
import { Fault } from '../fault.ts'
import { systemClock } from '../lib/clock.ts'
import { createLog } from '../observe/log.ts'
import { createStore } from '../store/store.ts'
import { appSource, parseOptions } from './args.ts'
import type { Verb } from './cli.ts'
import { slicesOf, type Slice } from './lines.ts'
import { findServer } from './local.ts'
import { collectionOf, createProgress, targetOf, type Target } from './target.ts'

/** Wrong lines that are shown. */
const shownMax = 20

export const importVerb: Verb = {
  usage: 'import <app.ts>|--app <name> --collection <path> <file.jsonl|-> [--skip-invalid]',
  about: 'insert or update rows by primary key from JSON lines; stops at the first wrong ones',
  async run(args) {
    const { values, positionals } = parseOptions('import', {
      args: [...args],
      options: {
        app: { type: 'string' },
        collection: { type: 'string' },
        'skip-invalid': { type: 'boolean', default: false },
      },
      allowPositionals: true,
    })
    const file = positionals.at(-1)
    if (file === undefined) throw new Fault('invalid', 'say what to import: a file, or - for stdin')
    if (file !== '-' && !existsSync(file)) throw new Fault('not_found', `there is no file ${file}`)
    const target = await targetOf(appSource(positionals.slice(0, -1), values.app))
    if (values.collection === undefined) {
      throw new Fault('invalid', 'say where to: --collection <path>')
    }
    const plan = collectionOf(target.plan, values.collection)
    const skipInvalid = values['skip-invalid']
    await using into = await openTarget(target, plan, skipInvalid)
    const source = file === '-' ? Bun.stdin.stream() : createReadStream(file)
    return report(plan, skipInvalid, await importAll(source, plan, into.take))
  },
}

interface Importing extends AsyncDisposable {
  take(slice: Slice): Promise<Imported>
}

async function openTarget(
  target: Target,
  plan: CollectionPlan,
  skipInvalid: boolean,
): Promise<Importing> {
  const server = await findServer(target.config, target.plan.name)
  if (server) {
    return {
      async take({ body, firstLine }) {
        const path = `/import/${plan.path}?line=${firstLine}&skip_invalid=${skipInvalid}`
        return (await server.post(path, body, 'application/jsonl')) as Imported
      },
      async [Symbol.asyncDispose]() {},
    }
  }
  const clock = systemClock
  const log = createLog({ level: 'warn', now: clock.now })
  const store = createStore(
    { clock, log },
    { database: withoutCopies(target.config), tables: target.plan.tables, readers: 1 },
  )
  try {
    await store.start()
  } catch (cause) {
    await store.stop()
    throw cause
  }
  const rows = createRowWriter(store)
  return {
    take: ({ body, firstLine }) => importLines(rows, plan, body, { firstLine, skipInvalid }),
    [Symbol.asyncDispose]: async () => await store.stop(),
  }
}

/** Replicas follow by themselves: their files and servers are for those who read. */
function withoutCopies({ database }: Config): Config['database'] {
  const { kind } = database
  if (kind === 'file') return { ...database, replicas: [] }
  return { kind, primary: database.primary, replicas: [] }
}

async function importAll(
  source: AsyncIterable<Uint8Array>,
  plan: CollectionPlan,
  take: Importing['take'],
): Promise<Imported> {
  const progress = createProgress(systemClock.tick)
  const sum = { rows: 0, changed: 0, wrong: 0 }
  const problems: LineProblem[] = []
  let stoppedAt: number | undefined
  for await (const slice of slicesOf(source, importBatchLines)) {
    const one = await take(slice)
    sum.rows += one.rows
    sum.changed += one.changed
    sum.wrong += one.wrong
    problems.push(...one.problems.slice(0, shownMax - problems.length))
    stoppedAt = one.stoppedAt
    if (stoppedAt !== undefined) break
    progress(plan.path, sum.rows)
  }
  return { ...sum, problems, stoppedAt }
}

function report(
  plan: CollectionPlan,
  skipInvalid: boolean,
  { rows, changed, wrong, problems, stoppedAt }: Imported,
): number {
  for (const { line, message } of problems) console.error(`line ${line}: ${message}`)
  if (wrong > problems.length) console.error(`… and ${wrong - problems.length} more wrong lines`)
  console.log(
    `${plan.path}: ${rows.toLocaleString('en')} rows, ${changed.toLocaleString('en')} of them new or different`,
  )
  if (stoppedAt !== undefined) {
    console.error(`stopped: nothing was imported from line ${stoppedAt} on`)
    console.error('  hint: mend the lines and import again, or pass over them with --skip-invalid')
    return 1
  }
  if (skipInvalid && wrong > 0)
    console.error(`${wrong.toLocaleString('en')} lines were passed over`)
  return 0
}
