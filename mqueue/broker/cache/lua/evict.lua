-- evict: a slice of an idle topic's ready goes back; the frontier drops to its least key.
-- moves: READY -evict-> SPILL UNPLACED, READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, term, topic, how many at most, bytes to take out (0: all that many)
-- returns {'ok', ready left, bytes taken out} | {'epoch' | 'term', …}
operation('evict', function()
  local no = refused(true)
  if no then return no end
  local t = topic(ARGV[3])
  measure(t)
  if t.size == 0 or not t.frontier then return { 'ok', 0, 0 } end
  local left, wanted, out = math.min(tonumber(ARGV[4]), CALL_MAX), tonumber(ARGV[5]), 0
  local slice = wanted > 0 and 10 or left
  while left > 0 and t.size > 0 and (wanted == 0 or out < wanted) do
    local over = call('ZPOPMAX', t.ready, math.min(slice, left))
    local ids = {}
    for i = 1, #over, 2 do ids[#ids + 1] = sub(over[i], 13) end
    load(ids)
    for i = 1, #ids do
      local r = records[ids[i]]
      out = out + weight(r)
      lower(t, key_of(r))
      spill(t, r)
    end
    t.size = t.size - #ids
    left = left - #ids
  end
  commit()
  return { 'ok', t.size, out }
end)
