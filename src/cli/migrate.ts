/**
 * `belfry migrate`: how the stored tables differ from the app's, what would be done about it, and doing
 * it. `status` and `plan` only look, also while a server runs; `apply` needs the data folder for itself.
 */
import { readConfig } from '../config.ts'
import { Fault } from '../fault.ts'
import { systemClock } from '../lib/clock.ts'
import { compilePlan } from '../plan/plan.ts'
import {
  answerFlags,
  applyMigration,
  openMigrationDb,
  planMigration,
  type AnswerKind,
  type DatabaseOptions,
  type MigrationAnswers,
  type MigrationReport,
} from '../store/store.ts'
import { appSource, parseOptions } from './args.ts'
import type { Verb } from './cli.ts'
import { loadApp } from './load.ts'

const actions = ['status', 'plan', 'apply'] as const

type Action = (typeof actions)[number]

export const migrate: Verb = {
  usage: 'migrate status|plan|apply <app.ts> | --app <name>',
  about: `bring the stored tables to the app's. To plan and apply:
      ${Object.values(answerFlags)
        .map(({ flag, form }) => `[${flag} ${form}]…`)
        .join(' ')}`,
  async run(args) {
    const { action, source, answers } = parse(args)
    const { name, tables } = compilePlan(await loadApp(source))
    const { database } = readConfig(name)
    const where = whereIs(database)
    const access = action === 'apply' ? 'write' : 'look'
    const { db, stop } = await openMigrationDb({ clock: systemClock }, database, access)
    try {
      if (action === 'apply') {
        const statements = await applyMigration(db, tables, answers)
        console.log(statements.map((one) => `${one};\n`).join('') + `${name} is in step: ${where}`)
        return 0
      }
      const report = await planMigration(db, tables, answers)
      console.log([`database ${where}`, ...describe[action](report)].join('\n'))
      if (action === 'status') return report.isInStep ? 0 : 1
      if (report.unmatched.length > 0) return 2
      return report.questions.length + report.blocked.length > 0 ? 1 : 0
    } finally {
      await stop()
    }
  },
}

function whereIs(database: DatabaseOptions): string {
  return database.kind === 'file' ? database.file : new URL(database.primary.url).host
}

function parse(args: readonly string[]) {
  const many = { type: 'string', multiple: true } as const
  const { values, positionals } = parseOptions('migrate', {
    args: [...args],
    options: {
      app: { type: 'string' },
      rename: many,
      'rename-table': many,
      drop: many,
      'drop-table': many,
      'drop-index': many,
      'new-table': many,
    },
    allowPositionals: true,
  })
  const [wanted, ...rest] = positionals
  const action = actions.find((one) => one === wanted)
  if (!action) throw new Fault('invalid', `say what: migrate ${actions.join(', ')}`)
  const answers: Required<MigrationAnswers> = {
    rename: values.rename,
    renameTable: values['rename-table'],
    drop: values.drop,
    dropTable: values['drop-table'],
    dropIndex: values['drop-index'],
    newTable: values['new-table'],
  }
  const given = (Object.keys(answers) as AnswerKind[]).find((kind) => answers[kind] !== undefined)
  if (action === 'status' && given) {
    throw new Fault('invalid', `migrate status takes no ${answerFlags[given].flag}`)
  }
  return { action, source: appSource(rest, values.app), answers }
}

const describe: Readonly<Record<Exclude<Action, 'apply'>, (report: MigrationReport) => string[]>> =
  {
    status(report) {
      const { changes, notes, questions, isInStep } = report
      return [
        ...system(report),
        ...changes.map(
          ({ table, problem, kind }) => `  table ${table}: ${problem} (${kinds[kind].name})`,
        ),
        ...section('stored and not declared', notes),
        ...section('asked', questions),
        isInStep ? 'in step' : 'differs: belfry migrate plan shows what is to be done',
      ]
    },
    plan(report) {
      const { changes, notes, questions, blocked, unmatched, isInStep } = report
      const lines = system(report)
      for (const kind of Object.keys(kinds) as (keyof typeof kinds)[]) {
        const some = changes.filter((one) => one.kind === kind)
        if (some.length === 0) continue
        lines.push('', `${kinds[kind].name}: ${kinds[kind].about}`)
        for (const { table, problem, statements, losses } of some) {
          lines.push(`  table ${table}: ${problem}`)
          lines.push(...losses.map((one) => `    LOSES ${one}`))
          lines.push(...statements.map((one) => `    ${one.replaceAll('\n', '\n    ')};`))
        }
      }
      lines.push(
        ...section('stored and not declared', notes),
        ...section('asked: apply needs an answer to each', questions),
        ...section('in the way: mend these rows first', blocked),
        ...section('answers to nothing', unmatched),
        ...(isInStep ? ['', 'in step: nothing to do'] : []),
      )
      return lines
    },
  }

const kinds = {
  additive: { name: 'additive', about: 'done by every start' },
  rename: { name: 'rename', about: 'keeps all data' },
  rebuild: { name: 'rebuild', about: 'keeps all rows; a table is copied, an index made again' },
  losing: { name: 'losing data', about: 'needs an answer for each' },
}

function system({ system: { version, newest }, triggers }: MigrationReport): string[] {
  const behind = version < newest ? `, ${newest} after the next start or apply` : ''
  const stale = `log triggers: ${triggers} to be made again by the next start or apply`
  return [`belfry's own tables: version ${version}${behind}`, ...(triggers > 0 ? [stale] : [])]
}

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ['', `${title}`, ...lines.map((one) => `  ${one}`)]
}
