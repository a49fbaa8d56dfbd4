-- ask_flush: the leader is asked to flush all there is, now.
-- moves: nothing
-- keys  prefix
-- args  epoch (unused)
-- returns {'ok'}
operation('ask_flush', function()
  call('RPUSH', prefix .. 'flush', '1')
  call('LTRIM', prefix .. 'flush', 0, 0) -- once is enough for all who ask
  return { 'ok' }
end)
