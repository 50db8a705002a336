/** `If-None-Match` (RFC 9110 §13.1.2): weak comparison, lists, and `*`. */
export function matchesEtag(ifNoneMatch: string, etag: string): boolean {
  if (ifNoneMatch === etag || ifNoneMatch === '*') return true
  if (!ifNoneMatch.includes(',') && !ifNoneMatch.startsWith('W/')) return false
  return ifNoneMatch.split(',').some((one) => one.trim().replace(/^W\//, '') === etag)
}

/** The answer of this body, or 304 to whoever has it; the headers are the same. */
export function conditional(
  request: Request,
  etag: string,
  headers: Headers | Readonly<Record<string, string>>,
  body: Uint8Array | string,
): Response {
  const ifNoneMatch = request.headers.get('if-none-match')
  return ifNoneMatch !== null && matchesEtag(ifNoneMatch, etag)
    ? new Response(null, { status: 304, headers })
    : new Response(body, { headers })
}

/** `If-Match` (RFC 9110 §13.1.1): strong comparison, lists, and `*`. */
export function isNamed(ifMatch: string, etag: string): boolean {
  return ifMatch === '*' || ifMatch.split(',').some((one) => one.trim() === etag)
}
