-- extend: renew leases.
-- moves: nothing
-- keys  prefix
-- args  epoch, then per lease: id, topic, receipt ('' any), lease ms (0: the message's own)
-- returns {'ok', verdicts} with one letter each: o ok, s stale, g no record | {'epoch', epoch}
operation('extend', function()
  local no = refused(false)
  if no then return no end
  local ids, verdicts = {}, {}
  for i = 2, #ARGV, 4 do ids[#ids + 1] = ARGV[i] end
  load(ids)
  for i = 2, #ARGV, 4 do
    local id, name, receipt, lease_ms = unpack(ARGV, i, i + 3)
    local r = records[id]
    if not r or is_gone(r) or topic_of(r) ~= name then verdicts[#verdicts + 1] = 'g'
    elseif state_of(r) ~= 'l' or (receipt ~= '' and sub(r, 61, 72) ~= receipt) then verdicts[#verdicts + 1] = 's'
    else
      lease_ms = tonumber(lease_ms)
      local until_ = now + (lease_ms > 0 and lease_ms or unpack1('>I4', r, 47)) * 1000
      put(id, sub(r, 1, 72) .. pack('>I8', until_) .. sub(r, 81))
      zadd(leases_key, until_, id)
      leases_until(until_)
      verdicts[#verdicts + 1] = 'o'
    end
  end
  commit()
  return { 'ok', table.concat(verdicts) }
end)
