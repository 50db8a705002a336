/**
 * Passwords as argon2id. `Bun.password` works in Bun's thread pool, so the event loop goes on meanwhile; so many at once
 * as leave it a core, the others in line.
 *
 *   password ─ NFKC, 8 to 128 characters ─► line ─► argon2id (19 MiB, 2 passes: 30 ms of a free core) ─► PHC string
 *
 * Limits: at most four at once, 76 MiB of a VM's memory; at most 100 in line, beyond it `overloaded`, which fills no log.
 * Whoever comes from where the account has a session stands in a line of its own, which goes first: a thousand guessers
 * keep newcomers waiting, not those who come back.
 */
import { availableParallelism } from 'node:os'
import { Fault } from '../fault.ts'

/** OWASP's second choice, of its equals the one with the least memory but for longer ones: many fit beside a cache. */
const memoryKiB = 19_456
const passes = 2

/** A core is left to the event loop. */
const atOnceMax = 4
const atOnce = Math.min(atOnceMax, Math.max(1, availableParallelism() - 1))

/** What is beyond would wait for seconds, and its client has gone. */
const waitingMax = 100
const retryAfterMs = 2_000

/** NIST SP 800-63B wants at least 8, and 64 to be allowed; what nobody types would only be hashed. */
export const passwordLength = { least: 8, most: 128 } as const

/** Before it is normalised: a character has at most two units of UTF-16, and few are composed of more than two. */
const unitsMax = 4 * passwordLength.most

/**
 * Of nothing anybody could give: what a password for an unknown account is compared with, so that it takes as long as
 * any other.
 */
const nobodys = `$argon2id$v=19$m=${memoryKiB},t=${passes},p=1$${'A'.repeat(43)}$${'A'.repeat(43)}`

export interface Passwords {
  /** Faults: `overloaded`. */
  hash(password: string): Promise<string>
  /** `hash` undefined: nobody's, which takes as long. `isKnown`: in the line that goes first. Faults: `overloaded`. */
  matches(password: string, hash: string | undefined, isKnown?: boolean): Promise<boolean>
  /** Hashes computed so far. */
  readonly count: number
}

export function createPasswords(): Passwords {
  const lines = { known: [] as (() => void)[], others: [] as (() => void)[] }
  let running = 0
  let count = 0

  const inLine = async <T>(isKnown: boolean, work: () => Promise<T>): Promise<T> => {
    if (running >= atOnce) {
      const line = isKnown ? lines.known : lines.others
      if (line.length >= waitingMax) {
        const text = 'too many passwords are being checked right now'
        throw new Fault('overloaded', text, { retryAfterMs })
      }
      // Whoever ends hands its place on.
      await new Promise<void>((resolve) => void line.push(resolve))
    } else running++
    try {
      count++
      return await work()
    } finally {
      const next = lines.known.shift() ?? lines.others.shift()
      if (next) next()
      else running--
    }
  }

  return {
    hash: (password) =>
      inLine(false, () =>
        Bun.password.hash(password, {
          algorithm: 'argon2id',
          memoryCost: memoryKiB,
          timeCost: passes,
        }),
      ),
    async matches(password, hash, isKnown = false) {
      const isSame = await inLine(isKnown, () => Bun.password.verify(password, hash ?? nobodys))
      return isSame && hash !== undefined
    },
    get count() {
      return count
    },
  }
}

/** As it is hashed: however a keyboard composes its characters. Undefined: it is too short or too long. */
export function canonicalPassword(text: string): string | undefined {
  if (text.length > unitsMax) return undefined
  const password = text.normalize('NFKC')
  const { length } = Array.from(password)
  return length >= passwordLength.least && length <= passwordLength.most ? password : undefined
}
