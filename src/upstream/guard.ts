/**
 * Where a call may go, when whoever asked for it is not the operator.
 *
 *   URL ─► http or https, no name or password in it ─► host: an address, or all addresses that DNS has for it
 *       ─► each of them public? ─► THE address to connect to
 *
 * Invariant: what was checked is what is connected to. The name is resolved here, once, and the connection is made to
 * the address; a resolver that answers differently the next time (DNS rebinding) is not asked a next time.
 *
 * Spellings need no list: URL parsers write `2130706433`, `0x7f.1` and `0177.0.0.1` as `127.0.0.1`, and names are
 * judged by what they resolve to.
 */
import { BlockList, isIP } from 'node:net'
import { Fault } from '../fault.ts'

/** All addresses of a name. */
export type Lookup = (host: string) => Promise<readonly string[]>

/** Where to connect. */
export interface Place {
  readonly address: string
  /** For the certificate and SNI; undefined when the URL has an address. */
  readonly serverName: string | undefined
}

export interface GuardDeps {
  readonly lookup?: Lookup
  /** Tests let their own loopback addresses through. */
  readonly isPublic?: (address: string) => boolean
}

export interface Guard {
  /** `nth`: of several addresses, counted around, so that another try takes another one. Faults: `denied`, `unavailable`. */
  check(url: URL, nth: number): Promise<Place>
  /** Whether its host is, and nothing of it private. Faults: `unavailable`. */
  isPublic(url: URL): Promise<boolean>
}

export function createGuard({ lookup = lookupAll, isPublic = isPublicAddress }: GuardDeps): Guard {
  const addressesOf = async ({ hostname }: URL): Promise<readonly string[]> => {
    const host = hostOf(hostname)
    return isIP(host) === 0 ? await resolved(lookup, host) : [host]
  }

  return {
    isPublic: async (url) => (await addressesOf(url)).every(isPublic),
    async check(url, nth) {
      if (url.username !== '' || url.password !== '') {
        throw new Fault(
          'denied',
          `a call to ${url.host} may not have a name or password in its URL`,
        )
      }
      const addresses = await addressesOf(url)
      // All of them: who mixes a private address in means it.
      if (!addresses.every(isPublic)) {
        throw new Fault('denied', `${url.host} leads to an address that is not public`)
      }
      const place = addresses[nth % addresses.length]
      if (place === undefined) throw new Fault('unavailable', `${url.host} has no address`)
      const host = hostOf(url.hostname)
      return { address: place, serverName: isIP(host) === 0 ? host.replace(/\.$/, '') : undefined }
    },
  }
}

function hostOf(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, '')
}

async function resolved(lookup: Lookup, host: string): Promise<readonly string[]> {
  try {
    const found = await lookup(host)
    // Many machines have IPv6 addresses and no way out over them.
    return found.toSorted((a, b) => isIP(a) - isIP(b))
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error'
    throw new Fault('unavailable', `${host} cannot be resolved: ${code}`)
  }
}

/** As any program on this machine would resolve it, /etc/hosts included. */
async function lookupAll(host: string): Promise<readonly string[]> {
  const found = await Bun.dns.lookup(host)
  return found.map(({ address }) => address)
}

/** IANA's special-purpose registry, what is not globally reachable; multicast and the reserved rest. */
const notPublic4 = [
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12'],
  ...['192.0.0.0/24', '192.0.2.0/24', '192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15'],
  ...['198.51.100.0/24', '203.0.113.0/24', '224.0.0.0/4', '240.0.0.0/4'],
]

/** Within 2000::/3: protocol assignments with Teredo, documentation, 6to4 (which hides an IPv4 address). */
const notPublic6 = ['2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20']

const blocked = listOf([...notPublic4, ...notPublic6])
const global6 = listOf(['2000::/3'])

/** IPv4 in IPv6's clothes: mapped, and NAT64's well-known prefix. What is inside is judged. */
const clothed = [
  [0, 0, 0, 0, 0, 0xffff],
  [0x64, 0xff9b, 0, 0, 0, 0],
]

/** Whether anybody on the internet can be reached there: whatever is not known to be public is not. */
export function isPublicAddress(address: string): boolean {
  switch (isIP(address)) {
    case 4:
      return !blocked.check(address, 'ipv4')
    case 6: {
      const groups = groupsOf(address)
      if (!groups) return false
      const inner = clothed.some((prefix) => prefix.every((group, at) => groups[at] === group))
      if (inner) return isPublicAddress(dotted(groups[6] ?? 0, groups[7] ?? 0))
      return global6.check(address, 'ipv6') && !blocked.check(address, 'ipv6')
    }
    default:
      return false
  }
}

/** The eight numbers of an IPv6 address; undefined for one with a zone, which is of this machine only. */
function groupsOf(address: string): number[] | undefined {
  const url = URL.parse(`http://[${address}]`)
  if (!url) return undefined
  const [head = '', tail] = url.hostname.slice(1, -1).split('::')
  const [before, after] = [numbers(head), numbers(tail ?? '')]
  const zeros = tail === undefined ? 0 : 8 - before.length - after.length
  return [...before, ...Array<number>(zeros).fill(0), ...after]
}

function numbers(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16))
}

function dotted(high: number, low: number): string {
  return [high >> 8, high & 255, low >> 8, low & 255].join('.')
}

function listOf(ranges: readonly string[]): BlockList {
  const list = new BlockList()
  for (const range of ranges) {
    const [address = '', bits] = range.split('/')
    list.addSubnet(address, Number(bits), isIP(address) === 6 ? 'ipv6' : 'ipv4')
  }
  return list
}
