-- time_scan_begin: how far the time scan has come, and how much room `delayed` has.
-- uses: unit
-- keys  prefix
-- args  epoch, term
-- returns {'ok', clock, T due, T id, room} | {'epoch' | 'term', …}
local no = refused(true)
if no then return no end
commit()
return { 'ok', whole(now), whole(t_due), t_id, delayed_max - call('ZCARD', prefix .. 'delayed') }
