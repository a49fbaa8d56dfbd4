-- The unit of work that every script shares: read, decide, and write records and counts at the end, in commit().
-- Epoch, term and predecessor are compared before anything is written; a few scripts write parts of their own earlier.
-- Which moves of a message these functions make is said by the scripts that call them, in their lines `-- moves:`.
--
-- A record (mqueue/broker/format/record.py) is a byte string; ids, keys and sequences stay bytes, since Lua's numbers end at 2^53:
--   1 state  2 flags (1 in_pg, 2 cancelling, 4 unique)  3 attempts  5 max_retries  7 version  11 flushed  15 key(24) = priority+2^31, rank, due, id
--   39 expires  47 lease_ms  51 origin node  53 origin sequence  61 receipt(12) = epoch, number  73 until  81 size  85 topic

-- ---- records ---------------------------------------------------------------------------------------------------------------
local records, bodies             -- id -> record | false, as this call leaves them
local dirty_ids, dirty_keys, tally
local touched                     -- id -> true where the record must be written
local bodiless                    -- id -> true where no body nor error text is left to delete
local add, rem                    -- key -> what goes into a zset, and out of it: written in commit()
local bumps                       -- topic -> field -> change of a counter
local topics                      -- name -> what is known of it
local delays                      -- records that this call delayed

local function emptied(t)         -- a table that the call before has not used is used again
  return t and next(t) == nil and t or {}
end

local function new_unit()
  records, bodies, touched, bodiless = emptied(records), emptied(bodies), emptied(touched), emptied(bodiless)
  dirty_ids, dirty_keys, tally = emptied(dirty_ids), emptied(dirty_keys), emptied(tally)
  add, rem, bumps, topics, delays = emptied(add), emptied(rem), emptied(bumps), emptied(topics), 0
end

local function load(ids)          -- at most CALL_MAX
  local miss = {}
  for i = 1, #ids do if records[ids[i]] == nil then miss[#miss + 1] = ids[i] end end
  if #miss == 0 then return end
  local got = call('HMGET', record_key, unpack(miss))
  for i = 1, #miss do records[miss[i]] = got[i] end
end

local function put(id, record)
  if not records[id] then used = used + weight(record) end
  records[id] = record; touched[id] = true
end

local function drop(id)
  if records[id] then used = used - weight(records[id]) end
  records[id] = false; touched[id] = true
end
local function drop_ended(id) drop(id); bodiless[id] = true end

local function state_of(r) return sub(r, 1, 1) end
local function id_of(r) return sub(r, 31, 38) end
local function key_of(r) return sub(r, 15, 38) end
local function due_of(r) return (unpack1('>I8', r, 23)) end
local function topic_of(r) return sub(r, 85) end
local function version_of(r) return (unpack1('>I4', r, 7)) end
local function flushed_of(r) return (unpack1('>I4', r, 11)) end
local function is_clean(r)
  local version, flushed = unpack1('>I4I4', r, 7)
  return version == flushed
end
-- Each test of a flag asks for its own bit (flags % (2 * flag) >= flag), so that a further flag changes no answer.
local function in_pg(r) return byte(r, 2) % 2 == 1 end
local function is_cancelling(r) return byte(r, 2) % 4 >= 2 end -- only what is leased ever is
-- Adds a flag that the record does not have yet.
local function with_flag(r, flag) return pack('>BB', byte(r), byte(r, 2) + flag) .. sub(r, 3) end
local function size_of(r) return (unpack1('>I4', r, 81)) end
local function with_state(r, state)
  if sub(r, 1, 1) == state then return r end
  return state .. sub(r, 2)
end
local function has_expired(expires) return expires ~= 0 and expires <= now end
local function is_due(r)
  local due = due_of(r)
  return due <= now and (due < t_due or below_t(due, id_of(r)))
end

local function count(topic, kind) -- an end that no row will show: counted by the flush
  local t = tally[topic]
  if not t then t = {}; tally[topic] = t end
  t[kind] = (t[kind] or 0) + 1
end

-- ---- unique keys: who may wait under one and is not flushed, the newest first ----------------------------------------------------
local HOLDERS_MAX = 16
local function is_unique(r) return byte(r, 2) % 8 >= 4 end
local function of_unique(r) return id_of(r) .. rep('\0', 16) .. sub(r, 51, 60) .. rep('\0', 9) .. 'w' end -- as record.IDEMPOTENCY

local function holders_in(known)
  local ids = { sub(known, 1, 8) }
  for run = 45, #known, 12 do ids[#ids + 1] = sub(known, run, run + 7) end
  return ids
end

local function with_holder(known, r)
  if not known then return of_unique(r) end
  local ids = holders_in(known)
  for i = 1, #ids do if ids[i] == id_of(r) then return known end end
  if #ids >= HOLDERS_MAX then return known end
  return known .. id_of(r) .. pack('>I4', 1)
end

-- ---- zsets, gathered and written in commit() -------------------------------------------------------------------------------
local function zadd(key, score, member)
  local t = add[key]
  if not t then t = {}; add[key] = t end
  t[#t + 1] = score; t[#t + 1] = member
end
local function zrem(key, member)
  local t = rem[key]
  if not t then t = {}; rem[key] = t end
  t[#t + 1] = member
end

local function bump(topic, field, by)
  local t = bumps[topic]
  if not t then t = {}; bumps[topic] = t end
  t[field] = (t[field] or 0) + by
end

local function unbuffer(r, name)  -- its bytes leave the write-behind buffer
  if flushed_of(r) == 0 then
    buffer = buffer - size_of(r); changed.buffer = true
    bump(name or topic_of(r), 'unflushed', -1)
  end
end

local function chunked(command, key, args)
  local n = #args
  if n <= 2 * CALL_MAX then call(command, key, unpack(args)); return end
  for i = 1, n, 2 * CALL_MAX do call(command, key, unpack(args, i, math.min(n, i + 2 * CALL_MAX - 1))) end
end

-- ---- topics and the frontier -----------------------------------------------------------------------------------------------
local function topic(name)
  local t = topics[name]
  if t then return t end
  local key = prefix .. 'topic:' .. name
  local got = call('HMGET', key, 'frontier', 'low', 'fetched', 'asked', 'waits')
  t = { name = name, key = key, ready = prefix .. 'ready:' .. name, spill = prefix .. 'spill:' .. name, frontier = got[1], low = got[2] or LAST,
        fetched = tonumber(got[3] or 0), asked = tonumber(got[4] or 0), waits = tonumber(got[5] or 0), placed = 0, excess = 0, known = got[1] and true or false }
  topics[name] = t
  return t
end

local function measure(t)         -- how many are ready
  if t.size then return end
  t.size, t.own = call('ZCARD', t.ready), {} -- own: the records that this call has placed
end

local function is_above(t, key)   -- all that is ready, and what this call has placed
  if t.size == 0 then return true end
  if not t.top then
    local top = call('ZREVRANGE', t.ready, 0, 0, 'WITHSCORES')
    t.top = top[1] and pack('>I4', tonumber(top[2]) + 2147483648) .. top[1] or key_of(t.own[1])
    for i = 1, #t.own do
      local key = key_of(t.own[i])
      if less(t.top, key) then t.top = key end
    end
  end
  return less(t.top, key)
end

local function lower(t, key)
  t.frontier = key; t.moved = true
end

local function spill(t, r)        -- out of the way: what PostgreSQL has goes, the rest stays until it does
  local key, id = key_of(r), id_of(r)
  if is_clean(r) then
    drop(id)
    if less(key, t.low) then t.low = key; t.moved = true end
  else
    put(id, with_state(r, 's'))
    zadd(t.spill, unpack1('>I4', key) - 2147483648, sub(key, 5))
  end
end

local function place(r)           -- a due message: into ready if it belongs below the frontier and there is room for it
  local t = topic(topic_of(r))
  local priority, _, _, id = unpack1('>I4I4I8c8', r, 15)
  if t.frontier ~= LAST and (not t.frontier or not less(key_of(r), t.frontier)) then return spill(t, r) end
  measure(t)
  local tight = used > soft
  if (tight or t.size >= ready_cap) and is_above(t, key_of(r)) then lower(t, key_of(r)); return spill(t, r) end
  if not t.top then t.own[#t.own + 1] = r elseif t.size == 0 or less(t.top, key_of(r)) then t.top = key_of(r) end
  if tight then
    t.excess = t.excess + size_of(r)
    t.tight = t.tight or {}
    t.tight[id] = size_of(r)
  end
  t.size = t.size + 1
  t.placed = t.placed + 1
  put(id, with_state(r, 'r'))
  zadd(t.ready, priority - 2147483648, sub(r, 19, 38))
end

local function delay(r)
  local id = id_of(r)
  put(id, with_state(r, 'd'))
  delays = delays + 1
  changed.delayed = true
  local due = due_of(r)
  zadd(delayed_key, due, id)
  if due < next_due then next_due = due; changed.next = true end
  bump(topic_of(r), 'delayed', 1)
end

local function place_or_delay(r)
  if is_due(r) then place(r) else delay(r) end
end

local NEVER = 9007199254740992
local function first_of(zset)     -- the least score
  local first = call('ZRANGE', zset, 0, 0, 'WITHSCORES')
  return first[2] and math.floor(tonumber(first[2])) or NEVER
end

-- Places what has become due, at most CALL_MAX. Returns true when more is left.
local function promote()
  if next_due > now or next_due > t_due then return false end
  local ids = call('ZRANGEBYSCORE', delayed_key, '-inf', math.min(now, t_due), 'LIMIT', 0, CALL_MAX)
  local n = #ids
  if n == 0 and not changed.delayed then next_due = first_of(delayed_key); changed.next = true end -- none of this call waits to be written
  if t_due <= now then while n > 0 and not less_id(ids[n], t_id) do
    if call('ZSCORE', delayed_key, ids[n]) + 0 < t_due then break end
    ids[n] = nil; n = n - 1
  end end
  if n == 0 then return false end
  load(ids)
  for i = 1, n do
    zrem(delayed_key, ids[i])
    local r = records[ids[i]]
    if r then bump(topic_of(r), 'delayed', -1); place(r) end
  end
  return n == CALL_MAX
end

local function wake(t)            -- one waiter, on whichever broker it waits
  if t.waits < now then return end
  local name = t.name
  local waiters = prefix .. 'waiters:' .. name
  while true do
    local node = call('ZPOPMIN', waiters)
    if not node[1] then return end
    if tonumber(node[2]) >= now then
      local list = prefix .. 'wake:' .. node[1]
      call('RPUSH', list, name); call('LTRIM', list, -1000, -1); call('EXPIRE', list, 60)
      return
    end
  end
end

-- Asks the leader to refill a topic: each topic once, in `asked:<namespace>`; the namespaces take turns, in `askers`; `ask` is the bell. Again
-- only after a second, since a leader that died has forgotten what it took. So many of a namespace may wait; the others come again and ask.
local ASKED_MAX = 20000
local function ask(t)
  if now - t.asked < 1000000 then return end
  local namespace = string.match(t.name, '^[^/]*')
  if call('ZCARD', prefix .. 'asked:' .. namespace) >= ASKED_MAX then return end
  t.asked = now
  call('HSET', t.key, 'asked', whole(now))
  call('SADD', prefix .. 'topics', t.name)
  call('ZADD', prefix .. 'asked:' .. namespace, 'NX', now, t.name)
  call('ZADD', prefix .. 'askers', 'NX', now, namespace)
  if call('EXISTS', prefix .. 'ask') == 0 then call('RPUSH', prefix .. 'ask', '1') end
end

local function tell_open(names)   -- every broker at which a fetch waits for topics to be opened
  local openers = prefix .. 'openers'
  call('ZREMRANGEBYSCORE', openers, '-inf', now)
  for _, node in ipairs(call('ZRANGE', openers, 0, -1)) do
    local list = prefix .. 'wake:' .. node
    call('RPUSH', list, '!' .. table.concat(names, '\n')); call('LTRIM', list, -1000, -1); call('EXPIRE', list, 60)
  end
end

-- ---- the one place that writes ---------------------------------------------------------------------------------------------
local function push_dirty(node, sequence)
  local parts, n, kinds = {}, 0, 0
  for name, by in pairs(tally) do for kind, many in pairs(by) do
    n = n + 1; kinds = kinds + 1
    parts[n] = pack('>c1I4I2', kind, many, #name) .. name
  end end
  if kinds == 0 and #dirty_ids == 0 and #dirty_keys == 0 and node == 0 then return end
  number = number + 1
  changed.number = true
  local entry = pack('>I8I8I2', number, now, node) .. sequence .. pack('>I2I2I2', kinds, #dirty_ids, #dirty_keys)
    .. table.concat(parts) .. table.concat(dirty_ids) .. table.concat(dirty_keys)
  used = used + #entry + ENTRY_WEIGHT
  call('RPUSH', dirty_key, entry)
end

local function drop_errors(ids)
  for from = 1, #ids, CALL_MAX do
    for _, text in ipairs(call('HMGET', error_key, unpack(ids, from, math.min(#ids, from + CALL_MAX - 1)))) do
      if text then used = used - #text - ERROR_WEIGHT end
    end
  end
  chunked('HDEL', error_key, ids)
end

local function write_records()
  local set, del, bare, sets, dels, bares = {}, {}, {}, 0, 0, 0
  for id in pairs(touched) do
    local r = records[id]
    if r then
      set[sets + 1] = id; set[sets + 2] = r
      sets = sets + 2
      if GONE[byte(r)] then bares = bares + 1; bare[bares] = id end
    else
      dels = dels + 1; del[dels] = id
      if not bodiless[id] then bares = bares + 1; bare[bares] = id end
    end
  end
  if sets > 0 then chunked('HSET', record_key, set) end
  if dels > 0 then chunked('HDEL', record_key, del) end
  if bares > 0 then
    chunked('HDEL', body_key, bare)
    if call('EXISTS', error_key) == 1 then drop_errors(bare) end
  end
  local with = {}
  for id, body in pairs(bodies) do with[#with + 1] = id; with[#with + 1] = body end
  if #with > 0 then chunked('HSET', body_key, with) end
  for key, args in pairs(rem) do chunked('ZREM', key, args) end
  for key, args in pairs(add) do chunked('ZADD', key, args) end
  touched, bodies, rem, add = {}, {}, {}, {}
end

-- The greatest go back, over the hard cap or as many bytes as came in where Redis was full; the frontier drops to the least of them.
local function spill_overflow(t, count)
  local over = call('ZPOPMAX', t.ready, math.min(count, CALL_MAX))
  local ids = {}
  for i = 1, #over, 2 do ids[#ids + 1] = sub(over[i], 13) end
  if #ids == 0 then t.size, t.excess = 0, 0; return end
  load(ids)
  for i = 1, #ids do
    local r = records[ids[i]]
    t.excess = t.excess - size_of(r)
    lower(t, key_of(r))
    spill(t, r)
  end
  t.size = t.size - #ids
end

local function write_topics()
  for name, t in pairs(topics) do
    if not t.known then call('SADD', prefix .. 'topics', name) end
    if t.moved then
      if t.frontier then call('HSET', t.key, 'low', t.low, 'frontier', t.frontier) else call('HSET', t.key, 'low', t.low) end
    end
  end
  for name, fields in pairs(bumps) do for field, by in pairs(fields) do
    if by ~= 0 then call('HINCRBY', prefix .. 'topic:' .. name, field, by) end
  end end
  for _, t in pairs(topics) do if t.placed > 0 then wake(t) end; t.placed = 0 end
  bumps = {} -- a script may commit twice
end

-- Over its cap T falls, never below the clock nor a stamp that is ahead of it: what is due at once stays below it, for the scan leaves it out.
local function let_t_fall()
  local many, most = call('ZCARD', delayed_key), delayed_max
  if used > soft and delays > 0 then most = math.min(most, math.max(many - delays, 0)) end
  if many <= most then return end
  local at = call('ZRANGE', delayed_key, most, most, 'WITHSCORES')
  local due = tonumber(at[2])
  if due > math.max(now, ahead) and below_t(due, at[1]) then t_due, t_id = due, at[1]; changed.t = true end
end

-- Something is due, or a lease ends, before the leader looks again: it is told, once.
local function ring()
  local planned = call('HMGET', shard_key, 'tick_at', 'tick_node')
  local at = math.min(next_due <= t_due and next_due or NEVER, next_end)
  if not planned[2] or at >= tonumber(planned[1]) then return end
  local list = prefix .. 'wake:' .. planned[2]
  call('RPUSH', list, '@'); call('LTRIM', list, -1000, -1); call('EXPIRE', list, 60)
  changed.tick_at, changed.tick_node = at, planned[2]
end

local function write_shard()
  if (changed.next or changed.t) and not changed.tick_node then ring() end
  local fields = { 'clock', whole(now), 'seen', whole(seen), 'used', whole(math.max(used, 0)) }
  local function field(name, value) fields[#fields + 1] = name; fields[#fields + 1] = value end
  if changed.number then field('number', whole(number)) end
  if changed.buffer then field('buffer', whole(buffer)) end
  if changed.ahead then field('ahead', whole(ahead)) end
  if changed.held then field('held', whole(held)) end
  if changed.lease_no then field('lease_no', whole(lease_no)) end
  if changed.next then field('next_due', whole(next_due)); field('next_end', whole(next_end)) end
  if changed.tick_node then field('tick_at', whole(changed.tick_at)); field('tick_node', changed.tick_node) end
  if changed.node then field('applied:' .. changed.node, changed.applied); field('reply:' .. changed.node, changed.reply) end
  if changed.t then field('t_due', whole(t_due)); field('t_id', t_id) end
  call('HSET', shard_key, unpack(fields))
  if changed.jumps then call('HINCRBY', shard_key, 'jumps', 1); changed.jumps = nil end
end

local function commit(conclude)   -- `conclude` is called before the shard itself is written
  write_records()
  for _, t in pairs(topics) do
    while t.size and t.size > ready_hard do spill_overflow(t, t.size - ready_hard) end
    local many = 1
    while t.excess > 0 and t.size > 1 do
      spill_overflow(t, math.min(many, t.size - 1))
      many = math.min(2 * many, CALL_MAX)
    end
  end
  write_records()
  write_topics()
  if changed.delayed then let_t_fall() end
  if conclude then conclude() end
  write_shard()
end

-- ---- an operation -----------------------------------------------------------------------------------------------------------
local function refused(of_leader) -- another epoch, or a leader of an older term
  if epoch ~= ARGV[1] then return { 'epoch', epoch or '' } end
  if of_leader and tonumber(ARGV[2]) ~= term then return { 'term', whole(term) } end
end

-- Registers an operation under its name. Over its maxmemory Redis refuses it before it begins, or lets it run to its end. What frees memory or
-- only moves what is there runs in any case; what brings messages is refused, and may be called as `<name>_full`: `run` is told, and brings none.
-- `field`: by the arguments, one more field of the shard that it reads.
local function operation(name, run, brings, field)
  local function offer(as, full, flags)
    register{ function_name = LIBRARY .. '_' .. as, flags = flags, callback = function(keys, args)
      if not call then bind() end
      ARGV = args
      if keys[1] ~= prefix then prefix = keys[1]; name_keys() end
      read_shard(field and field(args))
      read_clock()
      new_unit()
      return run(full)
    end }
  end
  offer(brings and name .. '_full' or name, true, { 'allow-oom' })
  if brings then offer(name, false, {}) end
end
