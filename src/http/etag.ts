/** `If-None-Match` (RFC 9110 §13.1.2): weak comparison, lists, and `*`. */
export function matchesEtag(ifNoneMatch: string, etag: string): boolean {
  if (ifNoneMatch === etag || ifNoneMatch === '*') return true
  if (!ifNoneMatch.includes(',') && !ifNoneMatch.startsWith('W/')) return false
  return ifNoneMatch.split(',').some((one) => one.trim().replace(/^W\//, '') === etag)
}

/** `If-Match` (RFC 9110 §13.1.1): strong comparison, lists, and `*`. */
export function isNamed(ifMatch: string, etag: string): boolean {
  return ifMatch === '*' || ifMatch.split(',').some((one) => one.trim() === etag)
}
