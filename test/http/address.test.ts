import { describe, expect, test } from 'bun:test'
import { createAddressOf } from '../../src/http/address.ts'

describe('the address that is counted', () => {
  test('without trusted proxies is the peer, whatever is forwarded', () => {
    const addressOf = createAddressOf([])
    expect(addressOf('192.0.2.7', '6.6.6.6')).toBe('192.0.2.7')
    expect(addressOf('', null)).toBe('')
  })

  const cases: [peer: string, forwarded: string | null, counted: string][] = [
    ['10.0.0.1', null, '10.0.0.1'],
    ['10.0.0.1', '203.0.113.9', '203.0.113.9'],
    // What the client wrote itself stands left of what the proxies did.
    ['10.0.0.1', '6.6.6.6, 203.0.113.9, 10.0.0.2', '203.0.113.9'],
    ['10.0.0.1', '10.9.9.9, 10.0.0.2', '10.9.9.9'],
    ['203.0.113.1', '6.6.6.6', '203.0.113.1'],
    ['10.0.0.1', 'unknown', '10.0.0.1'],
    ['10.0.0.1', '6.6.6.6, nonsense, 10.0.0.2', '10.0.0.2'],
    ['10.0.0.1', '203.0.113.9:5123', '203.0.113.9'],
    ['10.0.0.1', '[2001:db8::7]:443', '2001:db8:0:0::/64'],
    ['::1', '203.0.113.9', '203.0.113.9'],
    ['::ffff:10.0.0.1', '::ffff:203.0.113.9', '203.0.113.9'],
    ['10.0.0.1', ',,', '10.0.0.1'],
    ['10.0.0.1', '6.6.6.6,'.repeat(40) + '10.0.0.2,'.repeat(20) + '10.0.0.2', '10.0.0.2'],
  ]
  test.each(cases)('from %s with %j is %s', (peer, forwarded, counted) => {
    expect(createAddressOf(['10.0.0.0/8', '::1'])(peer, forwarded)).toBe(counted)
  })

  test('loopback and private are names for ranges', () => {
    expect(createAddressOf(['loopback'])('127.0.0.1', '203.0.113.9')).toBe('203.0.113.9')
    expect(createAddressOf(['loopback'])('192.168.0.1', '203.0.113.9')).toBe('192.168.0.1')
    expect(createAddressOf(['private'])('fd00::1', '203.0.113.9')).toBe('203.0.113.9')
  })

  test.each([
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:DB8:01:2::1', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['1::64:ff9b:192.0.2.1', '1:0:0:0::/64'],
    ['1:2:3::', '1:2:3:0::/64'],
    // As IPv4: else all of it is one network, or each address two.
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:c000:201', '192.0.2.1'],
    ['0:0:0:0:0:ffff:c000:0201', '192.0.2.1'],
    ['0000:0000:0000:0000:0000:ffff:192.0.2.1', '192.0.2.1'],
    ['::ffff:0:0', '0.0.0.0'],
    ['::1:ffff:c000:201', '0:0:0:0::/64'],
  ])('of %s counts %s', (peer, counted) => {
    expect(createAddressOf([])(peer, null)).toBe(counted)
  })
})
