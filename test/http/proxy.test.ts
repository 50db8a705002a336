/** Proxies at the door: what may be asked, what goes there, what comes back, and for whom. */
import { describe, expect, test } from 'bun:test'
import { signToken } from '../../src/auth/auth.ts'
import { proxy, type AppOptions, type ProxyOptions } from '../../src/kit.ts'
import { faultOf, tempFolder } from '../harness.ts'
import { runServer, testSecret } from '../server.ts'

type Answer = (request: Request) => Response

const json: Answer = (request) => {
  const { pathname, search } = new URL(request.url)
  return Response.json({ path: pathname, search })
}

/** A server with one proxy of a provider that answers so. */
async function open(
  options: Partial<ProxyOptions> = {},
  answer: Answer = json,
  rest: Partial<AppOptions> = {},
) {
  const folder = tempFolder()
  const requests: Request[] = []
  const provider = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch(request) {
      // Bun's own are empty once they are answered.
      requests.push(
        new Request(request.url, { method: request.method, headers: [...request.headers] }),
      )
      return answer(request)
    },
  })
  const declared = proxy({
    upstream: `http://127.0.0.1:${provider.port}/v1?fixed=1`,
    private: true,
    read: 'public',
    ...options,
  })
  const server = await runServer({ app: { ...rest, proxies: { '/api/p': declared } }, folder })
  return {
    ...server,
    requests,
    async [Symbol.asyncDispose]() {
      await server.stop()
      await provider.stop(true)
      folder[Symbol.dispose]()
    },
  }
}

const tokenOf = (sub: string) =>
  signToken(testSecret, { sub }, { nowMs: Date.now(), ttlMs: 60_000 })

const as = async (sub: string) => ({ headers: { authorization: `Bearer ${await tokenOf(sub)}` } })

describe('what may be asked', () => {
  test('nothing but the upstream itself, unless it is listed', async () => {
    await using server = await open()
    const response = await server.get('/api/p')
    expect(await response.json()).toEqual({ path: '/v1', search: '?fixed=1' })
    expect((await server.get('/api/p/more')).status).toBe(404)
  })

  test('unknown, repeated and malformed parameters are refused by name, all at once', async () => {
    await using server = await open({ allow: { query: { ids: /[a-z,]+/, vs: /usd/ } } })
    const response = await server.get('/api/p?ids=a&ids=b&vs=usdx&url=http://x&fixed=2')
    expect(response.status).toBe(400)
    expect(((await response.json()) as { errors: unknown }).errors).toEqual([
      { field: 'ids', message: 'is given more than once' },
      { field: 'vs', message: 'must match ^(?:usd)$' },
      { field: 'url', message: 'is not one of ids, vs' },
      { field: 'fixed', message: 'is not one of ids, vs' },
    ])
    expect(server.requests.length).toBe(0)
  })

  test('parameters in another order are the same question', async () => {
    await using server = await open({ allow: { query: ['a', 'b'] } })
    const first = await server.get('/api/p?a=1&b=2%263')
    expect(await first.json()).toEqual({ path: '/v1', search: '?fixed=1&a=1&b=2%263' })
    const second = await server.get('/api/p?b=2%263&a=1')
    expect([second.headers.get('x-cache'), server.requests.length]).toEqual(['hit', 1])
  })

  test('listed paths, part by part', async () => {
    await using server = await open({ allow: { path: ['price/v3', 'tokens/{mint}'] } })
    for (const path of ['price/v3', 'tokens/So1.a-b']) {
      const response = await server.get(`/api/p/${path}`)
      expect(await response.json()).toEqual({ path: `/v1/${path}`, search: '?fixed=1' })
    }
    const others = [
      ...['', '/', '/price', '/price/v4', '/price/v3/x', '/tokens', '/tokens/', '/tokens/a/b'],
      ...[
        '/tokens/..',
        '/tokens/.',
        '/tokens/%2e%2e',
        '/tokens/a%2fb',
        '/tokens/a%00',
        '//x.test/',
      ],
      ...['/tokens/%5c', '/tokens/a;b', '/tokens/..%2f..%2fadmin', '/price/../admin'],
    ]
    for (const path of others) {
      expect([path, (await server.get(`/api/p${path}`)).status]).toEqual([path, 404])
    }
    expect(server.requests.length).toBe(2)
  })

  test('GET and HEAD', async () => {
    await using server = await open()
    const head = await server.get('/api/p', { method: 'HEAD' })
    expect([head.status, await head.text()]).toEqual([200, ''])
    const post = await server.get('/api/p', { method: 'POST', body: '{}' })
    expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET, HEAD, OPTIONS'])
    expect(server.requests.map(({ method }) => method)).toEqual(['GET'])
  })

  test('as often as its limit says', async () => {
    await using server = await open({ limit: '2/min' })
    const statuses = []
    for (let n = 0; n < 3; n++) statuses.push((await server.get('/api/p')).status)
    expect(statuses).toEqual([200, 200, 429])
  })
})

describe('for whom', () => {
  test('signed in: one answer for all of them, kept by no cache but their own', async () => {
    await using server = await open({ read: 'signed-in', client: '5s', edge: '60s' })
    expect((await server.get('/api/p')).status).toBe(401)
    await server.get('/api/p', await as('ann'))
    const { headers } = await server.get('/api/p', await as('bob'))
    const names = ['x-cache', 'cache-control', 'cdn-cache-control', 'vary']
    expect(names.map((name) => headers.get(name))).toEqual([
      ...['hit', 'private, max-age=5', null, 'authorization, origin'],
    ])
  })

  test('by a rule; one that throws lets nobody in', async () => {
    await using server = await open({
      read: ({ user }) => {
        if (user?.id === 'bug') throw new Error('oh')
        return user?.id === 'ann'
      },
    })
    const statusOf = async (sub: string) => (await server.get('/api/p', await as(sub))).status
    expect([await statusOf('ann'), await statusOf('bob'), await statusOf('bug')]).toEqual([
      ...[200, 403, 403],
    ])
  })

  test('by user: nobody gets what another was answered', async () => {
    await using server = await open(
      {
        read: 'signed-in',
        vary: ['user'],
        headers: ({ user }) => ({ 'x-user': user?.id ?? 'nobody' }),
      },
      (request) => Response.json(request.headers.get('x-user')),
    )
    const of = async (sub: string) => await (await server.get('/api/p', await as(sub))).json()
    expect([await of('ann'), await of('bob'), await of('ann')]).toEqual(['ann', 'bob', 'ann'])
    expect(server.requests.length).toBe(2)
  })

  test('who did not say that it varies by user is not told who asks', async () => {
    await using server = await open(
      { read: 'signed-in', headers: ({ user }) => ({ 'x-user': user?.id ?? 'nobody' }) },
      (request) => Response.json(request.headers.get('x-user')),
    )
    expect(await (await server.get('/api/p', await as('ann'))).json()).toBe('nobody')
  })
})

describe('what goes there', () => {
  test('of the request, only the headers that it varies by', async () => {
    await using server = await open({
      vary: ['accept-language'],
      headers: { accept: 'application/json', 'x-version': '3' },
    })
    const sent = {
      ...(await as('ann')).headers,
      'accept-language': 'de',
      cookie: 'session=1',
      'x-forwarded-for': '1.2.3.4',
      'x-own': '1',
      'if-none-match': '"x"',
    }
    const response = await server.get('/api/p', { headers: sent })
    expect(response.headers.get('vary')).toBe('accept-language')
    const there = server.requests[0]?.headers
    const names = ['accept-language', 'accept', 'x-version']
    expect(names.map((name) => there?.get(name))).toEqual(['de', 'application/json', '3'])
    const secret = ['authorization', 'cookie', 'x-forwarded-for', 'x-own', 'if-none-match']
    expect(secret.filter((name) => there?.has(name))).toEqual([])
    await server.get('/api/p', { headers: { 'accept-language': 'fr' } })
    expect(server.requests.length).toBe(2)
  })

  test('a header that is too long is refused', async () => {
    await using server = await open({ vary: ['accept-language'] })
    const headers = { 'accept-language': 'x'.repeat(257) }
    expect((await server.get('/api/p', { headers })).status).toBe(400)
  })
})

describe('what comes back', () => {
  test('the body, its type, and headers of our own', async () => {
    await using server = await open({ client: '5s', edge: '60s', stale: '10m' }, () => {
      const headers = {
        'set-cookie': 'a=1',
        'x-powered-by': 'x',
        'access-control-allow-origin': '*',
        'content-security-policy': 'none',
        'cache-control': 'max-age=9',
        location: 'x',
      }
      return Response.json([1], { headers })
    })
    const { headers } = await server.get('/api/p')
    const mine = ['x-request-id', 'x-response-time', 'date', 'content-length']
    expect(Object.fromEntries([...headers].filter(([name]) => !mine.includes(name)))).toEqual({
      age: '0',
      'cache-control': 'public, max-age=5',
      'cache-status': 'belfry; fwd=miss',
      'cdn-cache-control': 'public, max-age=60, stale-if-error=600',
      'content-security-policy': "default-src 'none'; sandbox",
      'content-type': 'application/json;charset=utf-8',
      etag: headers.get('etag') ?? '',
      'x-cache': 'miss',
      'x-content-type-options': 'nosniff',
    })
  })

  test('304 for who has it already', async () => {
    await using server = await open()
    const etag = (await server.get('/api/p')).headers.get('etag') ?? ''
    const response = await server.get('/api/p', { headers: { 'if-none-match': etag } })
    expect([response.status, await response.text()]).toEqual([304, ''])
  })

  test('bytes as they are', async () => {
    const bytes = Uint8Array.from({ length: 5_000 }, (_, at) => at % 256)
    await using server = await open({}, () => {
      return new Response(bytes, { headers: { 'content-type': 'image/png' } })
    })
    for (let n = 0; n < 2; n++) expect(await (await server.get('/api/p')).bytes()).toEqual(bytes)
  })

  const refused: Readonly<Record<string, string>> = {
    HTML: 'text/html',
    'HTML in capitals': 'TEXT/HTML; charset=utf-8',
    SVG: 'image/svg+xml',
    script: 'text/javascript',
    none: '',
    'a long one': `application/json; a=${'x'.repeat(300)}`,
  }
  test.each(Object.entries(refused))('not %s', async (_, type) => {
    await using server = await open({}, () => {
      return new Response('<script>1</script>', { headers: { 'content-type': type } })
    })
    const response = await server.get('/api/p')
    expect([response.status, await response.text()]).toEqual([
      503,
      expect.stringContaining('another type'),
    ])
  })

  test('but HTML that was named, and JSON of any kind', async () => {
    await using server = await open(
      { types: ['text/html', 'application/json'], allow: { query: ['type'] } },
      (request) =>
        new Response('x', {
          headers: { 'content-type': new URL(request.url).searchParams.get('type') ?? '' },
        }),
    )
    for (const type of ['text/html', 'application/geo+json']) {
      const response = await server.get(`/api/p?type=${encodeURIComponent(type)}`)
      expect([response.status, response.headers.get('content-type')]).toEqual([200, type])
    }
  })

  test('"there is no such thing" is remembered', async () => {
    await using server = await open({}, () => new Response('no', { status: 404 }))
    for (let n = 0; n < 3; n++) expect((await server.get('/api/p')).status).toBe(404)
    expect(server.requests.length).toBe(1)
  })

  test('what the app invalidates is asked for again', async () => {
    await using server = await open({}, json, {
      routes: (routes, { cache }) =>
        routes.post('/api/forget', async () => await cache.invalidate('/api/p')),
    })
    await server.get('/api/p')
    await server.get('/api/forget', { method: 'POST' })
    expect((await server.get('/api/p')).headers.get('x-cache')).toBe('miss')
  })
})

test('a private address is not asked, unless it is said that it may be', async () => {
  await using server = await open({ private: false, upstream: () => 'http://127.0.0.1:1/' })
  const response = await server.get('/api/p')
  expect([response.status, ((await response.json()) as { detail: string }).detail]).toEqual([
    503,
    'the upstream cannot be asked',
  ])
  const line = server.log.lines.find(({ event }) => event === 'proxy.failed')
  expect(String(line?.fields['error'])).toContain('not public')
})

test('an upstream that is none in this environment stops the start', async () => {
  using folder = tempFolder()
  const declared = proxy({ upstream: ({ NOTHING }) => NOTHING as string, read: 'public' })
  const fault = await faultOf(() => runServer({ app: { proxies: { '/api/p': declared } }, folder }))
  expect(fault.fields).toEqual([
    { field: 'proxies./api/p.upstream', message: 'must be an http: or https: URL' },
  ])
})

test('a path that is served already stops the start', async () => {
  using folder = tempFolder()
  const declared = proxy({ upstream: 'https://api.example.com', read: 'public' })
  const fault = await faultOf(() =>
    runServer({ app: { proxies: { '/api/health': declared } }, folder }),
  )
  expect(fault.fields?.[0]?.field).toBe('proxies./api/health')
})
