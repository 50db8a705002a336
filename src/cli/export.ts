/** `belfry export`: collections as JSON lines, all of one moment, while a server goes on or without one. */
import { mkdir, open, rename, rm, type FileHandle } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { exportRows, type CollectionPlan } from '../collections/collections.ts'
import { Fault } from '../fault.ts'
import { systemClock } from '../lib/clock.ts'
import { openPinned } from '../store/store.ts'
import { appSource, parseOptions } from './args.ts'
import type { Verb } from './cli.ts'
import { collectionOf, createProgress, targetOf, type Target } from './target.ts'

export const exportVerb: Verb = {
  usage: 'export <app.ts>|--app <name> [--collection <path>]… [--to <folder>|-]',
  about: 'write collections as JSON lines, one file each; default: all, to ./<app>-export',
  async run(args) {
    const { values, positionals } = parseOptions('export', {
      args: [...args],
      options: {
        app: { type: 'string' },
        collection: { type: 'string', multiple: true },
        to: { type: 'string' },
      },
      allowPositionals: true,
    })
    const target = await targetOf(appSource(positionals, values.app))
    const chosen = values.collection?.map((path) => collectionOf(target.plan, path))
    const collections = chosen ?? target.plan.collections
    const to = values.to ?? `${target.plan.name}-export`
    if (to === '-' && collections.length !== 1) {
      throw new Fault(
        'invalid',
        'to stdout goes one collection: choose it with --collection <path>',
      )
    }
    await exportAll(target, collections, to)
    return 0
  },
}

type Write = (text: string) => Promise<void>

async function exportAll(
  { config }: Target,
  collections: readonly CollectionPlan[],
  to: string,
): Promise<void> {
  const pinned = await openPinned({ clock: systemClock }, config.database)
  if (!pinned.isOneMoment) {
    console.error('the database is on a server: what is written meanwhile may be in it, or not')
  }
  try {
    for (const plan of collections) {
      const rowsTo = (write: Write) => exportOne(pinned.read, plan, write)
      if (to === '-') await rowsTo(writeStdout)
      else await intoFile(join(resolve(to), `${plan.path}.jsonl`), rowsTo)
    }
  } finally {
    await pinned.close()
  }
}

async function exportOne(
  read: Parameters<typeof exportRows>[0],
  plan: CollectionPlan,
  write: Write,
): Promise<void> {
  const progress = createProgress(systemClock.tick)
  let total = 0
  for await (const { text, rows } of exportRows(read, plan)) {
    await write(text)
    total += rows
    progress(plan.path, total)
  }
  console.error(`${plan.path}: ${total.toLocaleString('en')} rows`)
}

/** Under its name only when it is whole. */
async function intoFile(path: string, run: (write: Write) => Promise<void>): Promise<void> {
  const part = `${path}.part`
  let file: FileHandle | undefined
  try {
    await mkdir(dirname(path), { recursive: true })
    file = await open(part, 'w')
    const opened = file
    await run((text) => opened.appendFile(text))
    await file.sync()
    await file.close()
    await rename(part, path)
    console.log(path)
  } catch (cause) {
    await file?.close().catch(() => {})
    await rm(part, { force: true }).catch(() => {})
    if (cause instanceof Fault) throw cause
    throw new Fault('unavailable', `${path} cannot be written: ${String(cause)}`, { cause })
  }
}

/** Resolves when the reader has taken it: an export of any size needs the memory of one page. */
function writeStdout(text: string): Promise<void> {
  return new Promise((done, fail) => {
    process.stdout.write(text, (error) => (error ? fail(error) : done()))
  })
}
