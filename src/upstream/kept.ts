/** Answers with a validator (ETag, Last-Modified): asked for again, a 304 costs no body and gives the same. */
import { LRUCache } from 'lru-cache'
import type { Answer } from './source.ts'

/** Of all bodies, and of one: what is polled is small. */
const bytesMax = 16 * 1024 * 1024
const bytesEachMax = 1024 * 1024

/** Headers, key and place in the list. */
const overheadBytes = 2_048

export interface Kept {
  /** Adds the conditions, unless there are some already: to what is returned, a 304 is an answer. */
  ask(key: string, headers: Headers): Answer | undefined
  /** The answer as it is: of a 304, `known`, whatever has become of it here meanwhile. */
  settle(key: string, answer: Answer, known: Answer | undefined): Answer
}

const conditions = [
  'if-none-match',
  'if-modified-since',
  'if-match',
  'if-unmodified-since',
  'range',
]

export function createKept(): Kept {
  const answers = new LRUCache<string, Answer>({
    maxSize: bytesMax,
    maxEntrySize: bytesEachMax,
    sizeCalculation: ({ body }) => body.length + overheadBytes,
  })

  return {
    ask(key, headers) {
      const known = answers.get(key)
      if (!known || conditions.some((name) => headers.has(name))) return undefined
      const etag = known.headers.get('etag')
      const modified = known.headers.get('last-modified')
      if (etag !== null) headers.set('if-none-match', etag)
      if (modified !== null) headers.set('if-modified-since', modified)
      return known
    },
    settle(key, answer, known) {
      if (answer.status === 304 && known) {
        const headers = new Headers(known.headers)
        for (const [name, value] of answer.headers) headers.set(name, value)
        // It says how long nothing is.
        const length = known.headers.get('content-length')
        if (length === null) headers.delete('content-length')
        else headers.set('content-length', length)
        return { ...known, headers }
      }
      if (answer.status === 200) {
        const { headers } = answer
        const hasValidator = headers.has('etag') || headers.has('last-modified')
        if (hasValidator && !/\bno-store\b/i.test(headers.get('cache-control') ?? '')) {
          answers.set(key, answer)
        } else answers.delete(key)
      }
      return answer
    },
  }
}
