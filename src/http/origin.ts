/**
 * Whether a browser's page may open a WebSocket: those of this server, and of `CORS_ORIGIN`. Browsers ask nobody
 * before they open one to anywhere, but they say for whom. Who is no browser says nothing, and is let in.
 */

export type IsAllowedOrigin = (headers: Headers) => boolean

export function createOriginCheck(origins: readonly string[]): IsAllowedOrigin {
  const isAny = origins.includes('*')
  const allowed = new Set(origins)
  return (headers) => {
    const origin = headers.get('origin')
    if (origin === null || isAny || allowed.has(origin)) return true
    // A proxy may speak TLS for us, so the scheme says nothing; the host it passes on does.
    const host = headers.get('host')
    return host !== null && URL.parse(origin)?.host === host.toLowerCase()
  }
}
