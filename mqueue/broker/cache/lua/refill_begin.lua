-- refill_begin: before the leader's SELECT. What is dropped from here on may be missing from the page: `low` remembers the least of it.
-- uses: unit
-- moves: READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, term, topic
-- returns {'ok', frontier ('' unknown topic), due clock, T id, T due, ready, cap, hard cap, bytes that a page may have (0: no room), 1 where
--         others must make room} | {'epoch' | 'term', …}
local no = refused(true)
if no then return no end
local name = ARGV[3]
local t = topic(name)
measure(t)
call('HSET', prefix .. 'topic:' .. name, 'low', LAST)
call('HDEL', prefix .. 'topic:' .. name, 'asked')
call('SADD', prefix .. 'topics', name)
commit()
-- A topic that has nothing ready gets a small page in any case: refill_end takes of it what it can.
local floor = math.min(FLOOR, math.floor(soft / 16))
local page, pressed = math.floor(math.min(soft * 3 / 4 - total(), 1e9)), 0
if page < floor then
  page, pressed = t.size == 0 and floor or 0, t.size == 0 and 1 or 0
end
return { 'ok', t.frontier or '', whole(now), t_id, whole(t_due), t.size, ready_cap, ready_hard, page, pressed }
