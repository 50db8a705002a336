/**
 * The log is written by the engine: triggers on every app table put one entry into `log` for each row
 * that is inserted, updated or deleted, in the statement's own transaction. So a cascade, an interactive
 * transaction, an import and another node's write are logged as surely as a POST, and none of them costs
 * a second statement. Pure; `migrate.ts` makes them and keeps them in step with the tables.
 *
 * An entry's `data` is `{"op":…,"row":{<column>: <driver value>}}`: the row as it is now, or as it was
 * when it went. Numbers keep all 17 digits (SQLite's own JSON functions print 15). A blob is told as hex,
 * an infinite number as null: JSON has neither. Of an update, `"was":[["<column>",<value>],…,0]` says what
 * was there before in columns that are others now, without the value of a blob or a long text.
 */
import { getTableConfig, type SQLiteColumn, type SQLiteTable } from 'drizzle-orm/sqlite-core'
import { primaryKey, quote, text } from './ddl.ts'

export interface LogTrigger {
  readonly name: string
  readonly sql: string
}

/** Triggers of this name are ours to make, to replace and to drop. */
export const triggerPrefix = 'belfry_'

/** Longer texts are not told as they were: rules look at names and states, and the log is to stay small. */
const wasLengthMax = 256

/** `json_object` takes at most 127 arguments (SQLITE_MAX_FUNCTION_ARG), two for each column. */
const columnsPerObject = 50

export function logTriggers(table: SQLiteTable): readonly LogTrigger[] {
  const { name, columns } = getTableConfig(table)
  const created = logInsert(name, 'create', rowJson('new', columns))
  const updated = logInsert(name, 'update', rowJson('new', columns), wasJson(columns))
  const removed = logInsert(name, 'remove', rowJson('old', columns))
  const sameKey = primaryKey(table)
    .map((column) => `old.${quote(column.name)} is new.${quote(column.name)}`)
    .join(' and ')
  const trigger = (kind: string, head: string, body: string): LogTrigger => {
    const full = `${triggerPrefix}${name}_${kind}`
    return { name: full, sql: `CREATE TRIGGER ${quote(full)} ${head} begin ${body} end` }
  }
  return [
    trigger('create', `after insert on ${quote(name)}`, created),
    trigger('update', `after update on ${quote(name)} when ${sameKey}`, updated),
    // A row under another key is, to whoever knows it by its key, one row gone and one come.
    trigger('rekey', `after update on ${quote(name)} when not (${sameKey})`, removed + created),
    trigger('remove', `after delete on ${quote(name)}`, removed),
  ]
}

function logInsert(table: string, op: string, row: string, was = ''): string {
  const before = was === '' ? '' : ` || ',"was":[' || ${was} || '0]'`
  return (
    'insert into log (at, kind, subject, tags, data) values ' +
    `(cast(unixepoch('subsec') * 1000 as integer), 'row', ${text(table)}, '[]', ` +
    `'{"op":"${op}","row":' || ${row}${before} || '}');`
  )
}

/** Each with a comma behind it; in groups, because an expression is at most 1,000 deep. */
function wasJson(columns: readonly SQLiteColumn[]): string {
  const pairs = columns.map((column) => {
    const [old, now] = [`old.${quote(column.name)}`, `new.${quote(column.name)}`]
    const name = text(column.name)
    const isLong = `typeof(${old}) = 'blob' or length(${old}) > ${wasLengthMax}`
    const pair = `json_array(${name}, ${valueJson('old', column)})`
    return `iif(${old} is ${now}, '', iif(${isLong}, json_array(${name}), ${pair}) || ',')`
  })
  const groups: string[] = []
  for (let at = 0; at < pairs.length; at += columnsPerObject) {
    groups.push(`(${pairs.slice(at, at + columnsPerObject).join(' || ')})`)
  }
  return groups.join(' || ')
}

/** One object; of a wide table's parts, joined where the one ends and the next begins. */
function rowJson(from: 'new' | 'old', columns: readonly SQLiteColumn[]): string {
  const parts: string[] = []
  for (let at = 0; at < columns.length; at += columnsPerObject) {
    const some = columns.slice(at, at + columnsPerObject)
    const pairs = some.map((column) => `${text(column.name)}, ${valueJson(from, column)}`)
    const object = `json_object(${pairs.join(', ')})`
    const isFirst = at === 0
    const isLast = at + columnsPerObject >= columns.length
    const head = isFirst ? object : `substr(${object}, 2)`
    parts.push(isLast ? head : `rtrim(${head}, '}') || ','`)
  }
  return parts.join(' || ')
}

function valueJson(from: 'new' | 'old', column: SQLiteColumn): string {
  const value = `${from}.${quote(column.name)}`
  const blob = `when 'blob' then hex(${value})`
  // A column of type text holds no number, whatever is put into it.
  if (column.getSQLType().toLowerCase().startsWith('text')) {
    return `case typeof(${value}) ${blob} else ${value} end`
  }
  const real = `iif(abs(${value}) <= 1.7976931348623157e308, json(format('%!.17g', ${value})), null)`
  return `case typeof(${value}) when 'real' then ${real} ${blob} else ${value} end`
}
