-- pass_wake: a broker was woken for nobody: another may have somebody.
-- uses: unit
-- moves: nothing
-- keys  prefix
-- args  epoch, topic
-- returns {'ok'} | {'epoch', epoch}
local no = refused(false)
if no then return no end
goes_on_when_full()
if call('ZCARD', prefix .. 'ready:' .. ARGV[2]) > 0 then wake(ARGV[2]) end
return { 'ok' }
