import { afterAll, describe, expect, test } from 'bun:test'
import { fetchDispatch, newestLink } from '../../src/apps/energy-nem.ts'
import { Fault } from '../../src/fault.ts'
import { zip } from '../lib/zip-fixture.ts'
import rawFile from '../../db/samples/energy/PUBLIC_DISPATCHIS_202508201810_0000000477155219.CSV.gz' with { type: 'file' }

const packed = await Bun.file(rawFile).bytes()
const raw = Bun.gunzipSync(packed)
const name = 'PUBLIC_DISPATCHIS_202508201810_0000000477155219'
const at = new Date('2025-08-20T18:10:00+10:00')

const folder = '/REPORTS/CURRENT/DispatchIS_Reports'
const link = (file: string): string =>
  `Wednesday, August 20, 2025  6:05 PM <A HREF="${folder}/${file}">${file}</A><br>`

const index = `<html><head><title>nemweb</title></head><body><pre>
<A HREF="/REPORTS/CURRENT/">[To Parent Directory]</A><br>
${link('PUBLIC_DISPATCHIS_202508201800_0000000477154001.zip')}
${link(`${name}.zip`)}
${link('PUBLIC_DISPATCHIS_202508201810_0000000477155000.zip')}
${link('PUBLIC_DISPATCHIS_202508201805_0000000477154600.zip')}
${link('PUBLIC_TRADINGIS_202508201815_0000000477155219.zip')}
</pre></body></html>`

const html = { headers: { 'content-type': 'text/html; charset=UTF-8' } }

/** What was asked, newest last. */
const asked: string[] = []

const upstream = Bun.serve({
  port: 0,
  fetch(request) {
    const { pathname } = new URL(request.url)
    asked.push(pathname)
    if (pathname === `${folder}/`) return new Response(index, html)
    if (pathname === `${folder}/${name}.zip`) {
      return new Response(zip([{ name: `${name}.CSV`, data: raw }]))
    }
    if (pathname === '/empty/') return new Response('<html>nothing here</html>', html)
    if (pathname === '/raw.csv') return new Response(raw)
    if (pathname === '/raw.csv.gz') return new Response(packed)
    if (pathname === '/corrupt.zip') {
      return new Response(zip([{ name: 'a.csv', data: raw }]).subarray(0, 5_000))
    }
    if (pathname === '/other.zip') return new Response(zip([{ name: 'readme.txt', data: 'x' }]))
    if (pathname === '/bomb.zip') {
      return new Response(zip([{ name: 'a.csv', data: Buffer.alloc(17 << 20) }]))
    }
    if (pathname === '/bomb.gz') return new Response(Bun.gzipSync(Buffer.alloc(17 << 20)))
    if (pathname === '/huge') return new Response(Buffer.alloc(5 << 20, 'x'))
    if (pathname === '/cut.csv') return new Response(raw.subarray(0, 9_000))
    return new Response('no', { status: 404 })
  },
})
afterAll(() => upstream.stop(true))

const url = (path: string): string => new URL(path, upstream.url).href
const load = (path: string, newest?: Date) => fetchDispatch(fetch, url(path), newest)

const refusal = (path: string): Promise<string> => refusalOf(load(path))

async function refusalOf(loading: Promise<unknown>): Promise<string> {
  try {
    await loading
    return 'accepted'
  } catch (thrown) {
    if (!(thrown instanceof Fault)) return 'bug'
    return `${thrown.code}: ${thrown.message.replaceAll(upstream.url.href, '/')}`
  }
}

describe('fetchDispatch', () => {
  test('takes the newest file of a folder, the correction before the first version', async () => {
    asked.length = 0
    const update = await load(`${folder}/`)
    expect(asked).toEqual([`${folder}/`, `${folder}/${name}.zip`])
    expect(update?.['prices/live']).toHaveLength(5)
    expect(update?.['prices/live'][0]).toEqual({
      region: 'NSW1',
      at,
      price: 242.65268,
      demand: 11997.22,
      generation: 10615.75,
      interchange: -1381.47,
      source: 'AEMO dispatch',
    })
    expect(update?.['prices/fcas']).toHaveLength(5)
  })

  test('fetches no file that is not newer than what is stored', async () => {
    asked.length = 0
    expect(await load(`${folder}/`, at)).toBeNull()
    expect(asked).toEqual([`${folder}/`])
    expect(await load(`${folder}/`, new Date(at.getTime() - 1))).not.toBeNull()
  })

  test.each(['/raw.csv', '/raw.csv.gz', `${folder}/${name}.zip`])(
    'reads the file %s',
    async (path) => {
      const update = await load(path)
      expect(update?.['prices/live'].map(({ region }) => region)).toEqual([
        'NSW1',
        'QLD1',
        'SA1',
        'TAS1',
        'VIC1',
      ])
    },
  )

  test.each([
    ['/empty/', 'unavailable: /empty/ lists no PUBLIC_DISPATCHIS file'],
    [
      '/corrupt.zip',
      'unavailable: /corrupt.zip does not unpack: zip: no end record, cut short or not an archive',
    ],
    ['/other.zip', 'unavailable: /other.zip holds no .csv'],
    [
      '/bomb.zip',
      'unavailable: /bomb.zip does not unpack: zip: a.csv is larger than 16777216 bytes',
    ],
    ['/huge', 'too_large: /huge is larger than 4194304 bytes'],
    ['/cut.csv', 'invalid: dispatch file: cut short after line 18'],
  ])('refuses %s', async (path, message) => {
    expect(await refusal(path)).toBe(message)
  })

  test('refuses a gzip bomb', async () => {
    expect(await refusal('/bomb.gz')).toStartWith('unavailable: /bomb.gz does not unpack')
  })

  test('refuses what is not a URL', async () => {
    expect(await refusalOf(fetchDispatch(fetch, 'nemweb', undefined))).toBe(
      'invalid: NEM_URL is not a URL',
    )
  })
})

describe('newestLink', () => {
  const base = 'http://example.test/a/'

  test('reads relative, unquoted and .CSV links', () => {
    expect(newestLink('<a href=PUBLIC_DISPATCHIS_202508201810_1.CSV>x</a>', base)).toEqual({
      ms: at.getTime(),
      url: 'http://example.test/a/PUBLIC_DISPATCHIS_202508201810_1.CSV',
    })
  })

  test('does not take a stamp that is no date', () => {
    expect(newestLink('<a href="PUBLIC_DISPATCHIS_202513401810_1.zip">', base)).toBeUndefined()
  })
})
