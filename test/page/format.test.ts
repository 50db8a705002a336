import { expect, test } from 'bun:test'
import {
  formatChange,
  formatDate,
  formatPower,
  formatPrice,
  formatShare,
  formatTime,
} from '../../src/page/format.ts'

test('formatPrice shows cents, a true minus, and whole dollars from a thousand', () => {
  expect([61.2, -38.014, 0, -0.001, 0.00009, 999.999, 15_100, -1000].map(formatPrice)).toEqual([
    '$61.20',
    '\u2212$38.01',
    '$0.00',
    '$0.00',
    '$0.00',
    '$1,000.00',
    '$15,100',
    '\u2212$1,000',
  ])
})

test('formatChange tells the direction in words and by an arrow', () => {
  expect(formatChange(10, 12.5)).toEqual({
    direction: 'down',
    text: '\u25bc \u22122.50',
    spoken: 'down 2.50 dollars',
  })
  expect(formatChange(-5, -12).text).toBe('\u25b2 +7.00')
  expect(formatChange(5.001, 5)).toEqual({
    direction: 'same',
    text: '= unchanged',
    spoken: 'unchanged',
  })
})

test('formatPower rounds and keeps the sign', () => {
  expect([5941.25, -293.33, -0.2].map(formatPower)).toEqual(['5,941 MW', '\u2212293 MW', '0 MW'])
})

test('formatShare is whole only where it is exact', () => {
  expect([0, 0.9871, 0.9994, 0.99951, 1, 1.2].map(formatShare)).toEqual([
    '0 %',
    '98.7 %',
    '99.9 %',
    '100 %',
    '100 %',
    '100 %',
  ])
})

test('times are market time, wherever the reader is', () => {
  const ms = Date.parse('2021-10-07T00:05:00+10:00')
  expect([formatTime(ms), formatDate(ms)]).toEqual(['00:05', 'Thu 7 Oct 2021'])
})
