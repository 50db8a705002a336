/** Tokens that a connection shows and that are refused: they count as at every other door. */
import type { Peer } from './peer.ts'

/** So many from this address were refused that no other is looked at for a while. */
export function isBarred({ context, address }: Peer): boolean {
  const { clock, credentials } = context
  if (credentials?.isOnGuard(clock.tick()) !== true) return false
  return credentials.blocked(address) !== undefined
}

/** One more was refused; `answer` hears whether it was one too many. */
export function countRefused(
  peer: Peer,
  answer: (isTooMany: boolean) => void,
): Promise<void> | undefined {
  const decision = peer.context.credentials?.refused(peer.address) ?? { ok: true }
  if (decision instanceof Promise) {
    return decision.then(({ ok }) => {
      if (peer.state !== 'closed') peer.act(() => answer(!ok))
    })
  }
  answer(!decision.ok)
  return undefined
}
