/** How often one user or API key, and one connection, may publish to a pattern's topics. Visitors count by address. */
import type { Identity } from '../auth/auth.ts'
import type { LimitPolicy, Limits } from '../limits/limits.ts'

export interface PublishLimitPlan {
  readonly user?: LimitPolicy | undefined
  readonly connection?: LimitPolicy | undefined
}

/** A client that publishes. */
export interface Author {
  readonly identity: Identity
  /** Of its connection. */
  readonly client: string
  /** Of its peer, if that is known. */
  readonly address?: string | undefined
}

export type MakeLimits = (policy: LimitPolicy) => Limits

export interface PublishLimiter {
  /** Whether `author` may publish once more now. What is refused does not count. */
  take(author: Author): boolean
  /** Nothing came of what was taken last. */
  giveBack(author: Author): void
}

export function createPublishLimiter(make: MakeLimits, plan: PublishLimitPlan): PublishLimiter {
  const users = plan.user && make(plan.user)
  const connections = plan.connection && make(plan.connection)
  return {
    take(author) {
      if (author.identity.kind === 'key') return true
      if (connections && !connections.take(author.client).ok) return false
      if (!users || users.take(nameOf(author)).ok) return true
      connections?.giveBack(author.client)
      return false
    },
    giveBack(author) {
      if (author.identity.kind === 'key') return
      connections?.giveBack(author.client)
      users?.giveBack(nameOf(author))
    },
  }
}

function nameOf({ identity, client, address }: Author): string {
  if (identity.user) return `user:${identity.user.id}`
  if (identity.kind === 'scoped') return `key:${identity.key}`
  return address === undefined ? `client:${client}` : `address:${address}`
}
