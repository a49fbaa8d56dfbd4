-- end_epoch: Redis forgets the epoch: what it holds may not be what it should.
-- moves: nothing
-- keys  prefix
-- args  epoch that ends ('' whichever it is)
-- returns {'ok'}
operation('end_epoch', function()
  if ARGV[1] == '' or ARGV[1] == epoch then call('HDEL', shard_key, 'epoch') end
  return { 'ok' }
end)
