-- time_scan_end: the rows due up to the new time frontier that have no record go into `delayed`; T rises.
-- moves: UNPLACED -scan-> DELAYED, DEAD -scan-> DELAYED
-- keys  prefix
-- args  epoch, term, new T due, new T id, then per row: record (clean, in_pg), body
-- returns {'ok', rows loaded} | {'epoch' | 'term', …}
operation('time_scan_end', function()
  local no = refused(true)
  if no then return no end
  local ids, loaded = {}, 0
  for i = 5, #ARGV, 2 do ids[#ids + 1] = id_of(ARGV[i]) end
  if #ids > 0 then load(ids) end
  for i = 5, #ARGV, 2 do
    local id = id_of(ARGV[i])
    local known = records[id]
    if not known or (state_of(known) == 'x' and version_of(known) < version_of(ARGV[i])) then
      if known then zrem(prefix .. 'dead:' .. topic_of(known), id) end
      delay(ARGV[i])
      bodies[id] = ARGV[i + 1]
      loaded = loaded + 1
    end
  end
  local due = tonumber(ARGV[3])
  if due > t_due or (due == t_due and less_id(t_id, ARGV[4])) then t_due, t_id = due, ARGV[4]; changed.t = true end
  delays = 0 -- T does not fall over what it has just risen over
  commit()
  return { 'ok', loaded }
end, true)
