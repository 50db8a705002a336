/** Names by a pattern with `*`. */

/**
 * Whether `text` is these parts with anything between them: `pattern.split('*')`. Greedy from the left, which is
 * right for `*`: costs the length of the text.
 */
export function isLike(text: string, parts: readonly string[]): boolean {
  const [first = '', ...rest] = parts
  const last = rest.pop()
  if (last === undefined) return text === first
  if (!text.startsWith(first) || !text.endsWith(last)) return false
  let at = first.length
  for (const part of rest) {
    const found = text.indexOf(part, at)
    if (found === -1) return false
    at = found + part.length
  }
  return at <= text.length - last.length
}
