-- lead: a new leader raises the term in Redis and brings its limits, before it reads anything.
-- uses: unit
-- moves: nothing
-- keys  prefix
-- args  epoch it expects, term, >I8... ready cap, ready hard cap, delayed max, buffer max (bytes), bytes of all that Redis may hold
-- returns {'ok', epoch ('' when Redis knows none)} | {'term', a later one}
local later = tonumber(ARGV[2])
if later < term then return { 'term', whole(term) } end
goes_on_when_full()
call('HSET', shard_key, 'term', ARGV[2], 'limits', ARGV[3])
return { 'ok', epoch or '' }
