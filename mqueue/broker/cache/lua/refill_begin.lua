-- refill_begin: before the leader's SELECT. What is dropped from here on may be missing from the page: `low` remembers the least of it.
-- moves: READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, term, topic...
-- returns {'ok', due clock, T id, T due, cap, hard cap, bytes that the pages of all may have, 1 where these are for topics alone that have
--         nothing ready, and others must make room; then per topic: frontier ('' unknown topic), ready} | {'epoch' | 'term', …}
operation('refill_begin', function()
  local no = refused(true)
  if no then return no end
  local found = {}
  for i = 3, #ARGV do
    local name = ARGV[i]
    local t = topic(name)
    measure(t)
    call('HSET', t.key, 'low', LAST)
    call('HDEL', t.key, 'asked')
    call('SADD', prefix .. 'topics', name)
    found[#found + 1] = t
  end
  commit()
  -- Topics that have nothing ready get a small page in any case: refill_end takes of it what it can.
  local floor = math.min(FLOOR, math.floor(soft / 16))
  local room = math.floor(math.min(soft * 3 / 4 - used, 1e9))
  local answer = { 'ok', whole(now), t_id, whole(t_due), ready_cap, ready_hard, math.max(room, floor), room < floor and 1 or 0 }
  for i = 1, #found do answer[#answer + 1] = found[i].frontier or ''; answer[#answer + 1] = found[i].size end
  return answer
end)
