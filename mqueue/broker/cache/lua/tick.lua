-- tick: the leader's heartbeat in Redis: the clock, what has become due, leases that ended, idempotency keys whose time is over.
-- moves: DELAYED -promote-> READY SPILL UNPLACED, LEASED -lease_expiry-> READY SPILL DEAD CANCELLED, READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, term, the leader's wall clock (µs), its node, µs until the next tick at most
-- returns {'ok', clock, lag µs of the shard clock, jumps, µs until something is due or a lease ends, that at most} | {'epoch' | 'term', …}
local KEY_EARLY = 40000000 -- of the 60 s that flush_done gives a key
local LOOK = 1000000       -- so long after a look at the keys the next

local function drop_first(zset, up_to) -- the keys whose time is over by then; returns whether there may be more
  local over = call('ZRANGEBYSCORE', prefix .. zset, '-inf', up_to, 'LIMIT', 0, CALL_MAX)
  if #over == 0 then return false end
  call('ZREMRANGEBYRANK', prefix .. zset, 0, #over - 1)
  drop_keys(over)
  return #over == CALL_MAX
end

local function look_at_keys()
  local more = drop_first('key_ends', now)
  more = drop_first('request_keys', now) or more
  if used > soft / 4 and KEY_WEIGHT * call('HLEN', keys_key) > soft / 4 then
    -- keys take too much: those that PostgreSQL has go sooner, but for whoever looked for them just now
    more = drop_first('key_ends', now + KEY_EARLY) or more
  end
  call('HSET', shard_key, 'keys_at', whole(more and now or now + LOOK))
  return more
end

operation('tick', function()
  local no = refused(true)
  if no then return no end
  catch_up(tonumber(ARGV[3]))

  promote()
  end_leases()
  push_dirty(0, NO_ID)
  local more = now >= tonumber(also or 0) and look_at_keys()
  local most = tonumber(ARGV[5])
  local wait
  commit(function()
    local at = math.min(next_due <= t_due and next_due or NEVER, math.max(next_end, held)) -- what T does not reach waits for the scan
    wait = more and 0 or math.max(math.min(at - now, most), 0)
    changed.tick_at, changed.tick_node = now + wait, ARGV[4]
  end)
  return { 'ok', whole(now), whole(seen - now), tonumber(call('HGET', shard_key, 'jumps') or 0), whole(wait) }
end, false, function() return 'keys_at' end)
