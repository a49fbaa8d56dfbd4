-- apply: one batch of one broker: enqueues and settles, one number, one dirty entry.
-- moves: UNPLACED -enqueue-> READY DELAYED SPILL, LEASED -ack-> ACKED, LEASED -bury-> DEAD CANCELLED, READY -spill-> SPILL UNPLACED
-- moves: LEASED -nack-> READY DELAYED SPILL DEAD CANCELLED, LEASED -release-> READY DELAYED SPILL UNPLACED CANCELLED
-- moves: LEASED -cancel-> CANCELLED, READY -cancel-> CANCELLED, DELAYED -cancel-> CANCELLED, SPILL -cancel-> CANCELLED, UNPLACED -cancel-> CANCELLED
-- keys  prefix
-- args  epoch, node, previous sequence, sequence, enqueues, settles, last sequence of this broker that may be on no disk ('' none),
--       the stamp of what is due at once (µs; 0: it comes from the log), bytes of all enqueues, per enqueue the number of its group (>I2), and 1 where it
--       has keys (else 0),
--       then per enqueue: record, body;  of one that has keys also: key hash ('' none), key record, unique key ('' none), what PostgreSQL has under it
--       ('' it was decided before; under the key of a whole request: nothing, >I8I8 epoch, how often keys had been moved there):
--       >I8I8 epoch, flush number, then of each row >c8I8 id, expires;  per settle: id, topic, kind (a ack, n nack, b bury, r release,
--       c cancel) and receipt (none: any);  of what is no ack also: error, delays (f8 µs ...)
--       a cancel without a receipt is asked for by somebody who has no lease; its delays: '' or >I8I8 epoch, flush number, and the record of
--       the row that PostgreSQL had then, or none
-- returns {'ok' | 'done', reply} | {'epoch', epoch} | {'behind', applied}
--       reply: >I8 due clock, >I8 clock, >I8 T due, >I8 bytes taken of the buffer; per enqueue >c1c8 (o ok, d duplicate of, r its request was
--       enqueued before, m key reused, p in flight, f buffer full, w Redis full, l look again);
--       per settle >c1c1I4I2I8I2c8B: verdict (o, s stale, g no record, a was cancelled already, r runs: flagged, l look again), state, version, attempts, due, origin node, origin sequence, in_pg
--
-- `done`: this number was applied before (its answer got lost); the kept reply is given again. A group is one request: all or nothing.
-- A unique key is in use while a message that has it waits. Until its messages are flushed `keys` has a record of kind w of it; then rows tell of
-- them, which are true while Redis has no record of their message and no flush has come since they were read.
-- What is due at once must be below T, which may have fallen since its broker heard of it: the time scan would leave it out. It is stamped again.
-- A key of kind r stands with the first message of a request and is the key of all; the ids follow it (record.pack_runs).
local REQUEST_KEYS_MAX = 100000
local NOTHING                     -- an outcome's numbers, where there are none
local FIRST = 11                  -- the argument that the first enqueue stands after
local node, enqueues, settles, groups, shapes
local full, no_room               -- the buffer is full; Redis is
local verdicts, seen_keys
local refused_groups, some_refused -- group -> a letter; is there one?
local holders                     -- unique key -> id of the message that waits under it
local moved, moved_until

-- Is the first use of this key perhaps on no disk? Then a repeat may not be answered yet: its flush settles it.
local function is_doubtful(old)
  local origin, number_then = unpack1('>I2', old, 25), sub(old, 27, 34)
  local name = tostring(origin)
  local last = call('HGET', shard_key, 'doubtful:' .. name)
  local under_way = origin ~= node and call('HGET', shard_key, 'applied:' .. name) == number_then
  if not under_way and not (last and not less_id(last, number_then)) then return false end
  local ids = { sub(old, 1, 8) }
  for run = 45, #old, 12 do
    local head, low, many = sub(old, run, run + 3), unpack1('>I4I4', old, run + 4)
    for n = 0, many - 1 do ids[#ids + 1] = head .. pack('>I4', low + n) end
  end
  load(ids)
  for i = 1, #ids do
    if records[ids[i]] and flushed_of(records[ids[i]]) == 0 then return true end
  end
  return false
end

-- Does a message wait? Not one that its time to live is over for: it will never run.
local function waits(r)
  local state = state_of(r)
  return (state == 'r' or state == 'd' or state == 's') and not has_expired(unpack1('>I8', r, 39))
end

local function load_named(uniques) -- the records that their keys and rows name
  local ids = {}
  for i = 1, #uniques do
    local known, rows = seen_keys[ARGV[uniques[i].at + 5]], ARGV[uniques[i].at + 6]
    if known then for _, id in ipairs(holders_in(known)) do ids[#ids + 1] = id end end
    for row = 17, #rows, 16 do ids[#ids + 1] = sub(rows, row, row + 7) end
    if #ids >= CALL_MAX / 2 then load(ids); ids = {} end
  end
  if #ids > 0 then load(ids) end
end

-- Is what was read of PostgreSQL then still so, where Redis has no record? It is if no flush has come since.
local function is_true_yet(of_epoch, flushed)
  return whole(of_epoch) == epoch and tonumber(call('HGET', shard_key, 'flushed') or 0) <= flushed
end

-- Who waits under a unique key? -> id; or nil and why that cannot be told: p not durable yet, l a flush may have dropped its record; nil: nobody.
local function holder(unique, rows)
  local known = seen_keys[unique]
  for _, id in ipairs(known and holders_in(known) or {}) do
    local r = records[id]
    if r and waits(r) then
      if flushed_of(r) == 0 and is_doubtful(of_unique(r)) then return nil, 'p' end
      return id
    end
  end
  local is_true = is_true_yet(unpack1('>I8I8', rows))
  for row = 17, #rows, 16 do
    local id = sub(rows, row, row + 7)
    if records[id] then
      if waits(records[id]) then return id end
    elseif is_true and not has_expired(unpack1('>I8', rows, row + 8)) then return id end
  end
  return nil, not is_true and 'l' or nil
end

-- May PostgreSQL have this request's key, moved there since its broker looked?
local function is_moved(rows)
  if rows == '' then return false end
  if not moved then
    local told = call('HMGET', shard_key, 'keys_no', 'keys_until')
    moved, moved_until = tonumber(told[1] or 0), tonumber(told[2] or 0)
  end
  if moved_until <= now then return false end
  local of_epoch, looked = unpack1('>I8I8', rows)
  return whole(of_epoch) ~= epoch or looked ~= moved
end

local function group_of(i) return sub(groups, 2 * i - 1, 2 * i) end
local function has_keys(i) return byte(shapes, i) == 49 end

local function refuse(group, letter)
  refused_groups[group] = refused_groups[group] or letter
  some_refused = true
end

-- What is due at once and T does not reach is refused: the time scan would leave it out. It is stamped again.
local function look_at_stamps(stamp)
  if stamp <= now and stamp < t_due then return end
  local at = FIRST
  for i = 1, enqueues do
    local due = due_of(ARGV[at + 1])
    if (due > now or due >= t_due) and due <= unpack1('>I8', ARGV[at + 2], 5) then -- due at once
      if due >= t_due then refuse(group_of(i), 'l')
      elseif due > ahead then ahead = due; changed.ahead = true end
    end
    at = at + (has_keys(i) and 6 or 2)
  end
end

-- Which groups are refused: a key seen with another body, a key whose first use is not durable yet, one that must be looked for again.
local function look_at_key(i, at, taken, mine)
  local group, hash, key = group_of(i), ARGV[at + 3], ARGV[at + 4]
  if hash == '' then return end
  local old = seen_keys[hash] or taken[hash] or mine[hash]
  if not old then mine[hash] = key
  elseif sub(old, 9, 24) ~= sub(key, 9, 24) then refused_groups[group] = 'm'; some_refused = true
  elseif seen_keys[hash] and sub(old, 43, 43) == '\0' and is_doubtful(old) then refuse(group, 'p') end
  if sub(key, 44, 44) == 'r' then
    if old then refuse(group, 'r')
    elseif is_moved(ARGV[at + 6]) then refuse(group, 'l')
    elseif call('ZCARD', prefix .. 'request_keys') >= REQUEST_KEYS_MAX then refuse(group, 'f') end
  end
end

local function look_at_keys()
  local names, keyed, uniques, at = {}, {}, {}, FIRST
  for i = 1, enqueues do
    if has_keys(i) then
      local hash, unique = ARGV[at + 3], ARGV[at + 5]
      keyed[#keyed + 1] = { i = i, at = at }
      if hash ~= '' then names[#names + 1] = hash end
      if unique ~= '' then names[#names + 1] = unique; uniques[#uniques + 1] = keyed[#keyed] end
      at = at + 6
    else at = at + 2 end
  end
  for from = 1, #names, CALL_MAX do
    local upto = math.min(#names, from + CALL_MAX - 1)
    local got = call('HMGET', keys_key, unpack(names, from, upto))
    for i = from, upto do seen_keys[names[i]] = got[i - from + 1] or nil end
  end
  load_named(uniques)
  for _, one in ipairs(uniques) do
    local unique, rows = ARGV[one.at + 5], ARGV[one.at + 6]
    if rows ~= '' then
      local id, why = holder(unique, rows)
      if id then holders[unique] = id elseif why then refuse(group_of(one.i), why) end
    end
  end
  local taken, mine, of = {}, {}, nil -- by the requests before; by this one: a request that is refused takes none
  for _, one in ipairs(keyed) do
    local group = group_of(one.i)
    if group ~= of then
      if of and not refused_groups[of] then for h, k in pairs(mine) do taken[h] = k end end
      mine, of = {}, group
    end
    look_at_key(one.i, one.at, taken, mine)
  end
end

local fresh_keys, of_requests

local function take_keys(at, r, id) -- of a message that is enqueued now
  local hash, key, unique = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  if hash ~= '' then
    seen_keys[hash] = key
    fresh_keys[#fresh_keys + 1] = hash; fresh_keys[#fresh_keys + 1] = key
    if sub(key, 44, 44) == 'r' then of_requests[#of_requests + 1] = unpack1('>I8', key, 35); of_requests[#of_requests + 1] = hash
    else dirty_keys[#dirty_keys + 1] = hash end
  end
  if unique ~= '' then
    holders[unique] = id
    fresh_keys[#fresh_keys + 1] = unique
    fresh_keys[#fresh_keys + 1] = with_holder(ARGV[at + 6] == '' and seen_keys[unique], r)
    dirty_keys[#dirty_keys + 1] = unique
  end
end

-- Why a message is not enqueued -> verdict; nil: it is.
local function refusal(i, at, id)
  if no_room then return 'w' .. id end
  if full then return 'f' .. id end
  if some_refused and refused_groups[group_of(i)] then return refused_groups[group_of(i)] .. id end
  if not has_keys(i) then return nil end
  local old, holding = seen_keys[ARGV[at + 3]], holders[ARGV[at + 5]]
  if old and ARGV[at + 3] ~= '' then return 'd' .. sub(old, 1, 8) end
  if holding then return 'd' .. holding end
end

local function enqueue_all() -- returns where the settles begin
  local at = FIRST
  fresh_keys, of_requests = {}, {}
  for i = 1, enqueues do
    local r = ARGV[at + 1]
    local id = sub(r, 31, 38)
    local why = refusal(i, at, id)
    if why then verdicts[i] = why
    else
      verdicts[i] = 'o' .. id
      dirty_ids[#dirty_ids + 1] = id
      bodies[id] = ARGV[at + 2]
      buffer = buffer + size_of(r)
      bump(topic_of(r), 'unflushed', 1)
      if has_keys(i) then take_keys(at, r, id) end
      place_or_delay(r)
    end
    at = at + (has_keys(i) and 6 or 2)
  end
  changed.buffer = enqueues > 0 or nil
  if #fresh_keys > 0 then set_keys(fresh_keys) end -- before the settles, whose messages may wait again under one
  return at
end

-- The record to cancel: the one that is here, else of the row, if no flush can have dropped its record since that was read.
local function to_cancel(id, row)
  local r = records[id]
  if r then return r end
  if row == '' or not is_true_yet(unpack1('>I8I8', row)) then return nil end
  return sub(row, 17)
end

local function cancel(id, name, row) -- asked for by whoever has no lease
  local r = to_cancel(id, row)
  if not r then return 'l' .. NOTHING end
  if r == '' then return 'g' .. NOTHING end
  if topic_of(r) ~= name then return 'l' .. NOTHING end -- whether this namespace's may be cancelled nobody has looked at
  local state = state_of(r)
  if state == 'c' then return 'a' .. NOTHING end
  if state == 'x' or is_gone(r) then return 'g' .. NOTHING end
  if state == 'l' then
    if not is_cancelling(r) then put(id, with_flag(r, 2)) end
    return 'r' .. NOTHING
  end
  local was_in_pg = in_pg(r)
  r = state == 'n' and finish(r, 'c') or take_away(r)
  return 'oc' .. sub(r, 7, 10) .. sub(r, 3, 4) .. sub(r, 23, 30) .. sub(r, 51, 60) .. (was_in_pg and '\1' or '\0')
end

-- A lease that ends otherwise than by an ack. Returns the record, and its state as an outcome tells it.
local function end_otherwise(kind, r, version, reason, wait)
  if kind == 'c' or (kind == 'r' and is_cancelling(r)) then r = finish(r, 'c')
  elseif kind == 'r' then
    if wait ~= '' then
      r = with_due(with_counts(r, (unpack1('>I2', r, 3)), version + 1), now + unpack1('>d', wait))
      dirty_ids[#dirty_ids + 1] = id_of(r)
    end
    wait_again(r)
  else
    local attempt = unpack1('>I2', r, 3)
    local nth = math.min(attempt, #wait / 8 - 1)
    r = fail(r, now + unpack1('>d', wait, nth * 8 + 1), reason, kind == 'b')
  end
  local state = state_of(r)
  return r, (state == 'x' or state == 'c') and state or 'n'
end

local function settle_all(first)
  local ids, at = {}, first
  for i = 1, settles do
    ids[i] = ARGV[at + 1]
    at = at + (byte(ARGV[at + 3]) == 97 and 3 or 5)
  end
  if settles > 0 then load(ids) end
  local outcomes, said, kind, receipt = {}, nil, nil, nil
  at = first
  for i = 1, settles do
    local id, name = ids[i], ARGV[at + 2]
    if ARGV[at + 3] ~= said then said = ARGV[at + 3]; kind, receipt = sub(said, 1, 1), sub(said, 2) end
    local r = records[id]
    if kind == 'c' and receipt == '' then outcomes[i] = cancel(id, name, ARGV[at + 5])
    elseif not r or is_gone(r) or topic_of(r) ~= name then outcomes[i] = 'g' .. NOTHING
    elseif byte(r) ~= 108 or (receipt ~= '' and sub(r, 61, 72) ~= receipt) then outcomes[i] = 's' .. NOTHING
    elseif kind == 'a' then
      local was_in_pg = in_pg(r)
      local version = ack(r, id, name)
      outcomes[i] = 'oa' .. pack('>I4', version) .. sub(r, 3, 4) .. sub(r, 23, 30) .. sub(r, 51, 60) .. (was_in_pg and '\1' or '\0')
    else
      local origin, version, was_in_pg, state = sub(r, 51, 60), version_of(r), in_pg(r), nil
      r, state = end_otherwise(kind, end_lease(r, name), version, ARGV[at + 4], ARGV[at + 5])
      outcomes[i] = 'o' .. state .. sub(r, 7, 10) .. sub(r, 3, 4) .. sub(r, 23, 30) .. origin .. (was_in_pg and '\1' or '\0')
    end
    at = at + (kind == 'a' and 3 or 5)
  end
  return table.concat(outcomes)
end

operation('apply', function(redis_is_full)
  local previous, sequence, bytes = ARGV[3], ARGV[4], tonumber(ARGV[9])
  node, enqueues, settles, groups, shapes = tonumber(ARGV[2]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[10], ARGV[11]
  NOTHING = NOTHING or rep('\0', 26)
  verdicts, refused_groups, some_refused, seen_keys, holders, moved = {}, {}, false, {}, {}, nil

  local no = refused(false)
  if no then return no end
  if also == sequence then return { 'done', call('HGET', shard_key, 'reply:' .. ARGV[2]) } end
  if also ~= previous then return { 'behind', also or '' } end
  if ARGV[7] ~= '' then call('HSET', shard_key, 'doubtful:' .. ARGV[2], ARGV[7]) end

  if ARGV[8] ~= '0' then look_at_stamps(tonumber(ARGV[8])) end
  no_room = redis_is_full
  full = enqueues > 0 and (buffer > 0 and buffer + bytes > buffer_max or used > 0 and used + bytes > redis_max)
  if string.find(shapes, '1', 1, true) then look_at_keys() end
  local at = enqueue_all()
  local outcomes = settle_all(at)
  push_dirty(node, sequence)
  if #of_requests > 0 then chunked('ZADD', prefix .. 'request_keys', of_requests) end
  commit(function()
    changed.node, changed.applied = ARGV[2], sequence
    changed.reply = pack('>I8I8I8I8', due_clock(), now, t_due, buffer_taken()) .. table.concat(verdicts) .. outcomes
  end)
  return { 'ok', changed.reply }
end, true, function(args) return 'applied:' .. args[2] end)
