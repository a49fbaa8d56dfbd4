-- refill_begin: before the leader's SELECT. What is dropped from here on may be missing from the page: `low` remembers the least of it.
-- uses: unit
-- moves: READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, term, topic...
-- returns {'ok', due clock, T id, T due, cap, hard cap, then per topic: frontier ('' unknown topic), ready} | {'epoch' | 'term', …}
local no = refused(true)
if no then return no end
goes_on_when_full()
local found = {}
for i = 3, #ARGV do
  local name = ARGV[i]
  local t = topic(name)
  measure(t)
  call('HSET', prefix .. 'topic:' .. name, 'low', LAST)
  call('HDEL', prefix .. 'topic:' .. name, 'asked')
  call('SADD', prefix .. 'topics', name)
  found[#found + 1] = t
end
commit()
local answer = { 'ok', whole(now), t_id, whole(t_due), ready_cap, ready_hard }
for i = 1, #found do answer[#answer + 1] = found[i].frontier or ''; answer[#answer + 1] = found[i].size end
return answer
