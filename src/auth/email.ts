/**
 * E-mail addresses, each in one spelling: trimmed, NFC, in lower case, the domain in ASCII (`xn--…`). By the letter the
 * part before the @ may differ in case; no mail server has been met that does, and users type theirs either way. Dots
 * and `+tags` mean what the owner's server says, so they stay. Mail goes to what is stored, never to what was typed.
 */
import { domainToASCII } from 'node:url'

/** RFC 5321 §4.5.3.1. */
const localLengthMax = 64
const lengthMax = 254

const local = /^[^\s\p{Cc}\p{Cf}"(),:;<>@[\\\]]+$/u
const domain = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$/

/** Undefined: it is none. */
export function canonicalEmail(text: string): string | undefined {
  // Before anything looks at it.
  if (text.length > lengthMax) return undefined
  const whole = text.trim().normalize('NFC').toLowerCase()
  const at = whole.lastIndexOf('@')
  const [name, host] = [whole.slice(0, at), domainToASCII(whole.slice(at + 1))]
  if (at < 1 || name.length > localLengthMax || !local.test(name)) return undefined
  const email = `${name}@${host}`
  return domain.test(host) && email.length <= lengthMax ? email : undefined
}

/**
 * Whose mailbox it may well be, for counting what is sent there: without dots and `+tags`, of which one mailbox has as
 * many as anybody likes. Two mailboxes may be counted as one, which costs nothing but a wait.
 */
export function mailboxOf(email: string): string {
  const at = email.lastIndexOf('@')
  const [name = ''] = email.slice(0, at).split('+')
  return name.replaceAll('.', '') + email.slice(at)
}
