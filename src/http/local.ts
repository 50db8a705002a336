/**
 * The admin socket: doors for the command line, on a Unix socket in the data folder that only the owner of
 * the server may open (mode 0600). Who can open it could open the database as well, so nobody is asked
 * who they are; and faults tell their hints, which are for operators.
 *
 *   GET /status · POST /backup {folder?, keep?} · POST /import/<collection path> (JSON lines)
 *   POST /revoke, /mode (as /api/admin/…) · POST /keys {name, scopes, ttlMs?} · /keys/list {} · /keys/revoke {id}
 *   POST /users {email, role?} · /users/list {after?} · /users/<id> (as /api/admin/users/<id>)
 *   POST /said {topic, since?, until?, after?, limit} · POST /say {topic, data: […]} (for replays)
 */
import { chmodSync, lstatSync, rmSync } from 'node:fs'
import { keyHolder, type Auth } from '../auth/auth.ts'
import type { Backups } from '../backup/backup.ts'
import { importLines, type Collections } from '../collections/collections.ts'
import { Fault, faultCodes, toFault, type FieldProblem } from '../fault.ts'
import type { Log } from '../observe/log.ts'
import type { Overload } from '../overload/overload.ts'
import type { Realtime } from '../realtime/realtime.ts'
import { answerUsers } from './accounts.ts'
import { readBytes, readJson } from './body.ts'
import { statusOf } from './faults.ts'
import { readFields } from './fields.ts'
import type { Health } from './operations.ts'
import { setMode } from './mode.ts'
import { revocationOf } from './revoke.ts'

/** What `GET /status` answers. */
export interface LocalStatus extends Health {
  readonly pid: number
  /** `databaseName` of it. */
  readonly database: string
  readonly backup: ReturnType<Backups['stats']>
}

export interface LocalDeps {
  readonly auth: Pick<Auth, 'revoke' | 'keys' | 'accounts'>
  /** `clock.now()`. */
  readonly now: () => number
  readonly backups: Pick<Backups, 'run' | 'stats'>
  readonly collections: Pick<Collections, 'plans' | 'upsert'>
  readonly overload: Pick<Overload, 'set' | 'status'>
  readonly health: () => Health
  readonly log: Log
  readonly realtime: Pick<Realtime, 'replay' | 'submit'>
}

export interface LocalOptions {
  /** Undefined: there is no folder for it, and the command line does without. */
  readonly socket: string | undefined
  readonly database: string
}

/** Takes no more; `pendingRequests` are answered. Stopped, its socket is gone. */
export type Local = Pick<Bun.Server<undefined>, 'stop' | 'pendingRequests'>

/** Lines of one request; the command line sends files in slices far below this. */
const importBytesMax = 32 * 1024 * 1024

/** Of one API key. */
const scopesMax = 100

/** Publications of one request of a replay, either way. */
const sayMax = 1_000
const sayBytesMax = 8 * 1024 * 1024

/**
 * A backup says nothing until it is made. Bun 1.4.5 ends a silent request after 10 s on a Unix socket, too,
 * where its types allow no `idleTimeout` and `server.timeout()` does nothing.
 */
const untilAnswered: object = { idleTimeout: 0 }

/** Nobody but the owner can reach the socket between its making and a `chmod`, either. */
const privateMask = 0o177

/**
 * For whoever holds the folder: a socket that is there already is left over, and is replaced. Undefined
 * if it cannot be made: the server then serves all the same, and the command line cannot speak to it.
 */
export function listenLocal(deps: LocalDeps, options: LocalOptions): Local | undefined {
  const { log } = deps
  const { socket } = options
  if (socket === undefined) return undefined
  const doors = createLocalDoors(deps, options)
  const umask = process.umask(privateMask)
  try {
    if (isSocket(socket)) rmSync(socket)
    const server = Bun.serve({
      unix: socket,
      fetch: doors,
      ...untilAnswered,
      development: false,
      maxRequestBodySize: importBytesMax,
    })
    chmodSync(socket, 0o600)
    return server
  } catch (error) {
    log.warn('local.not_listening', { socket, error })
    return undefined
  } finally {
    process.umask(umask)
  }
}

function isSocket(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSocket() ?? false
}

function createLocalDoors(
  { auth, backups, collections, overload, health, log, now, realtime }: LocalDeps,
  { database }: LocalOptions,
): (request: Request) => Promise<Response> {
  const status = (): LocalStatus => ({
    ...health(),
    pid: process.pid,
    database,
    backup: backups.stats(),
  })

  const importInto = async (request: Request, url: URL): Promise<unknown> => {
    const path = url.pathname.slice('/import/'.length)
    const plan = collections.plans.find((one) => one.path === path)
    if (!plan) throw new Fault('not_found', `this server has no collection ${path}`)
    const firstLine = Number(url.searchParams.get('line') ?? 1)
    const skipInvalid = url.searchParams.get('skip_invalid') === 'true'
    const body = await readBytes(request, importBytesMax)
    return await importLines(collections, plan, body, { firstLine, skipInvalid })
  }

  const revoke = async (body: unknown): Promise<unknown> => {
    const revocation = revocationOf(body, now())
    await auth.revoke(revocation)
    return { revoked: revocation }
  }

  const changeMode = async (body: unknown): Promise<unknown> => {
    await setMode(overload, body)
    return overload.status()
  }

  const createKey = async (body: unknown): Promise<unknown> => {
    const fields = readFields(body, ['name', 'scopes', 'ttlMs'])
    const wanted = {
      name: fields.name('name'),
      scopes: fields.names('scopes', scopesMax),
      ttlMs: fields.whole('ttlMs', 1, Number.MAX_SAFE_INTEGER),
    }
    return await auth.keys.create(fields.done(wanted))
  }

  const revokeKey = async (body: unknown): Promise<unknown> => {
    const fields = readFields(body, ['id'])
    await auth.keys.revoke(fields.done(fields.name('id')))
    return {}
  }

  const said = async (body: unknown): Promise<unknown> => {
    const fields = readFields(body, ['topic', 'since', 'until', 'after', 'limit'])
    const most = Number.MAX_SAFE_INTEGER
    const query = {
      sinceMs: fields.whole('since', 0, most) ?? 0,
      untilMs: fields.whole('until', 0, most) ?? most,
      after: fields.whole('after', 0, most),
      limit: fields.whole('limit', 1, sayMax) ?? sayMax,
      reverse: false,
    }
    return await realtime.replay(keyHolder, fields.done(fields.name('topic')), query)
  }

  /** One after the other: their order is what is replayed. */
  const say = async (body: unknown): Promise<unknown> => {
    const fields = readFields(body, ['topic', 'data'])
    const data = fields.value('data')
    if (!Array.isArray(data) || data.length > sayMax) {
      fields.problem('data', `must be a list of at most ${sayMax}`)
    }
    const topic = fields.done(fields.name('topic'))
    for (const one of data as readonly unknown[]) await realtime.submit(topic, one)
    return {}
  }

  const answer = async (request: Request): Promise<unknown> => {
    const url = new URL(request.url)
    const route = `${request.method} ${url.pathname}`
    if (route === 'GET /status') return status()
    if (route === 'POST /backup') return await backups.run(backupOptions(await readJson(request)))
    if (route === 'POST /revoke') return await revoke(await readJson(request))
    if (route === 'POST /mode') return await changeMode(await readJson(request))
    if (route === 'POST /keys') return await createKey(await readJson(request))
    if (route === 'POST /keys/list') return await auth.keys.list()
    if (route === 'POST /keys/revoke') return await revokeKey(await readJson(request))
    if (/^POST \/users(\/|$)/.test(route)) {
      return await answerUsers(auth.accounts, url.pathname, await readJson(request))
    }
    if (route === 'POST /said') return await said(await readJson(request))
    if (route === 'POST /say') return await say(await readJson(request, sayBytesMax))
    if (route.startsWith('POST /import/')) return await importInto(request, url)
    throw new Fault('not_found', `the admin socket has no ${route}`)
  }

  return async (request) => {
    try {
      return Response.json(await answer(request))
    } catch (thrown) {
      const fault = toFault(thrown)
      const { level } = faultCodes[fault.code]
      if (level !== 'debug') log[level]('local.fault', { error: thrown })
      const { code, message, hint, fields } = fault
      return Response.json({ code, message, hint, fields }, { status: statusOf(fault) })
    }
  }
}

function backupOptions(body: unknown): { folder?: string | undefined; keep?: number | undefined } {
  const { folder, keep } = (body ?? {}) as Readonly<Record<string, unknown>>
  const fields: FieldProblem[] = []
  if (folder !== undefined && (typeof folder !== 'string' || !folder.startsWith('/'))) {
    fields.push({ field: 'folder', message: 'must be an absolute path' })
  }
  if (keep !== undefined && (!Number.isInteger(keep) || Number(keep) < 1)) {
    fields.push({ field: 'keep', message: 'must be an integer of at least 1' })
  }
  if (fields.length > 0) throw new Fault('invalid', 'the request is malformed', { fields })
  return { folder: folder as string | undefined, keep: keep as number | undefined }
}
