-- end_epoch: Redis forgets the epoch: what it holds may not be what it should.
-- uses: unit
-- moves: nothing
-- keys  prefix
-- args  epoch that ends ('' whichever it is)
-- returns {'ok'}
call('DEL', prefix .. 'none') -- a write in any case: who is refused it must not believe that the epoch has ended
if ARGV[1] == '' or ARGV[1] == epoch then call('HDEL', shard_key, 'epoch') end
return { 'ok' }
