-- time_scan_begin: how far the time scan has come, and how much room `delayed` has. What PostgreSQL has and lies beyond T goes back first:
-- T may have fallen over it, and would never rise again while it fills `delayed`.
-- moves: DELAYED -scan-> UNPLACED
-- keys  prefix
-- args  epoch, term
-- returns {'ok', clock, T due, T id, room, bytes that a page may have (0: no room)} | {'epoch' | 'term', …}
operation('time_scan_begin', function()
  local no = refused(true)
  if no then return no end
  local delayed = delayed_key
  local over = call('ZREVRANGE', delayed, 0, CALL_MAX - 1)
  load(over)
  for i = 1, #over do
    local r = records[over[i]]
    if not r or below_t(due_of(r), over[i]) then break end
    if is_clean(r) then drop(over[i]); zrem(delayed, over[i]); bump(topic_of(r), 'delayed', -1) end
  end
  commit()
  -- Half of the budget is for those; a small page comes in any case where the clock would reach T, past which nothing is due.
  local floor = math.min(FLOOR, math.floor(soft / 16))
  local page = math.floor(math.min(soft / 2 - used, 1e9))
  if page < floor then page = t_due - now < 1000000 and used <= redis_max and floor or 0 end
  return { 'ok', whole(now), whole(t_due), t_id, delayed_max - call('ZCARD', delayed), page }
end)
