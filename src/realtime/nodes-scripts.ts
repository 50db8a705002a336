/**
 * What nodes tell each other by way of Redis:
 *
 *   …:nodes      a sorted set: node → when it counts as dead (time of Redis, ms); kept by presence
 *   …:orders     a stream: f node · t text. What nodes are to do, for those that do not listen at the moment
 *
 * On `…:orders`, the channel: `<id in the stream, or -> <the id before it, or -> <number> <node>\n<text>`.
 * On `…:answers:<node>`: `<number> <node that answers>\n<text>`.
 */
import { scriptOf } from '../store/store.ts'

/** Longer than a node that is alive is deaf; a token's end, a ban are told by the log as well. */
const keptMs = 5 * 60_000

/** Kept in that time; a node that missed more misses the oldest. */
const keptMax = 10_000

/** KEYS nodes, stream · ARGV channel, number, node, text, 1 to keep it. Answers the nodes that are alive. */
export const askScript = scriptOf(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, before = '-', '-'
if ARGV[5] == '1' then
  local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  before = newest and newest[1] or '-'
  id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ${keptMax}, '*', 'f', ARGV[3], 't', ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ${keptMs})
end
redis.call('PUBLISH', ARGV[1], id .. ' ' .. before .. ' ' .. ARGV[2] .. ' ' .. ARGV[3] .. '\\n' .. ARGV[4])
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
`)

/** ARGV channel, text. */
export const answerScript = scriptOf(`return redis.call('PUBLISH', ARGV[1], ARGV[2])`)

/** KEYS stream · ARGV the last id that is known, or ''. Answers the newest id, and what came after the known one. */
export const missedScript = scriptOf(`
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local found = {}
if ARGV[1] ~= '' then found = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+') end
local last = ARGV[1] == '' and '0-0' or ARGV[1]
return {newest and newest[1] or last, found}
`)
