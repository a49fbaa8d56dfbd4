-- fetch: lease the least keys of the named topics.
-- moves: READY -fetch-> LEASED, READY -ttl-> EXPIRED, READY -spill-> SPILL UNPLACED
-- moves: DELAYED -promote-> READY SPILL UNPLACED, LEASED -lease_expiry-> READY SPILL DEAD CANCELLED
-- keys  prefix
-- args  epoch, node, limit, lease ms (0: each message's own), waiting (1: register as a waiter where nothing is left), bytes max,
--       partial (1: leave out the topics that need the leader), topic...
-- returns {'ok', clock, records, bodies, left, topics left out}   least key first; left: ready messages that remain
--       | {'more'}        due messages are still being placed, or expired ones removed: call again
--       | {'ask', topics} nothing here, but PostgreSQL may have a lesser one: the leader was asked for these, and tells when they are open
--       | {'nothing', clock}   and that is true
--       | {'epoch', epoch}
local limit, lease_ms, bytes_max
local all, names                  -- the topics that were named; those that are looked at
local bound                       -- their least frontier: no key at or above it, since PostgreSQL may have a lesser one
local ids, out, bytes, expired
local receipt, ends               -- ends: of a lease of so many ms: the number as a score, receipt and number as a record has them

local function needs_leader(t) return t.size == 0 and t.frontier ~= LAST end

local function look_at_topics(partial) -- returns the names of those that are left out
  local closed = {}
  all, names, bound = {}, {}, LAST
  for i = 8, #ARGV do
    local t = topic(ARGV[i])
    measure(t)
    t.taken = 0
    all[#all + 1] = t
    if partial and needs_leader(t) then closed[#closed + 1] = t.name -- it would hold up the others
    else
      names[#names + 1] = t
      if bound and (not t.frontier or less(t.frontier, bound)) then bound = t.frontier end
    end
  end
  return closed
end

local function lease(ms)
  local at = now + ms * 1000
  leases_until(at)
  ends[ms] = { whole(at), receipt .. pack('>I8', at) }
  return ends[ms]
end

local function take(t, id)        -- leases one, the first that is ready; true when the call is full
  local r = records[id]
  t.size = t.size - 1
  t.taken = t.taken + 1
  local expires, ms = unpack1('>I8I4', r, 39)
  if has_expired(expires) then finish(r, 'e', true); expired = expired + 1; return false end
  if lease_ms > 0 then ms = lease_ms end
  local until_ = ends[ms] or lease(ms)
  r = 'l' .. sub(r, 2, 60) .. until_[2] .. sub(r, 81)
  put(id, r)
  zadd(leases_key, until_[1], id)
  t.leased = (t.leased or 0) + 1
  local n = #out + 1
  ids[n] = id; out[n] = r
  bytes = bytes + size_of(r)
  return n >= limit or bytes >= bytes_max
end

local function key_at(head)       -- of the next of a topic's least members
  if not head.key then head.key = pack('>I4', tonumber(head.got[head.at + 1]) + 2147483648) .. head.got[head.at] end
  return head.key
end

local function merge(heads, step) -- takes the least of all, again and again. Returns: is the call full? was all of it below the bound?
  while #heads > 0 do
    local least = heads[1]
    for i = 2, #heads do
      if less(key_at(heads[i]), key_at(least)) then least = heads[i] end
    end
    if bound ~= LAST and not less(key_at(least), bound) then return false, false end
    if take(least.topic, sub(least.got[least.at], 13)) then return true, true end
    least.at, least.key = least.at + step, nil
    if not least.got[least.at] then
      if least.topic.size > 0 then break end -- it has more, which may be lesser than what the others show
      for i = 1, #heads do if heads[i] == least then table.remove(heads, i); break end end
    end
  end
  return false, true
end

local function take_least()       -- returns whether there is nothing at or above the bound
  -- Where there is nothing to compare, nobody asks for a key, nor for the scores.
  local compares = #names > 1 or bound ~= LAST
  local step = compares and 2 or 1
  local open, looked, wanted = true, 0, limit
  while bound and looked < CALL_MAX do -- again where expired ones made holes: then as many as a call may look at
    local heads, candidates = {}, {}
    local want = math.max(1, math.min(wanted, math.floor((CALL_MAX - looked) / #names)))
    wanted = CALL_MAX
    for i = 1, #names do
      local t = names[i]
      local got = {}
      if t.size > 0 then got = compares and call('ZRANGE', t.ready, 0, want - 1, 'WITHSCORES') or call('ZRANGE', t.ready, 0, want - 1) end
      for j = 1, #got, step do candidates[#candidates + 1] = sub(got[j], 13) end
      if #got > 0 then heads[#heads + 1] = { got = got, at = 1, topic = t } end
    end
    if #candidates == 0 then break end
    looked = looked + #candidates
    load(candidates)
    local before = expired
    local full, all_below = merge(heads, step)
    open = open and all_below
    for i = 1, #names do
      local t = names[i]
      if t.taken > 0 then call('ZREMRANGEBYRANK', t.ready, 0, t.taken - 1); t.taken = 0 end
    end
    write_records()
    if full or expired == before then break end
  end
  return open
end

operation('fetch', function()
  local node, waiting = ARGV[2], ARGV[5] == '1'
  limit, lease_ms, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6])
  ids, out, bytes, expired = {}, {}, 0, 0

  local no = refused(false)
  if no then return no end
  local ended = end_leases()        -- here too: while PostgreSQL is away nobody leads
  if promote() or ended == CALL_MAX then
    push_dirty(0, NO_ID)
    commit()
    return { 'more' }
  end
  write_records() -- what was just placed can be popped

  local closed = look_at_topics(ARGV[7] == '1')
  lease_no = lease_no + 1
  changed.lease_no = true
  receipt, ends = pack('>I4I8', tonumber(epoch), lease_no), {}
  local open = take_least()

  local left = 0
  for i = 1, #names do
    local t = names[i]
    left = left + t.size
    bump(t.name, 'leased', t.leased or 0)
  end
  for i = 1, #all do
    local t = all[i]
    if t.frontier and now - t.fetched > 5000000 then call('HSET', t.key, 'fetched', whole(now)) end
    if t.frontier ~= LAST and t.size < ready_cap / 2 then ask(t) end
    if t.size > 0 then wake(t) end
  end
  push_dirty(0, NO_ID)
  local out_bodies = #ids > 0 and call('HMGET', body_key, unpack(ids))
  if #out == 0 and expired == 0 then
    closed = {}
    for i = 1, #all do if needs_leader(all[i]) then closed[#closed + 1] = all[i].name end end
    if #closed > 0 then open = false; call('ZADD', prefix .. 'openers', now + 5000000, node) end
  end
  if waiting and open and left == 0 and expired == 0 then
    local until_ = now + 5000000
    for i = 1, #names do
      call('ZADD', prefix .. 'waiters:' .. names[i].name, until_, node)
      call('HSET', names[i].key, 'waits', whole(until_))
    end
  end
  commit()
  if #out > 0 then return { 'ok', whole(now), out, out_bodies, left, closed } end
  if expired > 0 then return { 'more' } end
  if not open then return { 'ask', closed } end
  if left > 0 then return { 'more' } end
  return { 'nothing', whole(now) }
end)
