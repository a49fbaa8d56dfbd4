-- ask_flush: the leader is asked to flush all there is, now.
-- uses: unit
-- moves: nothing
-- keys  prefix
-- args  epoch (unused), word
-- returns {'ok'}
goes_on_when_full()
call('RPUSH', prefix .. 'ask', ARGV[2])
call('LTRIM', prefix .. 'ask', -10000, -1)
return { 'ok' }
