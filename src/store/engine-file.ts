/**
 * The engine over a file: group commit, and interactive transactions, on the one connection that writes.
 *
 * Every write that waited meanwhile shares one transaction, each in its savepoint, so that one bad write
 * is undone alone. If the transaction itself cannot be committed, none happened.
 */
import type { Engine } from './engine.ts'
import { ended, entriesAfter, selectSeq } from './engine.ts'
import { storeErrorOf, type Connection } from './libsql.ts'
import type { Committed, LogEntry, Logged, Write, WriteOutcome } from './messages.ts'

export function createFileEngine(db: Connection, isWriter: boolean): Engine {
  const step = (sql: string): void => void db.all({ sql, params: [] })
  const newestSeq = (): number => Number(db.all({ sql: selectSeq, params: [] })[0]?.[0])
  const logged = (after: number, upTo: number): Logged => {
    const entries = upTo > after ? db.all(entriesAfter(after)) : []
    return { entries: entries as unknown as LogEntry[], upTo }
  }

  const transaction = <T>(run: () => T): T => {
    step('begin immediate')
    try {
      const result = run()
      step('commit')
      return result
    } catch (thrown) {
      // A full disk, say, has rolled back already; a second rollback would hide the reason.
      if (db.inTransaction) step('rollback')
      throw thrown
    }
  }

  const savepoint = (write: Write, from: number): WriteOutcome => {
    step('savepoint w')
    try {
      for (const op of write) db.all(op)
      step('release w')
      return { from, upTo: newestSeq() }
    } catch (thrown) {
      // The engine may have ended the whole transaction: then earlier writes of the group are gone
      // too, and answering them with success would lose an acknowledged write.
      if (!db.inTransaction) throw thrown
      step('rollback to w')
      step('release w')
      return { error: storeErrorOf(thrown) }
    }
  }

  return {
    read: (query) => db.all(query),
    commit(writes, after): Committed {
      try {
        return transaction(() => {
          let from = newestSeq()
          const outcomes = writes.map((write) => {
            const outcome = savepoint(write, from)
            if ('upTo' in outcome) from = outcome.upTo
            return outcome
          })
          return { outcomes, ...logged(after, from) }
        })
      } catch (thrown) {
        const error = storeErrorOf(thrown)
        return { outcomes: writes.map(() => ({ error })), entries: [], upTo: after }
      }
    },
    begin({ foreignKeys }) {
      // Inside a transaction this pragma does nothing.
      if (foreignKeys === 'off') step('pragma foreign_keys = off')
      try {
        step('begin immediate')
      } catch (thrown) {
        step('pragma foreign_keys = on')
        throw thrown
      }
    },
    run(query) {
      // A full disk or `or rollback` may have ended it: what comes then would be committed alone.
      if (!db.inTransaction) throw ended()
      return db.all(query)
    },
    end(how, after) {
      try {
        const seen = how === 'commit' ? logged(after, newestSeq()) : { entries: [], upTo: after }
        if (how === 'commit' || db.inTransaction) step(how)
        return seen
      } catch (thrown) {
        if (db.inTransaction) step('rollback')
        throw thrown
      } finally {
        step('pragma foreign_keys = on')
      }
    },
    close() {
      // The last to be closed: the file is whole without its WAL then, and can be copied.
      if (isWriter) db.all({ sql: 'pragma wal_checkpoint(truncate)', params: [] })
      db.close()
    },
  }
}
