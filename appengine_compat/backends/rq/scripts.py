"""What must happen whole or not at all, in Lua, run by Redis.

The clock of all rules is Redis' own, so that workers on several machines agree.
"""

from __future__ import annotations

from appengine_compat.core import throttle

_CONSTANTS = f"""
local LEAST_RATE, DOUBLING_SECONDS = {throttle.LEAST_RATE}, {throttle.DOUBLING_SECONDS}
local WINDOW_SECONDS = {throttle.WINDOW_SECONDS}
local LONGEST_HOLD_SECONDS = {throttle.LONGEST_HOLD_SECONDS}
"""

_LIBRARY = """
local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end

local function text(number) return string.format('%.6f', number) end

-- Whether RQ has seen a sign of life of more than so many that run this job. (The scores in the
-- job's own list of executions are a minute later than those in the queue's registry.)
local function lives(id, at, others)
  local registry = 'rq:wip:' .. string.match(id, '^[^_]*')
  local found = 0
  for _, execution in ipairs(redis.call('ZRANGE', 'rq:executions:' .. id, 0, -1)) do
    local until_then = redis.call('ZSCORE', registry, id .. ':' .. execution)
    if until_then and tonumber(until_then) > at then found = found + 1 end
  end
  return found > others
end

-- The rules of core/throttle.py; here, since two workers may hear of overload at once.
local function rate_at(at, limit, slowed, since)
  if not slowed then return limit end
  local doublings = math.min(64, math.max(0, at - since) / DOUBLING_SECONDS)
  return math.min(limit, slowed * 2 ^ doublings)
end

local function slow_down(queue, at, retry_after)
  local found = redis.call('HMGET', queue, 'rate', 'slowed', 'slowed_at', 'held_until')
  local limit, slowed, since = tonumber(found[1]) or 500, tonumber(found[2]), tonumber(found[3])
  if limit > 0 and (not since or at - since >= WINDOW_SECONDS) then
    local rate = math.max(LEAST_RATE, rate_at(at, limit, slowed, since) / 2)
    redis.call('HSET', queue, 'slowed', text(math.min(limit, rate)), 'slowed_at', text(at))
  end
  local held = at + math.min(retry_after, LONGEST_HOLD_SECONDS)
  if retry_after > 0 and held > (tonumber(found[4]) or 0) then
    redis.call('HSET', queue, 'held_until', text(held))
  end
end

-- The limits in effect, until when nothing is dispatched, and the tokens as they were last counted.
local function limits(queue, at)
  local found = redis.call('HMGET', queue, 'rate', 'burst', 'concurrency', 'paused', 'held_until',
                           'slowed', 'slowed_at', 'tokens', 'at')
  local limit, burst = tonumber(found[1]) or 500, tonumber(found[2]) or 100
  local rate = rate_at(at, limit, tonumber(found[6]), tonumber(found[7]))
  if rate < limit then burst = math.max(1, math.floor(burst * rate / limit)) end
  local held = tonumber(found[5]) or 0
  -- As long as a worker looks at a paused queue again.
  if found[4] == '1' or limit <= 0 then held = math.max(held, at + 60) end
  return rate, burst, tonumber(found[3]) or 1000, held, tonumber(found[8]), tonumber(found[9])
end

local function tokens_at(at, rate, burst, tokens, updated)
  if not tokens then return burst end
  return math.min(burst, tokens + math.max(0, at - updated) * rate)
end

-- Attempts whose worker was killed hold no place: they are looked for when places run out.
local function is_full(running, concurrency, at)
  if redis.call('ZCARD', running) < concurrency then return false end
  for _, id in ipairs(redis.call('ZRANGE', running, 0, -1)) do
    if not lives(id, at, 0) then redis.call('ZREM', running, id) end
  end
  return redis.call('ZCARD', running) >= concurrency
end

local function forget(id)
  redis.call('DEL', 'rq:job:' .. id, 'rq:results:' .. id, 'rq:executions:' .. id)
end
"""

CREATE = """
-- KEYS: the queue's list, its scheduled registry, RQ's set of queues.
-- ARGV: a word for this call, how many tasks, then for each: job id, tombstone, due ('' for at
-- once), how many fields and values, those.
local results = {}
local position = 3
for number = 1, tonumber(ARGV[2]) do
  local id, tombstone, due = ARGV[position], ARGV[position + 1], ARGV[position + 2]
  local count = tonumber(ARGV[position + 3])
  local first = position + 4
  position = first + count
  local job = 'rq:job:' .. id
  local state = redis.call('HGET', job, 'aec_state')
  if state and redis.call('HGET', job, 'aec_call') == ARGV[1] then
    -- This call came before, and only its answer was lost.
    results[number] = 'ok'
  elseif redis.call('EXISTS', tombstone) == 1 or state == 'done' or state == 'deleted' then
    results[number] = 'tombstoned'
  elseif state == 'failed' then
    results[number] = 'failed'
  elseif state then
    results[number] = 'exists'
  else
    redis.call('HSET', job, 'aec_call', ARGV[1], 'aec_state', 'waiting',
               unpack(ARGV, first, position - 1))
    if due == '' then
      redis.call('RPUSH', KEYS[1], id)
    else
      redis.call('ZADD', KEYS[2], math.floor(tonumber(due)), id)
    end
    results[number] = 'ok'
  end
end
redis.call('SADD', KEYS[3], KEYS[1])
return results
"""

BEGIN = """
-- KEYS: job, queue, running, tombstone. ARGV: job id.
local job, queue, running = KEYS[1], KEYS[2], KEYS[3]
local at = now()
local kept = redis.call('HMGET', job, 'aec_state', 'aec_due', 'aec_reserved')
local state = kept[1]
if not state or state == 'done' or state == 'deleted' then return {'gone'} end
local due = tonumber(kept[2]) or 0
if due > at then return {'wait', text(due - at), 'due'} end
local rate, burst, concurrency, held, tokens, updated = limits(queue, at)
if held > at then return {'wait', text(held - at), 'held'} end
if redis.call('ZSCORE', running, ARGV[1]) then
  -- RQ counts this run as one already.
  if lives(ARGV[1], at, 1) then return {'wait', '5', 'running'} end
  redis.call('ZREM', running, ARGV[1])
end
if is_full(running, concurrency, at) then return {'wait', '1', 'concurrency'} end
local reserved = tonumber(kept[3])
if reserved then
  if reserved > at then return {'wait', text(reserved - at), 'rate'} end
else
  -- A token that is not there yet is reserved: each task waits once, in the order they came.
  tokens = tokens_at(at, rate, burst, tokens, updated) - 1
  redis.call('HSET', queue, 'tokens', text(tokens), 'at', text(at))
  if tokens < -0.000001 then
    local wait = -tokens / rate
    redis.call('HSET', job, 'aec_reserved', text(at + wait))
    return {'wait', text(wait), 'rate'}
  end
end
redis.call('HDEL', job, 'aec_reserved')
if state == 'failed' then
  -- Somebody put it back into the queue from the failed registry: it begins anew.
  redis.call('HDEL', job, 'aec_attempts', 'aec_replies', 'aec_executions', 'aec_status',
             'aec_first')
  redis.call('HSET', job, 'aec_state', 'waiting')
  redis.call('DEL', KEYS[4])
end
redis.call('ZADD', running, text(at), ARGV[1])
local attempts = redis.call('HINCRBY', job, 'aec_attempts', 1)
redis.call('HSETNX', job, 'aec_first', text(at))
-- If the worker dies now, RQ is to run it again at once.
redis.call('HSET', job, 'retry_intervals', '[0]')
local facts = redis.call('HMGET', job, 'aec_first', 'aec_replies', 'aec_executions', 'aec_status')
local retry = redis.call('HMGET', queue, 'retry', 'tombstone_ttl')
-- An attempt that was cut off has left no status: the next is told that no reply came.
redis.call('HSET', job, 'aec_status', '0')
return {'go', attempts, text(at), facts[1], facts[2] or '0', facts[3] or '0',
        attempts > 1 and (facts[4] or '0') or '', text(due), retry[1] or '', retry[2] or ''}
"""

FINISH = """
-- KEYS: job, running, tombstone, the counter's beginning, queue.
-- ARGV: job id, new state, status, replies, executions, wait in seconds, tombstone in seconds,
-- the seconds for which an overloaded target asks for rest ('' where it is not overloaded).
local job = KEYS[1]
local at = now()
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[4] == '1' then
  local counter = KEYS[4] .. math.floor(at)
  redis.call('INCR', counter)
  redis.call('EXPIRE', counter, 90)
end
if ARGV[8] ~= '' then slow_down(KEYS[5], at, tonumber(ARGV[8])) end
local kept = redis.call('HMGET', job, 'aec_state', 'aec_named')
if not kept[1] or kept[1] == 'deleted' then return {'deleted', '0'} end
redis.call('HINCRBY', job, 'aec_replies', ARGV[4])
redis.call('HINCRBY', job, 'aec_executions', ARGV[5])
redis.call('HSET', job, 'aec_state', ARGV[2], 'aec_status', ARGV[3],
           'aec_due', text(at + tonumber(ARGV[6])))
if ARGV[2] ~= 'waiting' and kept[2] == '1' and tonumber(ARGV[7]) > 0 then
  redis.call('SET', KEYS[3], ARGV[2], 'EX', ARGV[7])
end
return {'ok', text(at + tonumber(ARGV[6]))}
"""

DELETE = """
-- KEYS: the queue's list, its scheduled registry, running. ARGV: tombstone in seconds, then for
-- each task: job id, tombstone.
local results = {}
for position = 2, #ARGV, 2 do
  local id, tombstone = ARGV[position], ARGV[position + 1]
  local job = 'rq:job:' .. id
  local state = redis.call('HGET', job, 'aec_state')
  local result = 'ok'
  if redis.call('EXISTS', tombstone) == 1 or (state and state ~= 'waiting') then
    result = 'tombstoned'
  elseif not state then
    result = 'unknown'
  else
    redis.call('SET', tombstone, 'deleted', 'EX', ARGV[1])
    redis.call('LREM', KEYS[1], 1, id)
    redis.call('ZREM', KEYS[2], id)
    if redis.call('ZSCORE', KEYS[3], id) then
      redis.call('HSET', job, 'aec_state', 'deleted')
    else
      forget(id)
    end
  end
  results[#results + 1] = result
end
return results
"""

PURGE = """
-- KEYS: the queue's list, its scheduled registry, running. ARGV: how many at most.
local most = tonumber(ARGV[1])
local ids = redis.call('LRANGE', KEYS[1], 0, most - 1)
if #ids > 0 then
  redis.call('LTRIM', KEYS[1], #ids, -1)
else
  ids = redis.call('ZRANGE', KEYS[2], 0, most - 1)
  if #ids > 0 then redis.call('ZREM', KEYS[2], unpack(ids)) end
end
for _, id in ipairs(ids) do
  -- What else is in an RQ queue is RQ's own, and is forgotten with it, as RQ's "empty" does.
  forget(id)
end
if #ids == 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    local job = 'rq:job:' .. id
    if redis.call('EXISTS', job) == 1 then redis.call('HSET', job, 'aec_state', 'deleted') end
  end
end
return #ids
"""

LOOK = """
-- Moves tasks that have become due into their queues' lists, and returns the queues (by number)
-- that have a task which may be dispatched now. KEYS: for each queue its list, its scheduled
-- registry, its hash and running. ARGV: now as RQ writes it.
local at = now()
local open = {}
for first = 1, #KEYS, 4 do
  local list, scheduled = KEYS[first], KEYS[first + 1]
  local queue, running = KEYS[first + 2], KEYS[first + 3]
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', scheduled, 0, at, 'LIMIT', 0, 200)) do
    local job = 'rq:job:' .. id
    if redis.call('HEXISTS', job, 'aec_state') == 1 then
      redis.call('ZREM', scheduled, id)
      redis.call('HSET', job, 'status', 'queued', 'enqueued_at', ARGV[1])
      redis.call('RPUSH', list, id)
    elseif redis.call('EXISTS', job) == 0 then
      redis.call('ZREM', scheduled, id)
    end
  end
  local head = redis.call('LINDEX', list, 0)
  if head then
    local rate, burst, concurrency, held, tokens, updated = limits(queue, at)
    local may = held <= at and not is_full(running, concurrency, at)
    if may and redis.call('HEXISTS', 'rq:job:' .. head, 'aec_reserved') == 0 then
      may = tokens_at(at, rate, burst, tokens, updated) >= 0.999999
    end
    if may then open[#open + 1] = (first - 1) / 4 end
  end
end
return open
"""

STATS = """
-- KEYS: the queue's list, its scheduled registry, running, the counter's beginning, queue.
local at = now()
local waiting = redis.call('LLEN', KEYS[1])
local later = redis.call('ZCARD', KEYS[2])
local running = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  if lives(id, at, 0) then running = running + 1 end
end
local oldest
local function consider(id)
  local due = id and tonumber(redis.call('HGET', 'rq:job:' .. id, 'aec_due'))
  if due and due <= at and (not oldest or due < oldest) then oldest = due end
end
consider(redis.call('LINDEX', KEYS[1], 0))
consider(redis.call('ZRANGE', KEYS[2], 0, 0)[1])
local counters = {}
for second = math.floor(at) - 59, math.floor(at) do
  counters[#counters + 1] = KEYS[4] .. second
end
local executed = 0
for _, count in ipairs(redis.call('MGET', unpack(counters))) do
  executed = executed + (tonumber(count) or 0)
end
local rate = ''
if redis.call('HEXISTS', KEYS[5], 'rate') == 1 then rate = text(limits(KEYS[5], at)) end
return {waiting + later + running, oldest and text(oldest) or '', executed, running, rate}
"""


def with_library(body: str) -> str:
    """Return a script with what several of them use before it."""
    return _CONSTANTS + _LIBRARY + body
