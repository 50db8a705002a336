/**
 * Whose address a request comes from. `X-Forwarded-For` is anybody's word: it is believed as far as trusted proxies
 * vouch for it, so it is read from the right, from the peer on, to the first hop that is none of them.
 *
 *   X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.2      peer 10.0.0.1, trusted 10.0.0.0/8  →  203.0.113.9
 *
 * Of IPv6 the /64 counts: whoever has one address has all of them.
 */
import { BlockList, isIP } from 'node:net'

/** More hops are nobody's real way here. */
const hopsMax = 16

const ranges: Readonly<Record<string, readonly string[]>> = {
  loopback: ['127.0.0.0/8', '::1/128'],
  private: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7', '127.0.0.0/8', '::1/128'],
}

/** The address that is counted. `forwarded`: `X-Forwarded-For`. */
export type AddressOf = (peer: string, forwarded: string | null) => string

/** `trusted`: addresses, ranges as 10.0.0.0/8, or `loopback`, `private`, as config.ts lets through. */
export function createAddressOf(trusted: readonly string[]): AddressOf {
  if (trusted.length === 0) return (peer) => placeOf(plain(peer))
  const list = new BlockList()
  for (const one of trusted) for (const range of ranges[one] ?? [one]) addRange(list, range)
  const isTrusted = (address: string): boolean => {
    const version = isIP(address)
    return version !== 0 && list.check(address, version === 6 ? 'ipv6' : 'ipv4')
  }
  return (peer, forwarded) => {
    let address = plain(peer)
    let rest = forwarded ?? ''
    for (let hop = 0; hop < hopsMax && rest !== '' && isTrusted(address); hop++) {
      const comma = rest.lastIndexOf(',')
      const next = plain(rest.slice(comma + 1).trim())
      // What a trusted hop passed on and is no address: the hop itself is as far as anything is known.
      if (isIP(next) === 0) break
      address = next
      rest = comma === -1 ? '' : rest.slice(0, comma)
    }
    return placeOf(address)
  }
}

function addRange(list: BlockList, range: string): void {
  const [address = '', bits] = range.split('/')
  const version = isIP(address)
  const most = version === 6 ? 128 : 32
  list.addSubnet(address, bits === undefined ? most : Number(bits), version === 6 ? 'ipv6' : 'ipv4')
}

/** `::ffff:192.0.2.1`, and its other spellings, of which what passes it on may choose any. */
const mapped = /^[0:]+:ffff:(?:(\d+\.\d+\.\d+\.\d+)|([0-9a-f]{1,4}):([0-9a-f]{1,4}))$/i

/** Without a port, brackets or a zone; an IPv4 address in IPv6's clothes as itself. */
function plain(text: string): string {
  const bare =
    /^\[([^\]]*)\](?::\d+)?$/.exec(text)?.[1] ??
    /^(\d+\.\d+\.\d+\.\d+):\d+$/.exec(text)?.[1] ??
    text
  const zoneless = bare.includes('%') ? bare.slice(0, bare.indexOf('%')) : bare
  const [, dotted, high, low] = mapped.exec(zoneless) ?? []
  if (high === undefined || low === undefined) return dotted ?? zoneless
  const bits = [high, low].map((group) => Number.parseInt(group, 16))
  return bits.flatMap((two) => [two >> 8, two & 255]).join('.')
}

/** An IPv4 address, or the network of an IPv6 one: `2001:db8:0:1::/64`. */
function placeOf(address: string): string {
  if (!address.includes(':')) return address
  const [head = '', tail] = address.split('::')
  const groups = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    const after = tail === '' ? 0 : tail.split(':').length + (tail.includes('.') ? 1 : 0)
    while (groups.length + after < 8) groups.push('0')
    if (tail !== '') groups.push(...tail.split(':'))
  }
  const network = groups.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16))
  return `${network.join(':')}::/64`
}
