/**
 * Topic names and the patterns that declare them: `prices:{region}` stands for `prices:NSW1`.
 *
 * A name is cut at ':' and compared segment by segment, so a match costs the length of the name and
 * nothing a client sends can make it cost more. That is also why a segment holds one parameter at
 * most: with two of them there would be several readings, and a search among them.
 */

/** Centrifugo's limit; names are keys of maps here and in every subscriber. */
export const nameLengthMax = 255

/** More parts than this is data, not a name. */
const parametersMax = 8

/** What no name contains: white space and control characters, and the comma of `?topics=a,b`. */
const forbidden = /[\s\p{C},]/u

const parameter = /^([^{}]*)\{([a-zA-Z][a-zA-Z0-9_]{0,39})\}([^{}]*)$/

export type Params = Readonly<Record<string, string>>

export interface Matcher {
  readonly pattern: string
  /** The parameters of a name that fits, otherwise undefined. A parameter is never empty. */
  match(name: string): Params | undefined
}

const noParams: Params = Object.freeze({})

export function isTopicName(name: unknown): name is string {
  return (
    typeof name === 'string' &&
    name.length > 0 &&
    name.length <= nameLengthMax &&
    !forbidden.test(name)
  )
}

/** What is wrong with a pattern, for whoever wrote it; undefined when nothing is. */
export function validatePattern(pattern: string): string | undefined {
  if (pattern === '') return 'the name of a topic is empty'
  if (pattern.length > nameLengthMax) return `is longer than ${nameLengthMax} characters`
  if (forbidden.test(pattern)) return 'contains white space, a control character or a comma'
  const names = new Set<string>()
  for (const segment of pattern.split(':')) {
    if (!/[{}]/.test(segment)) continue
    const name = parameter.exec(segment)?.[2]
    if (name === undefined) {
      return `"${segment}" is not a segment: text with at most one {parameter}, segments are parted by ":"`
    }
    if (names.has(name)) return `names {${name}} twice`
    names.add(name)
  }
  return names.size > parametersMax ? `has more than ${parametersMax} parameters` : undefined
}

interface Segment {
  /** Undefined: the segment is plain text, all of it in `before`. */
  readonly name: string | undefined
  readonly before: string
  readonly after: string
}

/** Of a pattern that `validatePattern` found nothing wrong with. */
export function compilePattern(pattern: string): Matcher {
  const segments = pattern.split(':').map(toSegment)
  if (segments.every(({ name }) => name === undefined)) {
    return { pattern, match: (name) => (name === pattern ? noParams : undefined) }
  }
  return { pattern, match: (name) => matchSegments(segments, name) }
}

function toSegment(text: string): Segment {
  const match = parameter.exec(text)
  if (!match) return { name: undefined, before: text, after: '' }
  const [, before = '', name, after = ''] = match
  return { name, before, after }
}

function matchSegments(segments: readonly Segment[], name: string): Params | undefined {
  if (!isTopicName(name)) return undefined
  const parts = name.split(':')
  if (parts.length !== segments.length) return undefined
  const params: Record<string, string> = {}
  for (const [index, segment] of segments.entries()) {
    const part = parts[index] ?? ''
    if (segment.name === undefined) {
      if (part !== segment.before) return undefined
      continue
    }
    const { before, after } = segment
    if (part.length <= before.length + after.length) return undefined
    if (!part.startsWith(before) || !part.endsWith(after)) return undefined
    params[segment.name] = part.slice(before.length, part.length - after.length)
  }
  return params
}
