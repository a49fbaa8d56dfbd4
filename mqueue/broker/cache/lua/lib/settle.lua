-- How a delivery ends. Used by apply (settles), and by fetch and tick (leases that are over).
local function leases_until(at)   -- some end then
  if at < next_end then next_end = at; changed.next = true end
end

local function end_lease(r, name) -- of the topic of that name -> the record without receipt
  zrem(leases_key, id_of(r))
  bump(name, 'leased', -1)
  return sub(r, 1, 60) .. NOBODY .. sub(r, 81)
end

local function with_counts(r, attempts, version)
  return sub(r, 1, 2) .. pack('>I2', attempts) .. sub(r, 5, 6) .. pack('>I4', version) .. sub(r, 11)
end

local function with_due(r, due) return sub(r, 1, 22) .. pack('>I8', due) .. sub(r, 31) end

-- A leased message ends for good by an ack: as end_lease and finish, in one step. Returns the version that it ends with.
local function ack(r, id, name)
  local version = version_of(r) + 1
  zrem(leases_key, id)
  bump(name, 'leased', -1)
  if in_pg(r) then
    used = used - weight(r)
    r = 'a' .. sub(r, 2, 6) .. pack('>I4', version) .. sub(r, 11, 60) .. NOBODY .. sub(r, 81)
    used = used + weight(r) -- its body goes
    records[id] = r; touched[id] = true
    dirty_ids[#dirty_ids + 1] = id
  else
    count(name, 'a')
    unbuffer(r, name)
    drop(id)
  end
  return version
end

-- A message ends for good. One of which PostgreSQL has nothing goes at once, unless no log tells of its end (`untold`): the flush of its enqueue
-- must find it then, since a replay would count neither. Otherwise the record stays until the flush that deletes its row. Returns the record.
local function finish(r, state, untold)
  local id = id_of(r)
  r = state .. sub(r, 2, 6) .. pack('>I4', version_of(r) + 1) .. sub(r, 11)
  if untold and not in_pg(r) then -- its place in the buffer is free; that nothing of it is flushed the flush takes back
    buffer = buffer - size_of(r); changed.buffer = true
    r = sub(r, 1, 80) .. pack('>I4', 0) .. sub(r, 85)
  end
  if in_pg(r) or untold then
    if records[id] then used = used + weight(r) - weight(records[id]) end -- its body goes
    put(id, r)
    dirty_ids[#dirty_ids + 1] = id
  else
    count(topic_of(r), state)
    unbuffer(r)
    drop(id)
  end
  return r
end

-- A message that waits ends here and now.
local function take_away(r)
  local key, state = key_of(r), state_of(r)
  local name = topic_of(r)
  if touched[id_of(r)] then write_records() end -- it may have been placed by this very call: removals come before additions
  if state == 'd' then
    zrem(delayed_key, id_of(r)); bump(name, 'delayed', -1)
  elseif state == 's' then
    zrem(prefix .. 'spill:' .. name, sub(key, 5))
  else
    local t = topic(name)
    measure(t) -- now: later it would count what is about to go
    zrem(t.ready, sub(key, 5))
    t.size = t.size - 1
    if t.tight then t.excess = t.excess - (t.tight[id_of(r)] or 0); t.tight[id_of(r)] = nil end
  end
  return finish(r, 'c')
end

-- A message that was leased waits again. Its unique key may be another's meanwhile; of what is flushed a row tells.
local function wait_again(r)
  if is_unique(r) and flushed_of(r) == 0 then
    local id = id_of(r)
    local unique = sub(call('HGET', body_key, id), -16)
    local known = call('HGET', keys_key, unique)
    set_keys({ unique, with_holder(known, r) })
    dirty_ids[#dirty_ids + 1] = id
    dirty_keys[#dirty_keys + 1] = unique
  end
  place_or_delay(r)
end

local function bury(r, reason)
  local id = id_of(r)
  put(id, with_state(r, 'x'))
  zadd(prefix .. 'dead:' .. topic_of(r), 0, id)
  if reason ~= '' then set_error(id, reason) end
end

-- A delivery that ended without an ack: the attempt counts. `due` nil keeps the message's place. Returns the record.
local function fail(r, due, reason, dead, untold)
  if is_cancelling(r) then return finish(r, 'c', untold) end
  local id = id_of(r)
  local attempts, max_retries = unpack1('>I2I2', r, 3)
  attempts = math.min(attempts + 1, 65535)
  r = with_counts(r, attempts, version_of(r) + 1)
  dirty_ids[#dirty_ids + 1] = id
  if dead or attempts > max_retries then
    bury(r, reason)
    return records[id]
  end
  if due then r = with_due(r, due) end
  if reason ~= '' then set_error(id, reason) end
  wait_again(r)
  return r
end

-- Leases that nobody renewed though somebody could have: their messages wait again, or are dead. Returns how many there were, CALL_MAX at most.
local function end_leases()
  if now < held or next_end > now then return 0 end
  local ids = call('ZRANGEBYSCORE', leases_key, '-inf', now, 'LIMIT', 0, CALL_MAX)
  if #ids > 0 then load(ids) else next_end = first_of(leases_key); changed.next = true end
  for i = 1, #ids do
    local r = records[ids[i]]
    if r and state_of(r) == 'l' then
      if state_of(fail(end_lease(r, topic_of(r)), nil, '', false, true)) == 'x' then
        set_error(ids[i], 'the lease expired: the worker died, hung, or took longer than its lease')
      end
    else zrem(leases_key, ids[i]) end
  end
  return #ids
end
