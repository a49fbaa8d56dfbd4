-- reach: a broker shows that Redis takes writes, and learns whether it is full. The clock goes on: a shard that nobody calls is not alone.
-- moves: nothing
-- keys  prefix
-- args  epoch of the broker (unused), node
-- returns {'ok', full (1 or 0)}
operation('reach', function(full)
  call('HSET', prefix .. 'reached', ARGV[2], whole(seen))
  if epoch then commit() end
  return { 'ok', full and 1 or 0 }
end, true)
