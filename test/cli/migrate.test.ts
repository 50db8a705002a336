import { describe, expect, test } from 'bun:test'
import { existsSync, writeFileSync } from 'node:fs'
import { systemMigrations } from '../../db/system.ts'
import { tempFolder, type TempFolder } from '../harness.ts'
import { runBelfry, spawnBelfry } from '../process.ts'

const appFile = (columns: string): string => `
import { app, collection } from 'belfry'
import { integer, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
const notes = sqliteTable('notes', { id: integer().primaryKey(), ${columns} })
export default app({ name: 'notes', collections: { notes: collection(notes, { read: 'public', create: 'public' }) } })
`

async function post(url: string, body: object): Promise<number> {
  const headers = { 'content-type': 'application/json' }
  return (await fetch(`${url}/api/notes`, { method: 'POST', headers, body: JSON.stringify(body) }))
    .status
}

const migrateIn =
  ({ path: cwd }: TempFolder) =>
  (...args: string[]) =>
    runBelfry({ args: ['migrate', ...args], cwd })

const newest = systemMigrations.at(-1)?.version ?? 0

describe('belfry migrate', () => {
  test('looks without making anything, applies, and then is in step', async () => {
    using folder = tempFolder()
    writeFileSync(folder.file('app.ts'), appFile('text: text()'))
    const migrate = migrateIn(folder)
    const before = await migrate('status', 'app.ts')
    expect(before).toMatchObject({ exitCode: 1, stderr: '' })
    expect(before.stdout.replaceAll(folder.path, '')).toBe(`database /data/notes.db
belfry's own tables: version 0, ${newest} after the next start or apply
log triggers: 4 to be made again by the next start or apply
  table notes: is new (additive)
differs: belfry migrate plan shows what is to be done
`)
    expect(existsSync(folder.file('data'))).toBe(false)
    expect(await migrate('apply', 'app.ts')).toMatchObject({ exitCode: 0, stderr: '' })
    const after = await migrate('status', 'app.ts')
    expect(after).toMatchObject({ exitCode: 0, stderr: '' })
    expect(after.stdout).toEndWith(`belfry's own tables: version ${newest}\nin step\n`)
    expect((await migrate('apply', 'app.ts')).stdout).toStartWith('notes is in step: ')
  })

  test('tells every class, asks, counts, and does what was answered', async () => {
    using folder = tempFolder()
    const migrate = migrateIn(folder)
    writeFileSync(folder.file('app.ts'), appFile('text: text(), mood: text(), size: text()'))
    {
      await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })
      expect(await post(server.url, { text: 'hello', mood: 'fine', size: '7' })).toBe(201)
      expect(await post(server.url, { text: 'there', size: 'XL' })).toBe(201)

      // Looking disturbs nobody; changing is for the one who has the folder.
      expect((await migrate('status', 'app.ts')).exitCode).toBe(0)
      const inUse = await migrate('apply', 'app.ts')
      expect(inUse.exitCode).toBe(1)
      expect(inUse.stderr).toContain('the data folder is in use by another belfry process')
      server.kill('SIGTERM')
      expect(await server.exited).toBe(0)
    }

    writeFileSync(
      folder.file('app.ts'),
      appFile('body: text(), size: real(), stars: integer().notNull().default(3)'),
    )
    const serve = await runBelfry({
      args: ['serve', 'app.ts'],
      cwd: folder.path,
      env: { PORT: '0', HOST: '127.0.0.1' },
    })
    expect(serve.exitCode).toBe(1)
    expect(serve.stderr).toContain("look at 'belfry migrate plan <app>'")

    const rename = ['--rename', 'notes.text=body']
    const plan = await migrate('plan', 'app.ts', ...rename)
    expect(plan.exitCode).toBe(1)
    for (const line of [
      'rename: keeps all data\n  table notes: column body is stored as text\n',
      '    alter table "notes" rename column "text" to "body";',
      'losing data: needs an answer for each\n',
      '    LOSES 1 values of notes.mood\n',
      '    alter table "__new_notes" rename to "notes";\n',
      '\nasked: apply needs an answer to each\n' +
        '  column notes.mood is stored and not declared, notes.stars is declared and not stored: ' +
        'if it was renamed: --rename notes.mood=stars; if not: --drop notes.mood\n',
      '\nin the way: mend these rows first\n' +
        '  column notes.size becomes real: 1 value would not survive that\n',
    ]) {
      expect(plan.stdout).toContain(line)
    }
    const refused = await migrate('apply', 'app.ts', ...rename)
    expect([refused.exitCode, refused.stdout]).toEqual([1, ''])
    expect(refused.stderr.split('\n').length).toBe(4)
    const wrong = await migrate('apply', 'app.ts', '--drop', 'notes.id')
    expect(wrong.exitCode).toBe(2)
    expect(wrong.stderr).toContain('--drop notes.id matches nothing')

    writeFileSync(
      folder.file('app.ts'),
      appFile('body: text(), size: text(), stars: integer().notNull().default(3)'),
    )
    const applied = await migrate('apply', 'app.ts', ...rename, '--drop', 'notes.mood')
    expect(applied).toMatchObject({ exitCode: 0, stderr: '' })
    await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })
    expect(await (await fetch(`${server.url}/api/notes`)).json()).toMatchObject({
      items: [
        { id: 1, body: 'hello', size: '7', stars: 3 },
        { id: 2, body: 'there', size: 'XL', stars: 3 },
      ],
    })
  })

  test('says how it is called', async () => {
    using folder = tempFolder()
    const migrate = migrateIn(folder)
    expect((await migrate()).stderr).toContain('say what: migrate status, plan, apply')
    expect((await migrate('status')).stderr).toContain('say which app')
    writeFileSync(folder.file('app.ts'), appFile('text: text()'))
    const flag = await migrate('status', 'app.ts', '--drop', 'a.b')
    expect([flag.exitCode, flag.stderr]).toEqual([
      2,
      'belfry migrate: migrate status takes no --drop\n',
    ])
    expect((await migrate('--help')).stdout).toContain('[--rename table.old=new]…')
  })
})
