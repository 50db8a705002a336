/**
 * Loads the bank into an empty database, one batch per tick, while the server already answers. A batch and
 * its number are one transaction, so a stop or a crash at any moment is gone on from; once all are stored a
 * tick asks nothing. Another version of the files is loaded over the one before: changed rows only.
 */
import { eq } from 'drizzle-orm'
import type { FeedContext, ReadDb } from '../kit.ts'
import { bankBatches, bankVersion, readBank, type BankBatch } from './exams-bank.ts'
import { bankLoads } from './exams-tables.ts'

export interface BankTick extends BankBatch {
  readonly bank: readonly (typeof bankLoads.$inferInsert)[]
}

interface Progress {
  readonly version: string
  isLoaded: boolean
  /** Held only while there is something to load. */
  batches: readonly BankBatch[]
}

/** By database: one process may serve several. */
const known = new WeakMap<ReadDb, Progress>()

/** The next batch that is not stored; null when all are. */
export async function loadBank({ db }: Pick<FeedContext, 'db'>): Promise<BankTick | null> {
  const progress = known.get(db) ?? { version: await bankVersion(), isLoaded: false, batches: [] }
  known.set(db, progress)
  if (progress.isLoaded) return null

  const { version } = progress
  const [stored] = await db.select().from(bankLoads).where(eq(bankLoads.version, version))
  if (stored && stored.batches >= stored.total) {
    progress.isLoaded = true
    progress.batches = []
    return null
  }
  if (progress.batches.length === 0) progress.batches = bankBatches(await readBank())
  const total = progress.batches.length
  const next = stored?.batches ?? 0
  const batch = progress.batches[next]
  return batch ? { ...batch, bank: [{ version, batches: next + 1, total }] } : null
}
