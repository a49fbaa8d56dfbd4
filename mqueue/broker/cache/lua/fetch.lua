-- fetch: lease the least keys of the named topics.
-- uses: unit settle
-- keys  prefix
-- args  epoch, node, limit, lease ms (0: each message's own), waiting (1: register as a waiter where nothing is left), bytes max, topic...
-- returns {'ok', clock, records, bodies, left}   least key first; left: ready messages that remain
--       | {'more'}        due messages are still being placed: call again
--       | {'ask'}         nothing here, but PostgreSQL may have a lesser one: the leader was asked
--       | {'nothing', clock}   and that is true
--       | {'epoch', epoch}
local node, limit, lease_ms, waiting, bytes_max = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1', tonumber(ARGV[6])

local no = refused(false)
if no then return no end
local ended = end_leases()          -- here too: while PostgreSQL is away nobody leads
if promote() or ended == CALL_MAX then
  push_dirty(0, rep('\0', 8))
  commit()
  return { 'more' }
end
write_records() -- what was just placed can be popped

local out, out_bodies, bytes, expired, left, open = {}, {}, 0, 0, 0, true

local function candidates(t, n)   -- the least n of ready, as keys
  local got = call('ZRANGE', t.ready, 0, n - 1, 'WITHSCORES')
  local keys = {}
  for i = 1, #got, 2 do keys[#keys + 1] = pack('>I4', tonumber(got[i + 1]) + 2147483648) .. got[i] end
  return keys
end

-- No key at or above the least frontier of the named topics: PostgreSQL may have a lesser one.
local names, bound = {}, LAST
for i = 7, #ARGV do names[#names + 1] = topic(ARGV[i]) end
for i = 1, #names do
  local t = names[i]
  measure(t)
  if bound and (not t.frontier or less(t.frontier, bound)) then bound = t.frontier end
end

local function take(key)          -- leases one; true when the call is full
  local id = sub(key, 17)
  local r = records[id]
  zrem(prefix .. 'ready:' .. topic_of(r), sub(key, 5))
  local t = topic(topic_of(r))
  t.size = t.size - 1
  local expires = unpack1('>I8', r, 39)
  if has_expired(expires) then finish(r, 'e'); expired = expired + 1; return false end
  local until_ = now + (lease_ms > 0 and lease_ms or unpack1('>I4', r, 47)) * 1000
  r = 'l' .. sub(r, 2, 60) .. pack('>I4I8I8', tonumber(epoch), lease_no, until_) .. sub(r, 81)
  put(id, r)
  zadd(leases, until_, id)
  bump(topic_of(r), 'leased', 1)
  out[#out + 1] = r
  bytes = bytes + size_of(r)
  return #out >= limit or bytes >= bytes_max
end

lease_no = lease_no + 1
changed.lease_no = true
for _ = 1, bound and 4 or 0 do    -- again where expired ones made holes
  local heads, ids = {}, {}
  local want = math.max(1, math.min(limit - #out, math.floor(CALL_MAX / #names)))
  for i = 1, #names do
    local t = names[i]
    local keys = t.size > 0 and candidates(t, want) or {}
    for j = 1, #keys do ids[#ids + 1] = sub(keys[j], 17) end
    if #keys > 0 then heads[#heads + 1] = { keys = keys, at = 1, topic = t } end
  end
  if #ids == 0 then break end
  load(ids)
  local before, full = expired, false
  while not full and #heads > 0 do -- merge by key
    local least = heads[1]
    for i = 2, #heads do
      if less(heads[i].keys[heads[i].at], least.keys[least.at]) then least = heads[i] end
    end
    if bound ~= LAST and not less(least.keys[least.at], bound) then open = false; break end
    full = take(least.keys[least.at])
    least.at = least.at + 1
    if not least.keys[least.at] then
      if least.topic.size > 0 then break end -- it has more, which may be lesser than what the others show
      for i = 1, #heads do if heads[i] == least then table.remove(heads, i); break end end
    end
  end
  write_records()
  if full or expired == before then break end
end

for i = 1, #names do
  local t = names[i]
  left = left + t.size
  if now - t.fetched > 5000000 then call('HSET', prefix .. 'topic:' .. t.name, 'fetched', whole(now)) end
  if t.frontier ~= LAST then
    if t.size == 0 then open = false end
    if t.size < ready_cap / 2 then ask(t.name, t) end
  end
  if t.size > 0 then wake(t.name) end
end
push_dirty(0, rep('\0', 8))
if #out > 0 then
  local ids = {}
  for i = 1, #out do ids[i] = id_of(out[i]) end
  out_bodies = call('HMGET', prefix .. 'body', unpack(ids))
end
if waiting and open and left == 0 then
  for i = 1, #names do call('ZADD', prefix .. 'waiters:' .. names[i].name, now + 5000000, node) end
end
commit()
if #out > 0 then return { 'ok', whole(now), out, out_bodies, left } end
if not open then return { 'ask' } end
if left > 0 then return { 'more' } end
return { 'nothing', whole(now) }
