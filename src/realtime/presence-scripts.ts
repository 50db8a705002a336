/**
 * Who is there, for several nodes:
 *
 *   …:{topic}:here    a hash: client → `<node>\n<user as JSON>\n<info>`
 *   …:node:<node>     a set: the topics in which this node has members
 *   …:nodes           a sorted set: node → when it counts as dead (time of Redis, ms)
 *
 * On the channel: `<node> <topic>`, then a line `+<info>` or `-<info>` for each who came or went.
 */
import { scriptOf } from '../store/store.ts'

const timeMs = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`

/** Given again before it ends; what remains of a whole town that died goes by itself. */
const hereMs = 3_600_000

/** Of a node that has given no sign yet; longer than any that has. */
const firstMs = 60_000

/**
 * KEYS here, node, nodes · ARGV channel, node, topic, 1 if these are all of the node's members, 1 if it has none left,
 * then client and value of each; an empty value has left.
 */
export const changeScript = scriptOf(`${timeMs}
local said, given = {}, {}
local function infoOf(value) return string.match(value, '^[^\\n]*\\n[^\\n]*\\n(.*)$') end
local function go(client, old)
  redis.call('HDEL', KEYS[1], client)
  said[#said + 1] = '-' .. infoOf(old)
end
for index = 6, #ARGV, 2 do
  local client, value = ARGV[index], ARGV[index + 1]
  given[client] = true
  local old = redis.call('HGET', KEYS[1], client)
  if value == '' then
    if old then go(client, old) end
  elseif old ~= value then
    redis.call('HSET', KEYS[1], client, value)
    said[#said + 1] = '+' .. infoOf(value)
  end
end
if ARGV[4] == '1' then
  local all = redis.call('HGETALL', KEYS[1])
  local mine = ARGV[2] .. '\\n'
  for index = 1, #all, 2 do
    local isMine = string.sub(all[index + 1], 1, #mine) == mine
    if isMine and not given[all[index]] then go(all[index], all[index + 1]) end
  end
end
redis.call('PEXPIRE', KEYS[1], ${hereMs})
if ARGV[5] == '1' then
  redis.call('SREM', KEYS[2], ARGV[3])
else
  redis.call('SADD', KEYS[2], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ${hereMs})
  redis.call('ZADD', KEYS[3], 'NX', now + ${firstMs}, ARGV[2])
end
if #said > 0 then
  redis.call('PUBLISH', ARGV[1], ARGV[2] .. ' ' .. ARGV[3] .. '\\n' .. table.concat(said, '\\n'))
end
return #said
`)

/** KEYS nodes · ARGV node, ms. Answers 1 if it has given a sign in that time, and the names of the dead. */
export const beatScript = scriptOf(`${timeMs}
local due = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
local isKnown = due and tonumber(due) > now and tonumber(due) <= now + ARGV[2]
return {isKnown and 1 or 0, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)}
`)

/** KEYS node, nodes · ARGV node. Nothing of it is left; unless it has come back. */
export const buryScript = scriptOf(`${timeMs}
local due = redis.call('ZSCORE', KEYS[2], ARGV[1])
if due and tonumber(due) > now and ARGV[2] ~= '1' then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('SCARD', KEYS[1]) == 0 then redis.call('DEL', KEYS[1]) end
return 1
`)

/** KEYS node. */
export const topicsScript = scriptOf(`return redis.call('SMEMBERS', KEYS[1])`)

/** KEYS here. */
export const listScript = scriptOf(`return redis.call('HGETALL', KEYS[1])`)

/** KEYS here. Members, and how many different users they are. */
export const statsScript = scriptOf(`
local users, count, all = {}, 0, redis.call('HVALS', KEYS[1])
for _, value in ipairs(all) do
  local user = string.match(value, '^[^\\n]*\\n([^\\n]*)')
  if not users[user] then
    users[user] = true
    count = count + 1
  end
end
return {#all, count}
`)
