-- arrive: rows that came another way than through this epoch's scripts are placed as if they had.
-- moves: UNPLACED -arrive-> READY DELAYED, DEAD -arrive-> READY DELAYED UNPLACED, READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, term, then per row: record (clean, in_pg), body
-- returns {'ok', placed, ids that must come again later} | {'epoch' | 'term', …}
--
-- What is not due and lies beyond T is left to the time scan, but for what the scan leaves out (it was due when it came: stamped by a clock
-- that was ahead of this one): that comes again until it is due.
operation('arrive', function()
  local no = refused(true)
  if no then return no end
  local ids, later, placed = {}, {}, 0
  for i = 3, #ARGV, 2 do ids[#ids + 1] = id_of(ARGV[i]) end
  load(ids)
  for i = 3, #ARGV, 2 do
    local r, id = ARGV[i], id_of(ARGV[i])
    local known = records[id]
    if not known or (state_of(known) == 'x' and version_of(known) < version_of(r)) then
      local due, in_reach = is_due(r), below_t(due_of(r), id)
      if due or in_reach then
        if known then zrem(prefix .. 'dead:' .. topic_of(known), id) end
        placed = placed + 1
        if due then place(r) else delay(r) end
        if records[id] then bodies[id] = ARGV[i + 1] end
      elseif due_of(r) <= unpack1('>I8', ARGV[i + 1], 5) then later[#later + 1] = id
      elseif known then drop(id); zrem(prefix .. 'dead:' .. topic_of(known), id) end
    end
  end
  commit()
  return { 'ok', placed, later }
end, true)
