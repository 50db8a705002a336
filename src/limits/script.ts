/**
 * The windows of all nodes, in Redis: one list per policy and key, one script for all of a request, so that one of
 * each is taken or of none. Redis' own clock (`TIME`) is the only one: nodes' clocks may be wrong by any amount.
 *
 *   list   born │ total │ start │ time count │ time count │ …      times in µs, oldest first
 *
 * Runs as in `runs.ts`: exact up to a quota of 512; above, what lies within a grain is one run that leaves with its
 * last. `born` names a log: if Redis forgets one (a restart, an eviction), whoever knew it is told so (-1), nothing
 * is taken, and it asks again with what it knows. The clock of Redis may jump back: then the newest of a log
 * becomes now, so that nothing stays longer than its window.
 *
 *   ARGV   now or '' │ per key: quota window grain isShadow born n │ n × (age count)
 *   gives  { now, 1 taken | 0 refused | -1 stale, per key: free total reset born newest's age }
 */
import { scriptOf } from '../store/store.ts'

const text = `
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local logs, at, isStale = {}, 2, false
for i, key in ipairs(KEYS) do
  local log = {
    key = key,
    quota = tonumber(ARGV[at]),
    window = tonumber(ARGV[at + 1]),
    grain = tonumber(ARGV[at + 2]),
    isShadow = ARGV[at + 3] == '1',
    carried = {},
  }
  log.keepMs = math.ceil(log.window / 1000) + 1000
  local born, count = ARGV[at + 4], tonumber(ARGV[at + 5])
  at = at + 6
  for n = 1, count do
    log.carried[n] = { tonumber(ARGV[at]), tonumber(ARGV[at + 1]) }
    at = at + 2
  end
  local head = redis.call('LRANGE', key, 0, 3)
  log.born, log.total, log.start = tonumber(head[1]), tonumber(head[2]) or 0, tonumber(head[3]) or 0
  log.first = tonumber(head[4])
  if born ~= '' and born ~= (head[1] or '') then isStale = true end
  logs[i] = log
end

if isStale then
  local told = { now, -1 }
  for _, log in ipairs(logs) do
    for _, value in ipairs({ 0, log.total, 0, log.born or 0, 0 }) do told[#told + 1] = value end
  end
  return told
end

local function look(log)
  local last = redis.call('LRANGE', log.key, -2, -1)
  log.last, log.count = tonumber(last[1]), tonumber(last[2])
end

local function back(log)
  local by = log.last - now
  local runs = redis.call('LRANGE', log.key, 3, -1)
  log.start, log.first, log.last = log.start - by, log.first - by, now
  redis.call('DEL', log.key)
  redis.call('RPUSH', log.key, log.born, log.total, log.start)
  for i = 1, #runs, 2 do redis.call('RPUSH', log.key, tonumber(runs[i]) - by, runs[i + 1]) end
  redis.call('PEXPIRE', log.key, log.keepMs)
end

local function forget(log)
  local cut, gone, size = now - log.window, 0, 64
  if log.first > cut then return end
  while true do
    local chunk = redis.call('LRANGE', log.key, 3 + gone, 2 + gone + size)
    local i = 1
    while i < #chunk and tonumber(chunk[i]) <= cut do
      log.total = log.total - tonumber(chunk[i + 1])
      i = i + 2
    end
    gone = gone + i - 1
    log.first = tonumber(chunk[i])
    if i < #chunk or #chunk < size then break end
  end
  if log.total == 0 then log.first, log.last = nil, nil end
  redis.call('LTRIM', log.key, 3 + gone, -1)
  redis.call('LPUSH', log.key, log.start, log.total, log.born)
  redis.call('PEXPIRE', log.key, log.keepMs)
end

local function add(log, time, count)
  if log.last and time < log.last then time = log.last end
  log.total = log.total + count
  if not log.born then
    log.born, log.start, log.count = now, time, count
    redis.call('RPUSH', log.key, log.born, log.total, log.start, time, count)
  elseif log.last and time - log.start < log.grain then
    log.count = log.count + count
    if log.first == log.last then log.first = time end
    redis.call('LSET', log.key, -2, time)
    redis.call('LSET', log.key, -1, log.count)
    redis.call('LSET', log.key, 1, log.total)
  else
    log.start, log.count = time, count
    redis.call('RPUSH', log.key, time, count)
    redis.call('LSET', log.key, 1, log.total)
    if log.grain > 0 then redis.call('LSET', log.key, 2, time) end
  end
  log.first, log.last = log.first or time, time
  redis.call('PEXPIRE', log.key, log.keepMs)
end

local isFree = true
for _, log in ipairs(logs) do
  if log.total > 0 then
    look(log)
    if log.last > now then back(log) end
    forget(log)
  end
  for _, run in ipairs(log.carried) do
    if run[1] < log.window then add(log, now - run[1], run[2]) end
  end
  log.newest = log.last
  log.isFree = log.total < log.quota
  if not log.isFree and not log.isShadow then isFree = false end
end

local told = { now, isFree and 1 or 0 }
for _, log in ipairs(logs) do
  if isFree and log.isFree then add(log, now, 1) end
  local reset, wanted, from = 0, 0, 3
  if log.first then reset = log.first + log.window - now end
  if not log.isFree then wanted = log.total - log.quota + 1 end
  while wanted > 0 do
    local chunk = redis.call('LRANGE', log.key, from, from + 1)
    if #chunk == 0 then break end
    reset = tonumber(chunk[1]) + log.window - now
    wanted = wanted - tonumber(chunk[2])
    from = from + 2
  end
  told[#told + 1] = log.isFree and 1 or 0
  told[#told + 1] = log.total
  told[#told + 1] = reset
  told[#told + 1] = log.born or 0
  told[#told + 1] = log.newest and now - log.newest or 0
end
return told
`

export const takeScript = scriptOf(text)

/** Numbers of one key in what the script gives, after the first two. */
export const toldPerKey = 5
