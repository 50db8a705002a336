/**
 * Follows the log, wherever its entries come from: own commits, a poll of the primary, a replica's sync.
 *
 *   accept([41, 42, 43])     applied = 41 ─► listeners hear 42, then 43 ─► applied = 43
 *
 * Invariants: listeners hear strictly by `seq`, each entry once, whoever brought it first; entries that can
 * no longer be had (pruned past us, or more than one answer holds) are a gap that is told, never skipped.
 */
import type { Log } from '../observe/log.ts'
import type { Change, ReadEntry } from './change.ts'
import type { LogEntry } from './messages.ts'

export type ChangeListener = (change: Change) => void
/** Everything up to `seq` may have changed. */
export type GapListener = (seq: number) => void

export interface Follower {
  /** The newest entry that listeners have heard of. */
  readonly applied: number
  /** In order, without holes. Answers with all of them as changes, also those heard of before. */
  accept(entries: readonly LogEntry[]): readonly Change[]
  /** Where it starts: nobody knows anything older. */
  begin(seq: number): void
  /** What is between is not to be had: from here on. */
  jump(seq: number): void
  onChange(listener: ChangeListener): void
  onGap(listener: GapListener): void
}

export function createFollower(deps: { readonly log: Log; readonly read: ReadEntry }): Follower {
  const { log, read } = deps
  const changeListeners: ChangeListener[] = []
  const gapListeners: GapListener[] = []
  let applied = 0

  /** A listener that throws is a bug in a room; the write has happened all the same and must be answered. */
  const tell = <T>(listeners: readonly ((value: T) => void)[], value: T, seq: number): void => {
    for (const listener of listeners) {
      try {
        listener(value)
      } catch (error) {
        log.error('store.listener_failed', { seq, error })
      }
    }
  }

  const jump = (seq: number): void => {
    applied = seq
    tell(gapListeners, seq, seq)
  }

  return {
    get applied() {
      return applied
    },
    accept(entries) {
      const changes = entries.map(read)
      for (const change of changes) {
        if (change.seq <= applied) continue
        if (change.seq > applied + 1) jump(change.seq - 1)
        applied = change.seq
        tell(changeListeners, change, change.seq)
      }
      return changes
    },
    begin: (seq) => void (applied = seq),
    jump,
    onChange: (listener) => void changeListeners.push(listener),
    onGap: (listener) => void gapListeners.push(listener),
  }
}
