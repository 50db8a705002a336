/** The command line's end of the admin socket: the server that has a data folder, if one does. */
import { adminSocket, databaseName, type Config } from '../config.ts'
import { Fault, faultCodes, type FaultCode, type FieldProblem } from '../fault.ts'
import type { LocalStatus } from '../http/http.ts'

export interface LocalServer {
  /** Faults: what the server threw; `unavailable` if it went away. */
  post(path: string, body: RequestInit['body'], type?: string): Promise<unknown>
}

/** The server of this database, or undefined if none answers. Faults: `conflict` for one of another app. */
export async function findServer(
  { database }: Config,
  app: string,
): Promise<LocalServer | undefined> {
  const unix = adminSocket(database)
  if (unix === undefined) return undefined
  let status: LocalStatus
  try {
    status = (await ask(unix, 'GET', '/status')) as LocalStatus
  } catch (thrown) {
    // Nobody there: whoever holds the folder without a socket is found by its lock.
    if (thrown instanceof Fault && thrown.code === 'unavailable') return undefined
    throw thrown
  }
  if (status.app !== app || status.database !== databaseName(database)) {
    throw new Fault('conflict', `the data folder is served as ${status.app}, not as ${app}`, {
      hint: `it serves ${status.database} (process ${status.pid})`,
    })
  }
  return { post: (path, body, type = 'application/json') => ask(unix, 'POST', path, body, type) }
}

/** Faults: `unavailable`. */
export function requireServer(server: LocalServer | undefined): LocalServer {
  if (server) return server
  throw new Fault('unavailable', 'no server of this app runs on this machine', {
    hint: 'it is asked through its data folder: start it with belfry serve, or run this where it runs',
  })
}

async function ask(
  unix: string,
  method: string,
  path: string,
  body?: RequestInit['body'],
  type?: string,
): Promise<unknown> {
  const headers = type === undefined ? {} : { 'content-type': type }
  let answer: Response
  // Bun gives up a connection that is silent for five minutes; a backup says nothing until it is made.
  try {
    answer = await fetch(`http://belfry${path}`, { unix, method, headers, body, timeout: false })
  } catch (cause) {
    throw new Fault('unavailable', `the server does not answer at ${unix}`, { cause })
  }
  const value: unknown = await answer.json()
  if (!answer.ok) throw toldFault(value)
  return value
}

interface Told {
  readonly code: string
  readonly message: string
  readonly hint?: string
  readonly fields?: readonly FieldProblem[]
}

function toldFault(value: unknown): Fault {
  const { code, message, hint, fields } = value as Told
  return new Fault(isCode(code) ? code : 'internal', message, {
    hint,
    fields,
    cause: 'told by the server',
  })
}

function isCode(code: string): code is FaultCode {
  return Object.hasOwn(faultCodes, code)
}
