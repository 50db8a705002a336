/** Collections over HTTP. An answer that is none is a `Problem`, whoever it comes from. */
import { Problem, problemOf } from './problem.ts'
import type { Input, Item, ListQuery, Page, Row } from './types.ts'

/** A primary key; of several columns, in their order. */
export type Key = KeyPart | readonly KeyPart[]
type KeyPart = string | number | Date

export interface CallOptions {
  readonly signal?: AbortSignal | undefined
  /** As `Idempotency-Key` or `If-Match`. */
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** One collection, as `client.collection('posts')` gives it. */
export interface Collection<App, Name> {
  list(query?: ListQuery<App, Name>, options?: CallOptions): Promise<Page<Item<App, Name>>>
  /** Problems: also `not_found`. */
  get(key: Key, options?: CallOptions): Promise<Row<App, Name>>
  create(input: Input<App, Name>, options?: CallOptions): Promise<Row<App, Name>>
  update(key: Key, input: Input<App, Name>, options?: CallOptions): Promise<Row<App, Name>>
  remove(key: Key, options?: CallOptions): Promise<void>
}

export interface RestDeps {
  /** Without a slash at the end. */
  readonly url: string
  readonly token: () => Promise<string | undefined>
  /** Another one for a token that was refused, if there is one: the request is then made once more. */
  readonly renew?: ((used: string) => Promise<string | undefined>) | undefined
  readonly fetch: (url: string, init: RequestInit) => Promise<Response>
}

/** A request to the app with the client's token; `undefined` for an answer without a body. */
export type Request = (
  method: string,
  path: string,
  body?: unknown,
  options?: CallOptions,
) => Promise<unknown>

export function createRequest({ url, token, renew, fetch }: RestDeps): Request {
  const ask = async (
    bearer: string | undefined,
    ...[method, path, body, { signal, headers } = {}]: Parameters<Request>
  ): Promise<Response> => {
    const init: RequestInit = {
      method,
      headers: {
        accept: 'application/json',
        ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal ? { signal } : {}),
    }
    return await answer(() => fetch(url + path, init), signal)
  }

  return async (...asked) => {
    const bearer = await token()
    let response = await ask(bearer, ...asked)
    if (response.status === 401 && bearer !== undefined && renew) {
      const next = await renew(bearer)
      if (next !== undefined && next !== bearer) response = await ask(next, ...asked)
    }
    if (!response.ok) throw await problemOf(response)
    if (response.status === 204) return undefined
    return await response.json()
  }
}

async function answer(
  ask: () => Promise<Response>,
  signal: AbortSignal | undefined,
): Promise<Response> {
  try {
    return await ask()
  } catch (cause) {
    if (signal?.aborted) throw cause
    const detail = 'the server could not be reached'
    throw new Problem({ status: 0, code: 'unreachable', detail }, { cause })
  }
}

export function createCollection<App, Name>(request: Request, name: string): Collection<App, Name> {
  const path = `/api/${name}`
  const one = (key: Key): string => `${path}/${pathOf(key)}`
  return {
    list: (query = {}, options) =>
      request('GET', path + searchOf(query), undefined, options) as Promise<Page<Item<App, Name>>>,
    get: (key, options) => request('GET', one(key), undefined, options) as Promise<Row<App, Name>>,
    create: (input, options) => request('POST', path, input, options) as Promise<Row<App, Name>>,
    update: (key, input, options) =>
      request('PATCH', one(key), input, options) as Promise<Row<App, Name>>,
    async remove(key, options) {
      await request('DELETE', one(key), undefined, options)
    },
  }
}

function pathOf(key: Key): string {
  const parts = Array.isArray(key) ? (key as readonly KeyPart[]) : [key as KeyPart]
  return parts.map((part) => encodeURIComponent(textOf(part))).join(',')
}

function searchOf(query: Readonly<Record<string, unknown>>): string {
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined) continue
    search.set(name, Array.isArray(value) ? value.map(textOf).join(',') : textOf(value))
  }
  const text = search.toString()
  return text === '' ? '' : `?${text}`
}

function textOf(value: unknown): string {
  return value instanceof Date ? value.toISOString() : String(value)
}
