-- evict: a slice of an idle topic's ready goes back; the frontier drops to its least key.
-- uses: unit
-- moves: READY -evict-> SPILL UNPLACED, READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, term, topic, how many at most
-- returns {'ok', ready left} | {'epoch' | 'term', …}
local no = refused(true)
if no then return no end
goes_on_when_full()
local t = topic(ARGV[3])
measure(t)
if t.size == 0 or not t.frontier then return { 'ok', 0 } end
local over = call('ZPOPMAX', t.ready, math.min(tonumber(ARGV[4]), CALL_MAX))
local ids = {}
for i = 1, #over, 2 do ids[#ids + 1] = sub(over[i], 13) end
load(ids)
for i = 1, #ids do
  lower(t, key_of(records[ids[i]]))
  spill(t, records[ids[i]])
end
t.size = t.size - #ids
commit()
return { 'ok', t.size }
