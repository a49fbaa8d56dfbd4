-- refill_begin: before the leader's SELECT. What is dropped from here on may be missing from the page: `low` remembers the least of it.
-- uses: unit
-- moves: READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, term, topic
-- returns {'ok', frontier ('' unknown topic), due clock, T id, T due, ready, cap, hard cap} | {'epoch' | 'term', …}
local no = refused(true)
if no then return no end
goes_on_when_full()
local name = ARGV[3]
local t = topic(name)
measure(t)
call('HSET', prefix .. 'topic:' .. name, 'low', LAST)
call('HDEL', prefix .. 'topic:' .. name, 'asked')
call('SADD', prefix .. 'topics', name)
commit()
return { 'ok', t.frontier or '', whole(now), t_id, whole(t_due), t.size, ready_cap, ready_hard }
