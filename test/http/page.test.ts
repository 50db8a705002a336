/** The app's page: what it is made of, what it may do, and what browsers are told to keep of it. */
import { expect, test } from 'bun:test'
import { tempFolder, until, type TempFolder } from '../harness.ts'
import { runServer, type TestServer } from '../server.ts'
import { requireService } from '../services.ts'
import { launchBrowser } from '../browser.ts'

/** Imported as an app file does. */
async function pageIn(folder: TempFolder, head = ''): Promise<Bun.HTMLBundle> {
  const html = `<!doctype html><html><head>${head}<link rel="icon" href="data:,"><link rel="stylesheet" href="./style.css"></head>
    <body><p>a page</p><script type="module" src="./script.ts"></script></body></html>`
  await Bun.write(folder.file('page.html'), html)
  await Bun.write(folder.file('style.css'), 'p { color: rgb(1, 2, 3) }')
  await Bun.write(folder.file('script.ts'), `window['ran' as never] = 'its own' as never`)
  return ((await import(folder.file('page.html'))) as { readonly default: Bun.HTMLBundle }).default
}

const headersOf = ({ headers }: Response, ...names: readonly string[]) =>
  names.map((name) => headers.get(name))

async function filesOf(server: TestServer): Promise<readonly string[]> {
  const html = await (await server.get('/')).text()
  return [...html.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path = '']) => path)
}

test('a bundled page and its files pass the gates, with what they may do and how long they are kept', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app: { page: await pageIn(folder) }, folder })
  const page = await server.get('/')
  expect(page.status).toBe(200)
  expect(headersOf(page, 'content-type', 'cache-control', 'x-frame-options')).toEqual([
    ...['text/html; charset=utf-8', 'no-cache', 'SAMEORIGIN'],
  ])
  expect(page.headers.get('content-security-policy')).toBe(
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'",
  )
  const etag = page.headers.get('etag') ?? ''
  const again = await server.get('/', { headers: { 'if-none-match': etag } })
  expect([again.status, await again.text()]).toEqual([304, ''])
  const files = await filesOf(server)
  expect(files).toHaveLength(2)
  for (const response of [
    page,
    await server.get(files[0] ?? ''),
    await server.get(files[1] ?? ''),
  ]) {
    expect(response.status).toBe(200)
    expect(headersOf(response, 'x-content-type-options', 'referrer-policy')).toEqual([
      ...['nosniff', 'strict-origin-when-cross-origin'],
    ])
    expect(response.headers.get('x-request-id')).toBeString()
  }
  for (const path of files) {
    const file = await server.get(path)
    expect(file.headers.get('cache-control')).toBe('public, max-age=31536000, immutable')
    const known = { 'if-none-match': file.headers.get('etag') ?? '' }
    expect((await server.get(path, { headers: known })).status).toBe(304)
    const head = await server.get(path, { method: 'HEAD' })
    expect([head.status, await head.text()]).toEqual([200, ''])
    expect((await server.get(path, { method: 'POST' })).status).toBe(404)
  }
  for (const path of ['/chunk-00000000.js', '/script.ts', '/page.html', '/../page.html', '/x']) {
    expect([path, (await server.get(path)).status]).toEqual([path, 404])
  }
  expect((await server.get('/', { method: 'POST' })).status).toBe(405)
})

test('a page that says its own policy is asked for nothing else; nor is one that is text', async () => {
  using folder = tempFolder()
  const own = `<meta http-equiv="Content-Security-Policy" content="default-src 'self' https:">`
  await using server = await runServer({ app: { page: await pageIn(folder, own) }, folder })
  const page = await server.get('/')
  expect(page.headers.get('content-security-policy')).toBe("frame-ancestors 'self'")
  expect(await page.text()).toContain("default-src 'self' https:")
  using other = tempFolder()
  const text = '<!doctype html><title>text</title><script>1</script>'
  await using plain = await runServer({ app: { page: text }, folder: other })
  const answer = await plain.get('/')
  expect(answer.headers.get('content-security-policy')).toBe("frame-ancestors 'self'")
  expect(await answer.text()).toBe(text)
})

test('a page that cannot be bundled is an error that only the log explains, and is tried again', async () => {
  using folder = tempFolder()
  const page = await pageIn(folder)
  await Bun.write(folder.file('script.ts'), 'this is no script')
  await using server = await runServer({ app: { page }, folder })
  const failed = await server.get('/')
  expect([failed.status, await failed.text()]).toEqual([500, expect.not.stringContaining('script')])
  await pageIn(folder)
  expect((await server.get('/')).status).toBe(200)
})

test.skipIf(requireService('chromium') === undefined)(
  'in Chromium: a page runs its own scripts and no other, and is framed by nobody else',
  async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: { page: await pageIn(folder) }, folder })
    await using browser = await launchBrowser()
    const page = await browser.newPage()
    const told: string[] = []
    page.on('console', (message) => void told.push(message.text()))
    await page.goto(server.url)
    await until(async () => (await page.evaluate('window.ran')) === 'its own', 'it runs')
    const color = `getComputedStyle(document.querySelector('p')).color`
    expect(await page.evaluate(color)).toBe('rgb(1, 2, 3)')
    expect(told).toEqual([])
    await page.evaluate(`
      const script = document.createElement('script')
      script.textContent = "window.ran = 'inline'"
      document.body.append(script)
      const far = document.createElement('script')
      far.src = 'http://localhost:${server.port}/belfry.js'
      far.onerror = () => (window.far = 'refused')
      document.body.append(far)
      document.body.insertAdjacentHTML('beforeend', '<img src="x:" onerror="window.ran = \\'handler\\'">')
    `)
    // Not `waitForFunction`, which evaluates within the page, where its policy forbids that.
    await until(async () => (await page.evaluate('window.far')) === 'refused', 'it is refused')
    expect(await page.evaluate('window.ran')).toBe('its own')
    const refusals = () => told.filter((text) => text.includes('Content Security Policy')).length
    await until(() => refusals() > 1, 'it is told')

    await using frames = Bun.serve({
      port: 0,
      fetch: () =>
        new Response(`<!doctype html><iframe src="${server.url}/"></iframe>`, {
          headers: { 'content-type': 'text/html' },
        }),
    })
    const outer = await browser.newPage()
    const refused: string[] = []
    outer.on('console', (message) => void refused.push(message.text()))
    await outer.goto(frames.url.href)
    await until(() => refused.join().includes('frame-ancestors'), 'the frame is refused')
  },
)
