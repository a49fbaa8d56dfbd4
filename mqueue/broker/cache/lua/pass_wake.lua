-- pass_wake: a broker was woken for nobody: another may have somebody.
-- moves: nothing
-- keys  prefix
-- args  epoch, topic
-- returns {'ok'} | {'epoch', epoch}
operation('pass_wake', function()
  local no = refused(false)
  if no then return no end
  if call('ZCARD', prefix .. 'ready:' .. ARGV[2]) > 0 then wake(topic(ARGV[2])) end
  return { 'ok' }
end)
