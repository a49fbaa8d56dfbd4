-- What an operation knows of the shard before it looks at a message: its fields, its clock, and its budget of bytes. `begin` reads them anew for
-- each call: what a variable of the library holds is of the call before, or of another shard.
local prefix, ARGV                -- of this call
local call, sub, byte, rep, pack, unpack1 -- what Redis gives: there is none of it yet while the library is loaded
local LAST                        -- frontier of a topic that is wholly in Redis; a missing one is -infinity
local NOBODY                      -- no receipt, no until
local NO_ID
local CALL_MAX = 1000             -- ids a call may touch in one loop
local AWAY_US = 1000000           -- no script for so long: no broker was there, and nobody could renew a lease
local HOLD_US = 5000000           -- so long after that no lease ends: a worker renews again within this

local shard_key, record_key, body_key, error_key, keys_key, delayed_key, leases_key, dirty_key -- of the prefix
local epoch, term, now, seen, t_due, t_id
local ready_cap, ready_hard, delayed_max, buffer_max, redis_max
local soft                        -- bytes that are not for the buffer: past it nothing is added but what waits for its flush
local buffer, number, lease_no
local held                        -- leases do not end before this
local used                        -- bytes that records, bodies, errors, keys and dirty entries take
local ahead                       -- stamps of what was due at once reach up to here: brokers may be a little ahead of this clock
local next_due, next_end          -- nothing in `delayed` is due before the one, no lease ends before the other: then nobody looks
local also                        -- one more field, which an operation asks for
local changed                     -- fields of the shard hash to write

local function whole(x) return string.format('%.0f', x) end

local function bind()             -- once, by the first call
  call, sub, byte, rep, pack, unpack1 = redis.call, string.sub, string.byte, string.rep, struct.pack, struct.unpack
  LAST, NOBODY, NO_ID = rep('\255', 24), rep('\0', 20), rep('\0', 8)
end

local function name_keys()        -- the shard is another than that of the call before
  shard_key, record_key, body_key, error_key = prefix .. 'shard', prefix .. 'record', prefix .. 'body', prefix .. 'error'
  keys_key, delayed_key, leases_key, dirty_key = prefix .. 'keys', prefix .. 'delayed', prefix .. 'leases', prefix .. 'dirty'
end

local function read_shard(field)
  local shard = call('HMGET', shard_key, 'epoch', 'term', 'clock', 'seen', 't_due', 't_id', 'limits', 'buffer', 'number', 'lease_no', 'held', 'used', 'ahead',
    'next_due', 'next_end', field or 'epoch')
  epoch, term = shard[1], tonumber(shard[2] or 0)
  now, seen = tonumber(shard[3] or 0), tonumber(shard[4] or 0)
  t_due, t_id = tonumber(shard[5] or 0), shard[6] or NO_ID
  if shard[7] then ready_cap, ready_hard, delayed_max, buffer_max, redis_max = unpack1('>I8I8I8I8I8', shard[7])
  else ready_cap, ready_hard, delayed_max, buffer_max, redis_max = 1, 1, 1, 0, math.huge end
  soft = redis_max - buffer_max
  buffer, number, lease_no = tonumber(shard[8] or 0), tonumber(shard[9] or 0), tonumber(shard[10] or 0)
  held, used, ahead = tonumber(shard[11] or 0), tonumber(shard[12] or 0), tonumber(shard[13] or 0)
  next_due, next_end, also = tonumber(shard[14] or 0), tonumber(shard[15] or 0), shard[16]
  changed = {}
end

local function read_clock()       -- the shard clock: adds the steps of TIME; back counts 0, over 5 s counts 5 s
  local time = call('TIME')
  local wall = time[1] * 1000000 + time[2]
  local step = seen == 0 and 0 or wall - seen
  if step < 0 then step = 0 elseif step > 5000000 then step = 5000000; changed.jumps = true end
  now, seen = now + step, wall
  if step > AWAY_US then held = now + HOLD_US; changed.held = true end
end

-- Where Redis' TIME and a broker's wall clock are both past the shard clock, it goes on to the lesser of them: a pause of both is no jump.
local function catch_up(wall)
  local agreed = math.min(seen, wall)
  if agreed > now + AWAY_US then held = agreed + HOLD_US; changed.held = true -- what it missed is no time of a lease
  elseif agreed > now and held > now then held = held + agreed - now; changed.held = true end -- nor shorter for it
  if agreed > now then now = agreed end
end

local function less(a, b) -- byte order, whatever the locale; for keys (24 bytes)
  if a == b then return false end
  local a1, a2, a3, a4, a5, a6 = unpack1('>I4I4I4I4I4I4', a)
  local b1, b2, b3, b4, b5, b6 = unpack1('>I4I4I4I4I4I4', b)
  if a1 ~= b1 then return a1 < b1 end
  if a2 ~= b2 then return a2 < b2 end
  if a3 ~= b3 then return a3 < b3 end
  if a4 ~= b4 then return a4 < b4 end
  if a5 ~= b5 then return a5 < b5 end
  return a6 < b6
end

local function less_id(a, b)
  local a1, a2 = unpack1('>I4I4', a)
  local b1, b2 = unpack1('>I4I4', b)
  if a1 ~= b1 then return a1 < b1 end
  return a2 < b2
end

-- Is (due, id) below the time frontier T? Everything below it is in Redis.
local function below_t(due, id)
  if due ~= t_due then return due < t_due end
  return less_id(id, t_id)
end

local function due_clock() -- what a broker may stamp on a message that is due at once: always below T
  if now < t_due then return now end
  return t_due - 1
end

-- ---- the budget of bytes: `used` changes where a record comes (put), goes (drop) or loses its body (finish), where a key comes or goes, and
-- nowhere else --------------------------------------------------------------------------------------------------------------
-- Upper bounds, for allocators that round more than Valkey's here: it took 170 to 215 bytes for a key, 260 and the body for a message.
local KEY_WEIGHT, GONE_WEIGHT, ENTRY_WEIGHT, ERROR_WEIGHT = 300, 200, 16, 100
local FLOOR = 1048576               -- bytes of a page for a topic that has nothing ready, or for a time frontier that the clock reaches
local GONE = { [97] = true, [99] = true, [101] = true } -- a c e
local function is_gone(r) return GONE[byte(r)] end -- a record that has ended: bytes, since every new string costs

local WEIGHTS_MAX = 4096
local weights, weights_known = {}, 0 -- by size: most messages are alike
local function weight(r)            -- rounded up as an allocator does it: four classes between two powers of two
  if GONE[byte(r)] then return #r + GONE_WEIGHT end
  local size = unpack1('>I4', r, 81)
  local known = weights[size]
  if known then return known end
  local _, exponent = math.frexp(size)
  local step = 2 ^ (exponent - 3)
  known = math.ceil(size / step) * step
  if weights_known >= WEIGHTS_MAX then weights, weights_known = {}, 0 end
  weights[size], weights_known = known, weights_known + 1
  return known
end

local function buffer_taken()       -- bytes of the buffer that no enqueue may have: what waits in it, or what lacks of all of Redis
  return math.max(buffer, math.min(used - soft, buffer_max), 0)
end

local function set_error(id, text)
  local old = call('HSTRLEN', error_key, id)
  used = used + #text - old + (old == 0 and ERROR_WEIGHT or 0)
  call('HSET', error_key, id, text)
end

local function set_keys(pairs_)     -- key, record, key, record ...
  for from = 1, #pairs_, 2 * CALL_MAX do
    used = used + KEY_WEIGHT * call('HSET', keys_key, unpack(pairs_, from, math.min(#pairs_, from + 2 * CALL_MAX - 1)))
  end
end

local function drop_keys(names)     -- CALL_MAX at most
  used = used - KEY_WEIGHT * call('HDEL', keys_key, unpack(names))
end
