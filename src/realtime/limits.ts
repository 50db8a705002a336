/** What this room holds at most, and how long it waits: all limits of its parts, with Centrifugo's defaults where it has one. */
import type { AdmissionLimits } from './admission.ts'
import type { ConflateLimits } from './conflate.ts'
import type { DrainLimits } from './drain.ts'
import type { HubLimits } from './hub.ts'
import { shardSizeDefault } from './outbox.ts'
import type { ConnectionLimits } from './peer.ts'
import { frameBytesMax } from './protocol.ts'
import { type PumpLimits, turnMsDefault } from './pump.ts'
import type { StreamLimits } from './streams.ts'

export interface Limits
  extends
    HubLimits,
    PumpLimits,
    ConnectionLimits,
    StreamLimits,
    AdmissionLimits,
    DrainLimits,
    ConflateLimits {}

/** The sizes are for 100,000 subscribers in 8 GB. */
export const limitsDefault: Limits = {
  /** A hundred thousand and room for a reconnect storm; more files than this the process seldom has. */
  connectionsMax: 120_000,
  connectionsPerAddressMax: Infinity,
  /** A sixth of all: a machine's own token may open many. */
  connectionsPerUserMax: 20_000,
  /** With a subscription 65 to 100 µs of a core each, with a token to verify twice that: room is left. */
  connectsPerSecond: 4_000,
  connectsBurst: 1_000,
  /** Four seconds: the stock client gives a command up after five. */
  connectsWaitingMax: 16_000,
  drainMs: 5_000,
  topicsPerConnectionMax: 128,
  /** What fits a frame; a client cannot send more anyway. */
  publicationBytesMax: frameBytesMax,
  /** 64,000 publications of 1 KB. */
  historyBytesMax: 64 * 1024 * 1024,
  topicsMax: 100_000,
  shardSize: shardSizeDefault,
  turnMs: turnMsDefault,
  connectMs: 10_000,
  expiryGraceMs: 25_000,
  /** Half of what `Bun.serve` is told to hold at most (256 KB). */
  slowBytes: 128 * 1024,
  /** Below `slowBytes`: a recovery alone never makes a slow reader. */
  replyBytesMax: 112 * 1024,
  historyLimitMax: 1_000,
  /** Above anything a person does, and a cursor's 60 a second. */
  commandsPerSecond: 100,
  /** A connect with all of its 128 subscriptions, each with a history, and room to play. */
  commandsBurst: 512,
  callsPerConnectionMax: 16,
  streamBufferBytesMax: 256 * 1024,
  replayBytesMax: 128 * 1024,
  conflatedKeysMax: 100_000,
  conflatedBytesMax: 32 * 1024 * 1024,
}
