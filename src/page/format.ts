/** Values as people read them. Market time is UTC+10 all year, so no time zone table is asked. */

const marketOffsetMs = 10 * 60 * 60_000

/** From here on cents are noise: the price cap is above 15,000. */
const wholeDollarsFrom = 1_000

const minus = '\u2212'

const cents = new Intl.NumberFormat('en-AU', { minimumFractionDigits: 2, maximumFractionDigits: 2 })
const whole = new Intl.NumberFormat('en-AU', { maximumFractionDigits: 0 })

/** `$61.20`, `−$38.01`, `$15,100`. */
export function formatPrice(price: number): string {
  const size = amount(Math.abs(price))
  return `${isNegative(price, size) ? minus : ''}$${size}`
}

export interface Change {
  readonly direction: 'up' | 'down' | 'same'
  /** Arrow and amount: the direction is never told by colour alone. */
  readonly text: string
  /** For a screen reader. */
  readonly spoken: string
}

export function formatChange(now: number, before: number): Change {
  const difference = now - before
  const size = amount(Math.abs(difference))
  if (!/[1-9]/.test(size)) {
    return { direction: 'same', text: '= unchanged', spoken: 'unchanged' }
  }
  return difference > 0
    ? { direction: 'up', text: `\u25b2 +${size}`, spoken: `up ${size} dollars` }
    : { direction: 'down', text: `\u25bc ${minus}${size}`, spoken: `down ${size} dollars` }
}

export const formatPower = (megawatts: number): string =>
  `${Math.round(megawatts) < 0 ? minus : ''}${whole.format(Math.abs(Math.round(megawatts)))} MW`

export const formatCount = (count: number): string => whole.format(count)

export const formatShare = (share: number): string =>
  `${(Math.min(1, Math.max(0, share)) * 100).toFixed(share >= 0.9995 || share === 0 ? 0 : 1)} %`

/** `15:05` in market time. */
export function formatTime(ms: number): string {
  return new Date(ms + marketOffsetMs).toISOString().slice(11, 16)
}

const months = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')
const days = 'Sun Mon Tue Wed Thu Fri Sat'.split(' ')

/** `Wed 6 Oct 2021` in market time. */
export function formatDate(ms: number): string {
  const date = new Date(ms + marketOffsetMs)
  const day = days[date.getUTCDay()] ?? ''
  return `${day} ${date.getUTCDate()} ${months[date.getUTCMonth()] ?? ''} ${date.getUTCFullYear()}`
}

function amount(size: number): string {
  return size >= wholeDollarsFrom ? whole.format(size) : cents.format(size)
}

/** What rounds to zero has no sign: `−$0.00` reads like a mistake. */
function isNegative(value: number, shown: string): boolean {
  return value < 0 && /[1-9]/.test(shown)
}
