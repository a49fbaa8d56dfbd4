-- lead: a new leader raises the term in Redis and brings its limits, before it reads anything.
-- moves: nothing
-- keys  prefix
-- args  epoch it expects, term, token of this leadership, >I8... ready cap, ready hard cap, delayed max, buffer max (bytes), bytes of all that Redis may hold
-- returns {'ok', epoch ('' when Redis knows none)} | {'term', a later one, or this one of another leadership: PostgreSQL forgot that}
operation('lead', function()
  local later = tonumber(ARGV[2])
  local token = call('HGET', shard_key, 'leader')
  if later < term or (later == term and token and token ~= ARGV[3]) then return { 'term', whole(term) } end
  call('HSET', shard_key, 'term', ARGV[2], 'leader', ARGV[3], 'limits', ARGV[4])
  return { 'ok', epoch or '' }
end)
