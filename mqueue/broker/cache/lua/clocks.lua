-- clocks: the shard clock, T, and what is due by them. What has become due is placed.
-- uses: unit
-- moves: DELAYED -promote-> READY SPILL UNPLACED, READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch
-- returns {'ok', due clock, clock, T due} | {'epoch', epoch}
local no = refused(false)
if no then return no end
goes_on_when_full()
promote()
commit()
return { 'ok', whole(due_clock()), whole(now), whole(t_due) }
