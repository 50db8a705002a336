import { describe, expect, test } from 'bun:test'
import { readZip } from '../../src/lib/zip.ts'
import { zip } from './zip-fixture.ts'

const limits = { entriesMax: 8, inflatedBytesMax: 1_000_000 }

const texts = (bytes: Uint8Array): [string, string][] =>
  readZip(bytes, limits).map(({ name, read }) => [name, new TextDecoder().decode(read())])

describe('readZip', () => {
  test('reads deflated and stored entries, past local extra fields and a comment', () => {
    const bytes = zip(
      [
        { name: 'folder/', data: '', method: 'stored' },
        { name: 'folder/a.csv', data: 'one,two\n'.repeat(1_000), localExtraBytes: 20 },
        { name: 'b.txt', data: 'plain', method: 'stored' },
        { name: 'empty', data: '' },
      ],
      'made by hand',
    )
    expect(texts(bytes)).toEqual([
      ['folder/a.csv', 'one,two\n'.repeat(1_000)],
      ['b.txt', 'plain'],
      ['empty', ''],
    ])
  })

  test('reads an archive that lies in the middle of a buffer', () => {
    const bytes = zip([{ name: 'a', data: 'x' }])
    const around = Buffer.concat([Buffer.alloc(7), bytes])
    expect(texts(around.subarray(7))).toEqual([['a', 'x']])
  })

  test('stops inflating at the limit, whatever the entry declares', () => {
    const bomb = zip([{ name: 'bomb', data: Buffer.alloc(50_000_000) }])
    expect(bomb.byteLength).toBeLessThan(100_000)
    expect(() => texts(bomb)).toThrow('bomb is larger than 1000000 bytes')
    const stored = zip([{ name: 'big', data: Buffer.alloc(1_000_001), method: 'stored' }])
    expect(() => texts(stored)).toThrow('big is larger than 1000000 bytes')
  })

  test('lets an entry of exactly the limit through', () => {
    const [entry] = readZip(zip([{ name: 'a', data: Buffer.alloc(1_000_000) }]), limits)
    expect(entry?.read().byteLength).toBe(1_000_000)
  })

  test.each([
    [
      'too many entries',
      zip(Array.from({ length: 9 }, (_, i) => ({ name: `${i}`, data: '' }))),
      'more than 8 entries',
    ],
    ['a wrong checksum', zip([{ name: 'a', data: 'x', crc: 1 }]), 'a is damaged (checksum)'],
    ['encryption', zip([{ name: 'a', data: 'x', flags: 1 }]), 'a is encrypted'],
    ['another method', zip([{ name: 'a', data: 'x', methodCode: 12 }]), 'a uses method 12'],
    [
      'stored bytes called deflated',
      zip([{ name: 'a', data: 'xyz', method: 'stored', methodCode: 8 }]),
      'a does not inflate',
    ],
    ['no archive at all', Buffer.from('<html></html>'), 'no end record'],
    ['an archive cut short', zip([{ name: 'a', data: 'x' }]).subarray(0, -30), 'no end record'],
    ['nothing', Buffer.alloc(0), 'no end record'],
  ])('refuses %s', (_, bytes, message) => {
    expect(() => texts(bytes)).toThrow(message)
  })

  // Every byte of a small archive turned over: it may still be read, but nothing else than an Error may happen.
  test('survives any damaged byte', () => {
    const whole = zip([{ name: 'a.csv', data: 'hello hello hello' }])
    for (let at = 0; at < whole.byteLength; at += 1) {
      const damaged = Buffer.from(whole)
      damaged[at] = (damaged[at] ?? 0) ^ 0xff
      try {
        texts(damaged)
      } catch (thrown) {
        expect((thrown as Error).message).toStartWith('zip: ')
      }
    }
  })
})
