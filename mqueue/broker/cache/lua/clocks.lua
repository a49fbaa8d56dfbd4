-- clocks: the shard clock, T, and what is due by them. What has become due is placed. After a pause of all brokers it may come before the
-- first tick: what is enqueued then must not be stamped with a clock that stood still.
-- moves: DELAYED -promote-> READY SPILL UNPLACED, READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, the broker's wall clock (µs)
-- returns {'ok', due clock, clock, T due} | {'epoch', epoch}
operation('clocks', function()
  local no = refused(false)
  if no then return no end
  catch_up(tonumber(ARGV[2]))
  promote()
  commit()
  return { 'ok', whole(due_clock()), whole(now), whole(t_due) }
end)
