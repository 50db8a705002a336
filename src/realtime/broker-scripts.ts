/**
 * What Redis keeps of a topic, and the three steps it takes with it, each of them one:
 *
 *   …:{topic}:meta   e epoch · o offset · m mark of the last publication · h hash of what was last said anew
 *   …:{topic}:log    a stream, ids `<offset>-0`: t time (of Redis) · m mark · p mark of the one before · d data ·
 *                    s of what change it tells: `<source>:<seq>`, or nothing
 *   …:{topic}:seen:… what every node publishes by itself: `<seq in the log> <by whom>`, the newest
 *
 * A mark is a publication's own name. Each knows the one before, so whoever follows sees not only that a number is
 * missing, but also that numbers were given twice: a Redis that took the place of another without its last second.
 *
 * On the channel: `<epoch> <offset> <mark> <topic> <s>\n<data>`. Mark `-`: what the topic kept is gone. Offset 0: a new
 * epoch has begun.
 */
import { scriptOf } from '../store/store.ts'

/** Numbers remembered: of nodes that are so far apart, the slower one's are taken for published. */
const seenMax = 1_000

/** Nodes are not apart for longer, if they share a database. */
const seenMs = 10 * 60_000

/**
 * KEYS meta, log, seen · ARGV channel, topic, data, mark, an epoch if it has none, size, ttl, ttl of meta, once, source, by.
 * Once: a number in the log, told `by`; `differs` from what was last said so; or nothing.
 */
export const publishScript = scriptOf(`
local known = redis.call('HMGET', KEYS[1], 'e', 'o', 'm')
local epoch, last = known[1], known[3] or ''
local seq, change = ARGV[9], ''
if seq == 'differs' then
  local hash = redis.sha1hex(ARGV[3])
  if redis.call('HGET', KEYS[1], 'h') == hash then return {epoch or '', tonumber(known[2] or '0'), 0} end
  redis.call('HSET', KEYS[1], 'h', hash)
elseif seq ~= '' then
  change = ARGV[10] .. ':' .. seq
  local said = seq .. ' ' .. ARGV[11]
  local isOld = redis.call('ZSCORE', KEYS[3], said)
  if not isOld and redis.call('ZCARD', KEYS[3]) >= ${seenMax} then
    local least = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
    isOld = tonumber(seq) < tonumber(least[2])
    if not isOld then redis.call('ZREM', KEYS[3], least[1]) end
  end
  if isOld then return {epoch or '', tonumber(known[2] or '0'), 0} end
  redis.call('ZADD', KEYS[3], seq, said)
  redis.call('PEXPIRE', KEYS[3], ${seenMs})
end
if not epoch then
  epoch = ARGV[5]
  redis.call('HSET', KEYS[1], 'e', epoch)
  redis.call('DEL', KEYS[2])
end
local offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
redis.call('HSET', KEYS[1], 'm', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[8])
if ARGV[6] ~= '0' then
  local time = redis.call('TIME')
  local ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('XADD', KEYS[2], 'MAXLEN', '=', ARGV[6], offset .. '-0', 't', ms, 'm', ARGV[4], 'p', last, 'd', ARGV[3], 's', change)
  redis.call('PEXPIRE', KEYS[2], ARGV[7])
end
redis.call('PUBLISH', ARGV[1], epoch .. ' ' .. offset .. ' ' .. ARGV[4] .. ' ' .. ARGV[2] .. ' ' .. change .. '\\n' .. ARGV[3])
return {epoch, offset, 1}
`)

/**
 * KEYS meta, log · ARGV channel, topic, an epoch if it needs one, size, bytes at most, ttl of meta at least, and
 * what the asker has: epoch (or ''), offset, mark.
 * Answers epoch, offset, mark, time, 1 if the entries go on where the asker is, entries (else: the newest, newest first).
 */
export const stateScript = scriptOf(`
local known = redis.call('HMGET', KEYS[1], 'e', 'o', 'm')
local epoch, offset, mark = known[1], tonumber(known[2] or '0'), known[3] or ''
local size, room = tonumber(ARGV[4]), 0
local theirs, at = ARGV[7], tonumber(ARGV[8])
local isSame, isTwice, found = 0, false, {}
if epoch and epoch == theirs then
  if offset == at then
    if mark == ARGV[9] then isSame = 1 else isTwice = true end
  elseif offset < at then
    isTwice = true
  elseif size > 0 then
    local page = redis.call('XRANGE', KEYS[2], (at + 1) .. '-0', '+', 'COUNT', size)
    local first = page[1]
    if first and first[1] == (at + 1) .. '-0' then
      if first[2][6] ~= ARGV[9] then
        isTwice = true
      else
        room = tonumber(ARGV[5])
        for _, entry in ipairs(page) do room = room - #entry[2][8] end
        if room >= 0 then isSame, found = 1, page end
      end
    end
  end
end
if isTwice or not epoch then
  epoch, offset, mark = ARGV[3], 0, ''
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', 0, 'm', '')
  if theirs ~= '' then redis.call('PUBLISH', ARGV[1], epoch .. ' 0 0 ' .. ARGV[2] .. '\\n') end
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[6]) then redis.call('PEXPIRE', KEYS[1], ARGV[6]) end
if isSame == 0 and size > 0 then
  room = tonumber(ARGV[5])
  local page = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', size)
  for index, entry in ipairs(page) do
    room = room - #entry[2][8]
    if room < 0 or entry[1] ~= (offset - index + 1) .. '-0' then break end
    found[index] = entry
  end
end
local time = redis.call('TIME')
local ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
return {epoch, offset, mark, ms, isSame, found}
`)

/** KEYS meta, log · ARGV channel, topic. */
export const forgetScript = scriptOf(`
redis.call('DEL', KEYS[2])
local known = redis.call('HMGET', KEYS[1], 'e', 'o')
if known[1] then
  redis.call('PUBLISH', ARGV[1], known[1] .. ' ' .. (known[2] or '0') .. ' - ' .. ARGV[2] .. '\\n')
end
return 1
`)
