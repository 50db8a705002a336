import { describe, expect, test } from 'bun:test'
import { compilePattern, validatePattern } from '../../src/realtime/pattern.ts'

describe('compilePattern', () => {
  test.each([
    ['prices:{region}', 'prices:NSW1', { region: 'NSW1' }],
    ['prices:{region}', 'prices:', undefined],
    ['prices:{region}', 'prices:NSW1:x', undefined],
    ['prices:{region}', 'price:NSW1', undefined],
    ['prices:{region}', 'prices:NSW 1', undefined],
    ['prices:{region}', 'prices:a,b', undefined],
    ['prices:{region}', `prices:${'x'.repeat(248)}`, { region: 'x'.repeat(248) }],
    ['prices:{region}', `prices:${'x'.repeat(249)}`, undefined],
    ['prices:{region}', 'prices:a\u0000', undefined],
    ['prices:{region}', 'prices:\ud800', undefined],
    ['prices:{region}', 'prices:Zürich', { region: 'Zürich' }],
    ['{kind}:v{version}.json', 'a:v2.json', { kind: 'a', version: '2' }],
    ['{kind}:v{version}.json', 'a:v.json', undefined],
    ['aa{x}aa', 'aaa', undefined],
    ['stats', 'stats', {}],
    ['stats', 'stats2', undefined],
  ])('%s of %s', (pattern, name, params) => {
    expect(compilePattern(pattern).match(name)).toEqual(params)
  })
})

describe('validatePattern', () => {
  test.each([
    ['prices:{region}', true],
    ['{a}:{b}:c{d}e', true],
    ['', false],
    ['a b', false],
    ['a,b', false],
    ['{a}{b}', false],
    ['{a', false],
    ['a}', false],
    ['{}', false],
    ['{1a}', false],
    ['{a}:{a}', false],
    [Array.from({ length: 9 }, (_, n) => `{p${n}}`).join(':'), false],
    ['x'.repeat(256), false],
  ])('%s', (pattern, isFine) => {
    expect(validatePattern(pattern) === undefined).toBe(isFine)
  })
})
