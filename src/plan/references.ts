/**
 * What tables refer to each other by foreign keys. SQLite carries out `on delete cascade` and its kin by
 * itself, behind the log's back: a change of one table must then name the others it may have changed.
 */
import { getTableConfig, type SQLiteTable } from 'drizzle-orm/sqlite-core'
import { anyRowTag, tableTag } from '../store/store.ts'

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

export type AlsoTags = Readonly<Record<'update' | 'remove', readonly string[]>>

/** Tags of the rows that go, or change, with a row of `table`. */
export function alsoTagsOf(table: SQLiteTable, tables: readonly SQLiteTable[]): AlsoTags {
  const tagsOf = (act: 'onDelete' | 'onUpdate') => {
    const touched = new Set<SQLiteTable>()
    const visit = (parent: SQLiteTable): void => {
      for (const child of tables) {
        if (touched.has(child) || !follows(child, parent, act)) continue
        touched.add(child)
        visit(child)
      }
    }
    visit(table)
    return [...touched].flatMap((one) => {
      const { name } = getTableConfig(one)
      return [tableTag(name), anyRowTag(name)]
    })
  }
  return { remove: tagsOf('onDelete'), update: tagsOf('onUpdate') }
}

function follows(child: SQLiteTable, parent: SQLiteTable, act: 'onDelete' | 'onUpdate'): boolean {
  return getTableConfig(child).foreignKeys.some((key) => {
    const action = key[act]
    const isPassive = action === undefined || action === 'no action' || action === 'restrict'
    return !isPassive && key.reference().foreignTable === parent
  })
}
