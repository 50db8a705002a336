import { expect, test } from 'bun:test'
import { isTooDeep, jsonDepthMax } from '../../src/lib/json.ts'

const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
const objects = (depth: number) => '{"a":'.repeat(depth) + '1' + '}'.repeat(depth)

test('counts what is open, not what stands in strings', () => {
  expect(isTooDeep(nested(jsonDepthMax))).toBe(false)
  expect(isTooDeep(nested(jsonDepthMax + 1))).toBe(true)
  expect(isTooDeep(objects(jsonDepthMax))).toBe(false)
  expect(isTooDeep(objects(jsonDepthMax + 1))).toBe(true)
  expect(isTooDeep('['.repeat(50_000))).toBe(true)
  expect(isTooDeep(JSON.stringify('['.repeat(50_000)))).toBe(false)
  const brackets = '"[{\\"'.repeat(500)
  expect(isTooDeep(JSON.stringify({ [brackets]: [brackets] }))).toBe(false)
  expect(isTooDeep(`["\\\\",${nested(jsonDepthMax)}]`)).toBe(true)
  // Wide is not deep.
  expect(isTooDeep(JSON.stringify(Array.from({ length: 5_000 }, () => [{ a: [] }])))).toBe(false)
  expect(isTooDeep('')).toBe(false)
})
