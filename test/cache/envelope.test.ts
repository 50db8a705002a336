import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { openEntry, sealEntry } from '../../src/cache/envelope.ts'
import type { CacheEntry } from '../../src/cache/tier.ts'
import { entryOf } from '../contracts/tier.ts'

/** Written once by version 2 and never again: other processes have such bytes in their Redis. */
const kept = join(import.meta.dir, 'envelope-2.bin')

const entry: CacheEntry = {
  body: new Uint8Array([0x7b, 0x7d, 0x0d, 0x0a, 0x00, 0xff]),
  etag: '"3w5e11264sgsf"',
  asOf: 9_007_199_254_740_991,
  tags: ['posts', 'posts:1', 'användare:é'],
  range: '[null,[1]]',
  storedAtMs: 1_767_225_600_000,
  freshUntilMs: 1_767_225_660_000.25,
  staleUntilMs: 1_767_226_000_000,
  isAbsent: true,
}

const seal = (one: CacheEntry): Uint8Array => sealEntry(one) ?? new Uint8Array()

describe('the envelope', () => {
  test('version 2 is read as it was written', async () => {
    expect(openEntry(await Bun.file(kept).bytes())).toEqual(entry)
  })

  test('version 2 is written as it always was', async () => {
    expect(Buffer.from(seal(entry)).toString('latin1')).toBe(
      Buffer.from(await Bun.file(kept).bytes()).toString('latin1'),
    )
  })

  test('cut short anywhere, or longer by a byte, it is no entry', () => {
    const bytes = seal(entry)
    for (let length = 0; length < bytes.length; length++) {
      expect(openEntry(bytes.subarray(0, length))).toBeUndefined()
    }
    expect(openEntry(new Uint8Array([...bytes, 0]))).toBeUndefined()
  })

  test('any byte of magic, version or lengths that is another makes it no entry', () => {
    for (let at = 0; at < 13; at++) {
      const bytes = seal(entry)
      bytes[at] = (bytes[at] ?? 0) ^ 0x01
      expect(openEntry(bytes)).toBeUndefined()
    }
  })

  const withHeader = (header: string): Uint8Array => {
    const text = new TextEncoder().encode(header)
    const bytes = new Uint8Array([...seal(entry).subarray(0, 13), ...text])
    const view = new DataView(bytes.buffer)
    view.setUint32(5, text.length)
    view.setUint32(9, 0)
    return bytes
  }
  const header = {
    asOf: 1,
    tags: ['a'],
    etag: '"e"',
    storedAtMs: 1,
    freshUntilMs: 2,
    staleUntilMs: 3,
  }

  test('a header of its own making is read', () => {
    expect(openEntry(withHeader(JSON.stringify(header)))).toMatchObject(header)
  })

  test.each([
    ['no JSON', '{"asOf":1'],
    ['no object', '[]'],
    ['null', 'null'],
    ...Object.keys(header).map((name) => [
      `no ${name}`,
      JSON.stringify({ ...header, [name]: null }),
    ]),
    ['a negative asOf', JSON.stringify({ ...header, asOf: -1 })],
    ['half an asOf', JSON.stringify({ ...header, asOf: 1.5 })],
    ['a number for a tag', JSON.stringify({ ...header, tags: ['a', 1] })],
    ['another isAbsent', JSON.stringify({ ...header, isAbsent: 'yes' })],
    [
      'an endless time',
      `{"asOf":1,"tags":[],"etag":"","storedAtMs":1e999,"freshUntilMs":1,"staleUntilMs":1}`,
    ],
  ])('a header with %s is no entry', (_, text) => {
    expect(openEntry(withHeader(text ?? ''))).toBeUndefined()
  })

  test('the body is a copy: what it was read from may go', () => {
    const bytes = seal(entryOf('abc'))
    const body = openEntry(bytes)?.body
    bytes.fill(0)
    expect(new TextDecoder().decode(body)).toBe('abc')
    expect(body?.buffer.byteLength).toBe(3)
  })

  test('an entry with a header nobody would read is not sealed', () => {
    const tags = Array.from({ length: 10_000 }, (_, index) => `posts:${index}`)
    expect(sealEntry(entryOf('a', { tags }))).toBeUndefined()
  })
})
