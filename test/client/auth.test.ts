/** Signed in by the client: tokens that renew themselves, one place for several tabs, and a socket that is who is signed in. */
import { expect, test } from 'bun:test'
import { createClient, Problem, type ClientOptions } from '../../src/client/client.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { tempFolder, until } from '../harness.ts'
import { password, runAccounts, type AccountsServer } from '../auth/accounts-setup.ts'

const minuteMs = 60_000
const ann = { email: 'ann@example.com', password }

/** With a clock that is moved by hand, and a network that counts. */
function clientOf(server: AccountsServer, options: ClientOptions = {}) {
  const calls: string[] = []
  const time = { by: 0 }
  const client = createClient({
    url: server.url,
    now: () => systemClock.now() + time.by,
    fetch: async (url, init) => {
      calls.push(`${init.method} ${new URL(url).pathname}`)
      return await fetch(url, init)
    },
    centrifuge: { minReconnectDelay: 1, maxReconnectDelay: 20, websocket: WebSocket },
    ...options,
  })
  const refreshes = () => calls.filter((one) => one.endsWith('/refresh')).length
  return { client, calls, time, refreshes }
}

async function problemOf(call: Promise<unknown>): Promise<Problem | undefined> {
  try {
    await call
    return undefined
  } catch (error) {
    if (error instanceof Problem) return error
    throw error
  }
}

/** One place for several pages, as `localStorage` is. */
function sharedPlace() {
  let kept: string | undefined
  return {
    load: () => kept ?? null,
    save: (refreshToken: string | undefined) => void (kept = refreshToken),
    get kept() {
      return kept
    },
  }
}

test('signs up, reads as that user, refreshes before the end, and signs out', async () => {
  using folder = tempFolder()
  await using server = await runAccounts(folder)
  const users: unknown[] = []
  const { client, time, refreshes } = clientOf(server, { user: (user) => users.push(user?.email) })
  const notes = client.collection('notes')
  expect((await problemOf(notes.list()))?.status).toBe(401)
  const made = await client.auth.signUp(ann)
  expect([made?.email, client.auth.user?.id]).toEqual([ann.email, made?.id])
  expect((await notes.list()).items).toEqual([])
  time.by = 14 * minuteMs
  expect(refreshes()).toBe(0)
  time.by = 15 * minuteMs
  // All wait for one.
  await Promise.all([notes.list(), notes.list(), notes.list()])
  expect(refreshes()).toBe(1)
  await client.auth.signOut()
  expect((await problemOf(notes.list()))?.status).toBe(401)
  expect((await problemOf(client.auth.signIn({ ...ann, password: 'wrong horse' })))?.code).toBe(
    'unauthenticated',
  )
  await client.auth.signIn(ann)
  expect(users).toEqual([ann.email, undefined, ann.email])
  const other = clientOf(server).client
  await other.auth.signIn(ann)
  await client.auth.signOut({ everywhere: true })
  expect((await problemOf(other.collection('notes').list()))?.status).toBe(401)
  expect(other.auth.user).toBeUndefined()
})

test('a token that counts no more is renewed, and the request made again', async () => {
  using folder = tempFolder()
  await using server = await runAccounts(folder)
  const { client, refreshes } = clientOf(server)
  const user = await client.auth.signUp(ann)
  const change = async (role: string | null) =>
    await server.rooms.auth.accounts?.change(user?.id ?? '', { role })
  await change('admin')
  await client.auth.refresh()
  expect(client.auth.user?.role).toBe('admin')
  await change(null)
  expect((await client.collection('notes').list()).items).toEqual([])
  expect([client.auth.user?.role, refreshes()]).toEqual([null, 2])
})

test('race: tabs that share a place refresh at once, and both go on; one signs out, and both are out', async () => {
  using folder = tempFolder()
  await using server = await runAccounts(folder)
  const session = sharedPlace()
  const [one, other] = [clientOf(server, { session }), clientOf(server, { session })]
  await one.client.auth.signUp(ann)
  // A page that is loaded knows who is signed in by its first token.
  expect((await other.client.auth.refresh())?.email).toBe(ann.email)
  for (let n = 0; n < 4; n++) {
    one.time.by = other.time.by += 15 * minuteMs
    await Promise.all([
      one.client.collection('notes').list(),
      other.client.collection('notes').list(),
    ])
  }
  expect([one.refreshes(), other.refreshes()]).toEqual([4, 5])
  expect(server.log.lines.some(({ event }) => event.includes('reused'))).toBe(false)
  await one.client.auth.signOut()
  expect(session.kept).toBeUndefined()
  expect((await problemOf(other.client.collection('notes').list()))?.status).toBe(401)
  expect(other.client.auth.user).toBeUndefined()
})

test('without an answer the session is not lost: the same refresh is asked for again', async () => {
  using folder = tempFolder()
  await using server = await runAccounts(folder)
  let lose = false
  const { client, time } = clientOf(server, {
    fetch: async (url, init) => {
      const response = await fetch(url, init)
      if (lose && url.endsWith('/refresh')) throw new TypeError('the connection was closed')
      return response
    },
  })
  await client.auth.signUp(ann)
  time.by += 15 * minuteMs
  lose = true
  expect((await problemOf(client.collection('notes').list()))?.code).toBe('unreachable')
  expect(client.auth.user?.email).toBe(ann.email)
  lose = false
  expect((await client.collection('notes').list()).items).toEqual([])
})

test('the socket is a visitor, then who signs in, and comes back when its token is revoked', async () => {
  using folder = tempFolder()
  await using server = await runAccounts(folder)
  const states: string[] = []
  const { client } = clientOf(server, {
    state: (state) => states.push(state),
    after: (_, run) => {
      const id = setImmediate(run)
      return () => clearImmediate(id)
    },
  })
  client.connect()
  await until(() => client.state === 'connected', 'a visitor is connected')
  const user = await client.auth.signUp(ann)
  const own = { text: 'from the socket' }
  const note = await client.rpc<{ userId: string }>('POST /api/notes', own)
  expect(note.userId).toBe(user?.id ?? '')
  expect(states).toEqual(['connecting', 'connected', 'connecting', 'connected'])
  // A role that goes ends the token: the client gets another one, and is back.
  const { accounts } = server.rooms.auth
  await accounts?.change(user?.id ?? '', { role: 'admin' })
  await accounts?.change(user?.id ?? '', { role: null })
  await until(() => states.length >= 7 && client.state === 'connected', 'it is back')
  expect(states.slice(4)).toEqual(['closed', 'connecting', 'connected'])
  await client.rpc('POST /api/notes', own)
  await client.auth.signOut()
  await until(() => client.state === 'connected', 'a visitor again')
  expect((await problemOf(client.rpc('POST /api/notes', own)))?.status).toBe(401)
  client.close()
})
