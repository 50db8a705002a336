/**
 * What a token costs: recognised by Belfry's cache, against jose's `jwtVerify` of the same token with the same
 * key, for each algorithm. CPU time of the process (jose's own threads are in it), in short turns, medians of
 * rounds: the machine is shared.
 */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { importSPKI, jwtVerify, SignJWT, type CryptoKey } from 'jose'
import { createAuth } from '../../src/auth/auth.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createTestLog } from '../harness.ts'
import { median, rounded } from './load.ts'

const rounds = 25
const cachedPerRound = 5_000
const verifiedPerRound = 100

const secret = 'a secret of sixty-four bytes, so that each of HS256 to HS512 takes it.'

type Kind = [type: 'rsa' | 'ec' | 'ed25519' | 'secret', options: object]
const algorithms: Readonly<Record<string, Kind>> = {
  HS256: ['secret', {}],
  HS384: ['secret', {}],
  HS512: ['secret', {}],
  RS256: ['rsa', { modulusLength: 2048 }],
  RS512: ['rsa', { modulusLength: 4096 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  ES384: ['ec', { namedCurve: 'P-384' }],
  ES512: ['ec', { namedCurve: 'P-521' }],
  EdDSA: ['ed25519', {}],
}

/** What the issue asks for. */
const wanted: Readonly<Record<string, number>> = { HS256: 50, RS256: 50, ES256: 100, EdDSA: 100 }

interface Keys {
  readonly sign: KeyObject | Uint8Array
  readonly verify: CryptoKey | Uint8Array
  readonly config: { readonly secret?: string; readonly publicKey?: string }
}

async function keysFor(algorithm: string, [type, options]: Kind): Promise<Keys> {
  if (type === 'secret') {
    const bytes = new TextEncoder().encode(secret)
    return { sign: bytes, verify: bytes, config: { secret } }
  }
  const pair = generateKeyPairSync(type as 'rsa', options as { modulusLength: number })
  const publicKey = pair.publicKey.export({ type: 'spki', format: 'pem' }).toString()
  return {
    sign: pair.privateKey,
    verify: await importSPKI(publicKey, algorithm),
    config: { publicKey },
  }
}

async function measure(algorithm: string, kind: Kind) {
  const keys = await keysFor(algorithm, kind)
  const auth = await createAuth({ clock: systemClock, log: createTestLog() }, keys.config)
  const token = await new SignJWT({
    sub: 'ann',
    role: 'reader',
    name: 'Ann Example',
    jti: crypto.randomUUID(),
  })
    .setProtectedHeader({ alg: algorithm, typ: 'JWT' })
    .setIssuedAt()
    .setExpirationTime('1h')
    .sign(keys.sign)
  await auth.identify(token)
  const cached: number[] = []
  const verified: number[] = []
  for (let round = 0; round < rounds; round++) {
    let from = process.cpuUsage()
    for (let n = 0; n < cachedPerRound; n++) void auth.identify(token)
    cached.push(usSince(from) / cachedPerRound)
    from = process.cpuUsage()
    for (let n = 0; n < verifiedPerRound; n++) {
      await jwtVerify(token, keys.verify, { algorithms: [algorithm] })
    }
    verified.push(usSince(from) / verifiedPerRound)
  }
  if (auth.stats().verifications !== 1) throw new Error('it was verified again')
  await auth.stop()
  return { algorithm, cachedUs: median(cached), verifiedUs: median(verified) }
}

function usSince(from: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(from)
  return user + system
}

export async function run(): Promise<void> {
  const rows: Record<string, string | number>[] = []
  for (const [algorithm, kind] of Object.entries(algorithms)) {
    const { cachedUs, verifiedUs } = await measure(algorithm, kind)
    rows.push({
      algorithm,
      'cached µs': rounded(cachedUs),
      'jose µs': rounded(verifiedUs),
      times: Math.round(verifiedUs / cachedUs),
      wanted: wanted[algorithm] ?? '',
    })
  }
  console.table(rows)
}

if (import.meta.main) await run()
