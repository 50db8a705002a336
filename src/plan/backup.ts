/** The declared backup, checked. */
import type { BackupOptions } from '../backup/declare.ts'
import {
  everyDefaultMs,
  everyMsMin,
  keepDefault,
  keepMax,
  type BackupPlan,
} from '../backup/backup.ts'
import { checkOptions, durationOf, type Report } from './report.ts'

const known = { served: ['every', 'keep', 'folder'], notYet: [] }

export function compileBackup(
  declared: BackupOptions | undefined,
  report: Report,
): BackupPlan | undefined {
  if (declared === undefined) return undefined
  if (typeof declared !== 'object' || declared === null) {
    report('backup', "must be { every: '24h', keep: 7, folder: 'backups' }, each of them optional")
    return undefined
  }
  checkOptions('backup.', declared, known, report)
  const { every, keep = keepDefault, folder } = declared
  const everyMs = durationOf(every, 'backup.every', everyDefaultMs, report)
  if (everyMs < everyMsMin) report('backup.every', `must be at least ${everyMsMin / 1000}s`)
  if (!Number.isInteger(keep) || keep < 1 || keep > keepMax) {
    report('backup.keep', `must be an integer from 1 to ${keepMax}`)
  }
  if (folder !== undefined && (typeof folder !== 'string' || folder === '')) {
    report('backup.folder', 'must be the path of a folder')
  }
  return Object.freeze({ everyMs, keep, folder })
}
