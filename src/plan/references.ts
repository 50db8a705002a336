/** What tables refer to each other by foreign keys. */
import { getTableConfig, type SQLiteTable } from 'drizzle-orm/sqlite-core'

/** The tables, and those they refer to, each once and after the ones it refers to. */
export function withReferenced(tables: readonly SQLiteTable[]): SQLiteTable[] {
  const found = new Set<SQLiteTable>()
  const visit = (table: SQLiteTable, above: readonly SQLiteTable[]): void => {
    if (found.has(table) || above.includes(table)) return
    for (const key of getTableConfig(table).foreignKeys) {
      visit(key.reference().foreignTable, [...above, table])
    }
    found.add(table)
  }
  for (const table of tables) visit(table, [])
  return [...found]
}
