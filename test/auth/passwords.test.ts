/** Passwords: how they are hashed, how many at once, and what the event loop does meanwhile; addresses, too. */
import { describe, expect, test } from 'bun:test'
import { availableParallelism } from 'node:os'
import { canonicalEmail } from '../../src/auth/email.ts'
import { canonicalPassword, createPasswords } from '../../src/auth/passwords.ts'
import { faultOf } from '../harness.ts'

describe('passwords', () => {
  test('are argon2id with 19 MiB and two passes; nobody’s is compared with as much work, and never right', async () => {
    const passwords = createPasswords()
    const hash = await passwords.hash('correct horse')
    expect(hash).toStartWith('$argon2id$v=19$m=19456,t=2,p=1$')
    expect(await passwords.hash('correct horse')).not.toBe(hash)
    expect(await passwords.matches('correct horse', hash)).toBe(true)
    expect(await passwords.matches('correct horsE', hash)).toBe(false)
    expect(await passwords.matches('correct horse', undefined)).toBe(false)
    // CPU time of the same work in turns, the least of several: whoever else uses this machine makes it more.
    const cost = async (given: string | undefined): Promise<number> => {
      const before = process.cpuUsage()
      await passwords.matches('wrong horse', given)
      return process.cpuUsage(before).user
    }
    let [known, unknown] = [Infinity, Infinity]
    for (let n = 0; n < 10; n++) {
      known = Math.min(known, await cost(hash))
      unknown = Math.min(unknown, await cost(undefined))
    }
    expect(unknown / known).toBeGreaterThan(0.5)
    expect(unknown / known).toBeLessThan(2)
  })

  test('race: two hundred at once are hashed a few at a time; who finds the line full is told', async () => {
    const passwords = createPasswords()
    const asked = Array.from({ length: 200 }, () =>
      faultOf(() => passwords.matches('x', undefined)).catch(() => undefined),
    )
    const atOnce = passwords.count
    expect(atOnce).toBeLessThanOrEqual(Math.min(4, Math.max(1, availableParallelism() - 1)))
    const faults = (await Promise.all(asked)).filter((one) => one !== undefined)
    expect(faults.map(({ code }) => code)).toEqual(Array(100 - atOnce).fill('overloaded'))
    expect(faults[0]?.retryAfterMs).toBe(2_000)
    expect(passwords.count).toBe(100 + atOnce)
    expect(await passwords.matches('x', undefined)).toBe(false)
  })

  test('who comes from where the account has a session goes before a line of others, however full', async () => {
    const passwords = createPasswords()
    let others = 0
    const crowd = Array.from({ length: 200 }, () =>
      passwords.matches('x', undefined).then(
        () => others++,
        () => undefined,
      ),
    )
    expect(await passwords.matches('x', undefined, true)).toBe(false)
    expect(others).toBeLessThan(100)
    await Promise.all(crowd)
    expect(others).toBe(passwords.count - 1)
  })

  test('the event loop goes on while they are hashed', async () => {
    const passwords = createPasswords()
    let turns = 0
    let isOver = false
    const turn = (): void => {
      turns++
      if (!isOver) setImmediate(turn)
    }
    const hashing = Promise.all(Array.from({ length: 8 }, () => passwords.hash('correct horse')))
    turn()
    await hashing
    isOver = true
    // On the loop itself there would be one between two.
    expect(turns).toBeGreaterThan(100)
  })

  test('have 8 to 128 characters after NFKC, and bounded bytes before', () => {
    expect(canonicalPassword('x'.repeat(7))).toBeUndefined()
    expect(canonicalPassword('x'.repeat(8))).toBe('x'.repeat(8))
    expect(canonicalPassword('😀'.repeat(128))).toBe('😀'.repeat(128))
    expect(canonicalPassword('x'.repeat(129))).toBeUndefined()
    expect(canonicalPassword('x'.repeat(1_000_000))).toBeUndefined()
    expect(canonicalPassword('ｐａｓｓｗｏｒｄ')).toBe('password')
    expect(canonicalPassword('e\u0301'.repeat(128))).toBe('é'.repeat(128))
    // One character that is eighteen in the end.
    expect(canonicalPassword('\uFDFA'.repeat(8))).toBeUndefined()
  })
})

test('addresses of e-mail have one spelling each', () => {
  const same = ['ann@example.com', ' Ann@EXAMPLE.com\n', 'ANN@Example.Com']
  expect(new Set(same.map(canonicalEmail))).toEqual(new Set(['ann@example.com']))
  expect(canonicalEmail('Ann.Lee+news@mail.example.co.uk')).toBe('ann.lee+news@mail.example.co.uk')
  expect(canonicalEmail('ann@Bücher.example')).toBe('ann@xn--bcher-kva.example')
  expect(canonicalEmail('ann@xn--bcher-kva.example')).toBe('ann@xn--bcher-kva.example')
  expect(canonicalEmail('zoe\u0301@example.com')).toBe('zoé@example.com')
  const none = [
    ...['', 'ann', '@example.com', 'ann@', 'ann@localhost', 'ann@example', 'a b@example.com'],
    ...['a@b@example.com', 'ann@-a.example', 'ann@example..com', 'ann@[127.0.0.1]', 'ann@1.2.3.4'],
    ...['"a b"@example.com', 'a,b@example.com', '<a@example.com>', 'a\u0000@example.com'],
    ...['a\u200b@example.com', 'ann@exa mple.com', 'ann@example.com\r\nbcc: x@example.com'],
    ...[`${'a'.repeat(65)}@example.com`, `a@${'b.'.repeat(130)}com`, 'x'.repeat(1_000_000)],
  ]
  for (const one of none)
    expect([one.slice(0, 40), canonicalEmail(one)]).toEqual([one.slice(0, 40), undefined])
})
