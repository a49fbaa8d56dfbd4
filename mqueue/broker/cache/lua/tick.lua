-- tick: the leader's heartbeat in Redis: the clock, what has become due, leases that ended, idempotency keys whose time is over.
-- moves: DELAYED -promote-> READY SPILL UNPLACED, LEASED -lease_expiry-> READY SPILL DEAD CANCELLED, READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, term, the leader's wall clock (µs)
-- returns {'ok', clock, lag µs of the shard clock, jumps} | {'epoch' | 'term', …}
local KEY_EARLY = 40000000 -- of the 60 s that flush_done gives a key
operation('tick', function()
  local no = refused(true)
  if no then return no end
  catch_up(tonumber(ARGV[3]))

  promote()
  end_leases()
  push_dirty(0, NO_ID)
  for _, zset in ipairs({ 'key_ends', 'request_keys' }) do
    local over = call('ZRANGEBYSCORE', prefix .. zset, '-inf', now, 'LIMIT', 0, CALL_MAX)
    if #over > 0 then
      call('ZREMRANGEBYRANK', prefix .. zset, 0, #over - 1)
      call('HDEL', keys_key, unpack(over))
    end
  end
  if total() - used > soft / 4 then -- keys take too much: those that PostgreSQL has go sooner, but for whoever looked for them just now
    local early = call('ZRANGEBYSCORE', prefix .. 'key_ends', '-inf', now + KEY_EARLY, 'LIMIT', 0, CALL_MAX)
    if #early > 0 then
      call('ZREMRANGEBYRANK', prefix .. 'key_ends', 0, #early - 1)
      call('HDEL', keys_key, unpack(early))
    end
  end
  commit()
  return { 'ok', whole(now), whole(seen - now), tonumber(call('HGET', shard_key, 'jumps') or 0) }
end)
