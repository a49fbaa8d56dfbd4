-- lead: a new leader raises the term in Redis and brings its limits, before it reads anything.
-- uses: unit
-- moves: nothing
-- keys  prefix
-- args  epoch it expects, term, ready cap, ready hard cap, delayed max, buffer max (bytes), bytes of all that Redis may hold
-- returns {'ok', epoch ('' when Redis knows none)} | {'term', a later one}
local later = tonumber(ARGV[2])
if later < term then return { 'term', whole(term) } end
goes_on_when_full()
call('HSET', shard_key, 'term', ARGV[2], 'ready_cap', ARGV[3], 'ready_hard', ARGV[4], 'delayed_max', ARGV[5], 'buffer_max', ARGV[6],
  'redis_max', ARGV[7])
return { 'ok', epoch or '' }
