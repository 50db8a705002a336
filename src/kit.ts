/** All that an app file may import as "belfry". */
export * from './plan/declare.ts'
export * from './collections/declare.ts'
export * from './realtime/declare.ts'
export * from './feeds/declare.ts'
export * from './store/declare.ts'
export * from './http/declare.ts'
export * from './backup/declare.ts'
export type { Audience, User } from './auth/declare.ts'
