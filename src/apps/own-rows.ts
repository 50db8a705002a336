/** Rules that the apps inside the binary share. */
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core'
import { eq, type User } from '../kit.ts'

export type Asker = { readonly user: User | null }

/** Rows of whoever asks; visitors are asked to sign in. */
export const own =
  (userId: SQLiteColumn) =>
  ({ user }: Asker) =>
    user && eq(userId, user.id)
