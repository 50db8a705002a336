/**
 * Tables that change at random, several things at once, with rows in them and rows that refer to others:
 * after each migration stored is declared, and no value is lost that was not given up.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import Database from 'libsql'
import { index, integer, real, sqliteTable, text, type SQLiteTable } from 'drizzle-orm/sqlite-core'
import { systemClock } from '../../src/lib/clock.ts'
import { applyMigration, planMigration } from '../../src/store/migrate.ts'
import { openMigrationDb, type OpenMigrationDb } from '../../src/store/migration-db.ts'
import { tempFolder, type TempFolder } from '../harness.ts'
import { createRandom, type Random } from '../lib/random.ts'

type Type = 'integer' | 'text' | 'real'

interface Column {
  /** Changes by renaming; values in the model are kept by the object. */
  name: string
  type: Type
  isNotNull: boolean
  fallback: number | undefined
  isUnique: boolean
  isIndexed: boolean
  readonly refersTo: Table | undefined
}

interface Table {
  name: string
  columns: Column[]
  readonly rows: Map<number, Map<Column, number | null>>
}

/** What a step did, as its operator would say it. */
interface Said {
  readonly rename: [Table, string, Column][]
  readonly renameTable: string[]
  readonly drop: [Table, string][]
  readonly dropTable: string[]
}

const steps = 7
const seeds = [1, 2, 3, 4, 5, 6, 7, 8]

let folder: TempFolder
beforeAll(() => void (folder = tempFolder()))
afterAll(() => folder[Symbol.dispose]())

for (const seed of seeds) {
  test(`seed ${seed}`, async () => {
    const random = createRandom(seed)
    const file = folder.file(`${seed}/a.db`)
    const options = { kind: 'file', file, replicas: [] } as const
    const opened = await openMigrationDb({ clock: systemClock }, options, 'write')
    await applyMigration(opened.db, [])
    const world: Table[] = []
    let names = 0
    const fresh = (): string => `n${names++}`
    for (let step = 0; step < steps; step++) {
      const said: Said = { rename: [], renameTable: [], drop: [], dropTable: [] }
      const touched = new Set<unknown>()
      for (let times = random.below(5) + 1; times > 0; times--) {
        change(random, world, said, touched, fresh)
      }
      await settle(opened, world, said)
      const db = new Database(file)
      db.exec('pragma foreign_keys = on')
      fill(random, world, db)
      check(world, db)
      db.close()
    }
    await opened.stop()
  }, 60_000)
}

/** One change of one table or column. What has changed in this step is left alone, but for its neighbours. */
function change(
  random: Random,
  world: Table[],
  said: Said,
  touched: Set<unknown>,
  fresh: () => string,
): void {
  if (world.length === 0 || random.below(6) === 0) {
    const table: Table = { name: fresh(), columns: [], rows: new Map() }
    for (let n = random.below(4); n >= 0; n--) addColumn(random, world, table, fresh)
    world.push(table)
    touched.add(table)
    return
  }
  const table = random.pick(world)
  const free = table.columns.filter((column) => !touched.has(column))
  const [column] = free.length > 0 ? [random.pick(free)] : []
  switch (random.below(8)) {
    case 0: {
      const isReferred = world.some(({ columns }) => columns.some((one) => one.refersTo === table))
      if (isReferred || touched.has(table)) return
      world.splice(world.indexOf(table), 1)
      said.dropTable.push(table.name)
      return
    }
    case 1: {
      if (touched.has(table)) return
      touched.add(table)
      const from = table.name
      table.name = fresh()
      said.renameTable.push(`${from}=${table.name}`)
      return
    }
    case 2:
      touched.add(addColumn(random, world, table, fresh))
      return
    case 3: {
      if (!column || touched.has(table)) return
      touched.add(column)
      table.columns.splice(table.columns.indexOf(column), 1)
      said.drop.push([table, column.name])
      return
    }
    case 4:
    case 5: {
      if (!column || touched.has(table)) return
      touched.add(column)
      said.rename.push([table, column.name, column])
      column.name = fresh()
      return
    }
    case 6: {
      if (!column || column.refersTo) return
      column.type = random.pick(['integer', 'text', 'real'])
      return
    }
    default: {
      if (!column || column.refersTo) return
      column.isIndexed = random.below(2) === 0
      column.isUnique = !column.isNotNull && random.below(2) === 0
      if (column.isUnique || random.below(2) === 0) return
      column.isNotNull = !column.isNotNull
      column.fallback = column.isNotNull ? random.below(100) : undefined
      for (const row of table.rows.values()) {
        if (column.isNotNull) row.set(column, row.get(column) ?? column.fallback ?? null)
      }
    }
  }
}

function addColumn(random: Random, world: Table[], table: Table, fresh: () => string): Column {
  const refersTo = random.below(4) === 0 ? random.pick([...world, table]) : undefined
  const isNotNull = !refersTo && random.below(3) === 0
  const fallback = isNotNull ? random.below(100) : undefined
  const column: Column = {
    name: fresh(),
    type: refersTo ? 'integer' : random.pick(['integer', 'text', 'real']),
    isNotNull,
    fallback,
    isUnique: !isNotNull && !refersTo && random.below(5) === 0,
    isIndexed: random.below(3) === 0,
    refersTo,
  }
  table.columns.push(column)
  for (const row of table.rows.values()) row.set(column, fallback ?? null)
  return column
}

async function settle({ db }: OpenMigrationDb, world: readonly Table[], said: Said) {
  const tables = declare(world)
  const stays = ([table]: readonly [Table, ...unknown[]]): boolean => world.includes(table)
  const answers = {
    rename: said.rename
      .filter(stays)
      .map(([table, from, to]) => `${table.name}.${from}=${to.name}`),
    renameTable: said.renameTable,
    drop: said.drop.filter(stays).map(([table, name]) => `${table.name}.${name}`),
    dropTable: said.dropTable,
    dropIndex: [] as string[],
    newTable: [] as string[],
  }
  const { questions, notes } = await planMigration(db, tables, answers)
  for (const one of questions) answers.newTable.push(/--new-table (\w+)$/.exec(one)?.[1] ?? one)
  await applyMigration(db, tables, answers)
  expect(notes.filter((note) => note.startsWith('table'))).toEqual([])
  const after = await planMigration(db, tables)
  expect([after.changes, after.questions, after.isInStep]).toEqual([[], [], true])
  expect(await applyMigration(db, tables)).toEqual([])
}

function declare(world: readonly Table[]): SQLiteTable[] {
  const made = new Map<Table, SQLiteTable>()
  const build = (column: Column) => {
    const { name, type, fallback, isNotNull, isUnique, refersTo } = column
    if (refersTo) {
      return integer(name).references((): never => (made.get(refersTo) as never)['id'], {
        onDelete: 'cascade',
      })
    }
    const bare = ({ integer, real, text } as unknown as Record<Type, typeof integer>)[type](name)
    const unique = isUnique ? bare.unique() : bare
    if (!isNotNull) return unique
    return unique.notNull().default((type === 'text' ? String(fallback) : fallback) as number)
  }
  for (const table of world) {
    const columns = table.columns.map((column) => [column.name, build(column)])
    made.set(
      table,
      sqliteTable(
        table.name,
        { id: integer().primaryKey({ autoIncrement: true }), ...Object.fromEntries(columns) },
        (t) =>
          table.columns
            .filter(({ isIndexed }) => isIndexed)
            .map(({ name }) => index(`${name}_index`).on((t as never)[name])),
      ),
    )
  }
  return [...made.values()]
}

/** Some rows more, which refer to rows that are there. */
function fill(random: Random, world: readonly Table[], db: Database.Database): void {
  for (const table of world) {
    for (let more = random.below(3); more > 0; more--) {
      const values = new Map<Column, number | null>()
      for (const column of table.columns) {
        const ids = column.refersTo ? [...column.refersTo.rows.keys()] : []
        const some = column.refersTo
          ? ids.length > 0
            ? random.pick(ids)
            : null
          : random.below(1e9)
        values.set(column, column.isNotNull || random.below(4) > 0 ? some : null)
      }
      const columns = [...values.keys()].map(({ name }) => `"${name}"`)
      const list =
        columns.length > 0
          ? `(${columns.join(', ')}) values (${columns.map(() => '?').join(', ')})`
          : 'default values'
      const bound = [...values].map(([{ type }, value]) =>
        value !== null && type === 'text' ? String(value) : value,
      )
      const { lastInsertRowid } = db.prepare(`insert into "${table.name}" ${list}`).run(bound)
      table.rows.set(Number(lastInsertRowid), values)
    }
  }
}

function check(world: readonly Table[], db: Database.Database): void {
  const all = (sql: string) => db.prepare(sql).raw(true).all() as unknown[][]
  for (const { name, columns, rows } of world) {
    const list = ['id', ...columns.map((column) => column.name)].map((one) => `"${one}"`).join(', ')
    const stored = all(`select ${list} from "${name}" order by id`)
    const numbers = stored.map((row) => row.map((one) => (one === null ? null : Number(one))))
    const wanted = [...rows]
      .toSorted(([a], [b]) => a - b)
      .map(([id, row]) => [id, ...columns.map((column) => row.get(column) ?? null)])
    expect(numbers).toEqual(wanted)
    for (const column of columns) {
      const types = all(`select distinct typeof("${column.name}") from "${name}"`).flat()
      expect(types.filter((type) => type !== 'null' && type !== column.type)).toEqual([])
    }
  }
  expect(all('pragma foreign_key_check')).toEqual([])
  expect(all("select count(*) from sqlite_schema where type = 'trigger'")).toEqual([
    [world.length * 4],
  ])
}
