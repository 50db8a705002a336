import { describe, expect, test } from 'bun:test'
import { parseDispatch } from '../../src/apps/energy-dispatch.ts'
import { Fault } from '../../src/fault.ts'
import rawFile from '../../db/samples/energy/PUBLIC_DISPATCHIS_202508201810_0000000477155219.CSV.gz' with { type: 'file' }

const raw = new TextDecoder().decode(Bun.gunzipSync(await Bun.file(rawFile).bytes()))
const at = new Date('2025-08-20T18:10:00+10:00')

const priceNames = 'I,DISPATCH,PRICE,5,SETTLEMENTDATE,RUNNO,REGIONID,INTERVENTION,RRP'
const sumNames = 'I,DISPATCH,REGIONSUM,9,SETTLEMENTDATE,RUNNO,REGIONID,INTERVENTION,TOTALDEMAND'
const priceRow = 'D,DISPATCH,PRICE,5,"2025/08/20 18:10:00",1,NSW1,0,42.5'
const sumRow = 'D,DISPATCH,REGIONSUM,9,"2025/08/20 18:10:00",1,NSW1,0,8000'

function file(...lines: readonly string[]): string {
  return [...lines, `C,"END OF REPORT",${lines.length + 1}`, ''].join('\n')
}

/** The Fault's code and message. */
function refusal(text: string): string {
  try {
    parseDispatch(text)
  } catch (thrown) {
    return thrown instanceof Fault ? `${thrown.code}: ${thrown.message}` : 'bug'
  }
  return 'accepted'
}

describe('parseDispatch', () => {
  test('reads price, demand, generation and interchange of five regions from a real file', () => {
    expect(parseDispatch(raw).spot).toEqual([
      {
        region: 'NSW1',
        at,
        price: 242.65268,
        demand: 11997.22,
        generation: 10615.75,
        interchange: -1381.47,
      },
      {
        region: 'QLD1',
        at,
        price: 159.95,
        demand: 8199.47,
        generation: 9480.95,
        interchange: 1281.48,
      },
      {
        region: 'SA1',
        at,
        price: 189.90569,
        demand: 1704.97,
        generation: 2175.89,
        interchange: 470.92,
      },
      {
        region: 'TAS1',
        at,
        price: 160.24,
        demand: 1301.08,
        generation: 1631.24,
        interchange: 330.17,
      },
      {
        region: 'VIC1',
        at,
        price: 220.26879,
        demand: 6996.1,
        generation: 6417.91,
        interchange: -578.19,
      },
    ])
  })

  test('reads the ten FCAS prices from a real file', () => {
    const { fcas } = parseDispatch(raw)
    expect(fcas.map(({ region }) => region)).toEqual(['NSW1', 'QLD1', 'SA1', 'TAS1', 'VIC1'])
    expect(fcas[3]).toEqual({
      region: 'TAS1',
      at,
      raise1sec: 0.37,
      raise6sec: 4.89,
      raise60sec: 0.38,
      raise5min: 0.38,
      raisereg: 7.83548,
      lower1sec: 0,
      lower6sec: 0.1,
      lower60sec: 0.38,
      lower5min: 0.38,
      lowerreg: 2.92,
    })
  })

  test('prices from the market run and demand from the physical run of an interval solved twice', () => {
    const { spot } = parseDispatch(
      file(
        priceNames,
        priceRow.replace(',0,42.5', ',1,99'),
        priceRow,
        sumNames,
        sumRow,
        sumRow.replace(',0,8000', ',1,8111'),
      ),
    )
    expect(spot.map(({ price, demand }) => [price, demand])).toEqual([[42.5, 8111]])
  })

  test('finds columns by name, per table and version, and skips what it does not know', () => {
    const { spot, fcas } = parseDispatch(
      file(
        'I,DISPATCH,SOMETHING_NEW,1,A,B',
        'D,DISPATCH,SOMETHING_NEW,1,"a, quoted ""comma""",2',
        'I,OTHER,PRICE,5,A',
        'D,OTHER,PRICE,5,x',
        'I,DISPATCH,PRICE,6,RRP,NEWCOLUMN,REGIONID,SETTLEMENTDATE',
        'D,DISPATCH,PRICE,6,-1000,"x, y",SA1,"2025/08/20 18:10:00"',
        sumNames,
        sumRow.replace('NSW1', 'SA1'),
      ),
    )
    expect(spot).toEqual([
      { region: 'SA1', at, price: -1000, demand: 8000, generation: null, interchange: null },
    ])
    expect(fcas).toEqual([])
  })

  test('reads CRLF and a last line without an end', () => {
    const text = file(priceNames, priceRow, sumNames, sumRow).trimEnd().replaceAll('\n', '\r\n')
    expect(parseDispatch(text).spot).toHaveLength(1)
  })

  test.each([
    [
      'a bad number',
      file(priceNames, priceRow.replace('42.5', '4x2'), sumNames, sumRow),
      'invalid: dispatch file line 2: DISPATCH.PRICE.RRP: not a number: 4x2',
    ],
    [
      'a bad optional number',
      file(`${priceNames},RAISE6SECRRP`, `${priceRow},NaN`, sumNames, sumRow),
      'invalid: dispatch file line 2: DISPATCH.PRICE.RAISE6SECRRP: not a number: NaN',
    ],
    [
      'a missing column',
      file(priceNames.replace('RRP', 'EEP'), priceRow, sumNames, sumRow),
      'invalid: dispatch file line 2: DISPATCH.PRICE.RRP: no such column',
    ],
    [
      'a short row',
      file(priceNames, priceRow, sumNames, sumRow.replace(',8000', '')),
      'invalid: dispatch file line 4: DISPATCH.REGIONSUM.TOTALDEMAND: no value',
    ],
    [
      'a date that is none',
      file(priceNames, priceRow.replace('08/20', '02/30'), sumNames, sumRow),
      'invalid: dispatch file line 2: DISPATCH.PRICE.SETTLEMENTDATE: not a stamp: 2025/02/30 18:10:00',
    ],
    [
      'rows before their names',
      file(priceRow, priceNames),
      'invalid: dispatch file line 1: DISPATCH.PRICE has no I row before it',
    ],
    [
      'a price without demand',
      file(priceNames, priceRow, sumNames),
      'invalid: dispatch file line 2: DISPATCH.PRICE.REGIONID: region NSW1 has a price but no row in DISPATCH.REGIONSUM',
    ],
    [
      'an open quote',
      file(priceNames, priceRow.replace(':00",', ':00,')),
      'invalid: dispatch file line 2: a quote is not closed',
    ],
    [
      'a file cut short',
      raw.slice(0, 60_000),
      `invalid: dispatch file: cut short after line ${raw.slice(0, 60_000).split('\n').length}`,
    ],
    [
      'lines lost in the middle',
      raw.split('\n').toSpliced(300, 10).join('\n'),
      'invalid: dispatch file: cut short after line 882',
    ],
    ['another file', '<html>busy</html>', 'invalid: dispatch file: cut short after line 1'],
    [
      'a file without prices',
      file(sumNames, sumRow),
      'invalid: dispatch file: no row in DISPATCH.PRICE',
    ],
  ])('refuses %s, naming the place', (_, text, message) => {
    expect(refusal(text)).toBe(message)
  })
})
