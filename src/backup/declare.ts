/**
 * `backup` of an app: a verified, compressed copy of the database on a clock, taken while it is written
 * to. `belfry backup` makes one at any time, `belfry restore` puts one back.
 *
 * @example
 * import { app } from 'belfry'
 *
 * export default app({ name: 'notes', backup: { every: '24h', keep: 7 } })
 */
import type { Duration } from '../lib/duration.ts'

export interface BackupOptions {
  /** From one backup to the next, counted from the newest file, so that restarts do not matter. At least `1m`. Default `24h`. */
  readonly every?: Duration
  /** The newest so many are kept, 1 to 1000. Default 7. */
  readonly keep?: number
  /**
   * Where they are kept; a relative path is in the data folder. Default `backups`. A copy on the same disk
   * saves from mistakes, not from the disk: name a folder on another one, or have it copied away.
   */
  readonly folder?: string
}
