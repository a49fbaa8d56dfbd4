-- join: a broker enters the epoch: its first batch will name this sequence as its predecessor.
-- moves: nothing
-- keys  prefix
-- args  epoch, node, sequence (8 bytes; '' only asks), applied as it was asked before (a call that was given up may come late, after others)
-- returns {'ok', applied (8 bytes; '' none), due clock, clock} | {'epoch', epoch} | {'behind', applied}
operation('join', function()
  local no = refused(false)
  if no then return no end
  local applied = also
  if ARGV[3] ~= '' then
    if (applied or '') ~= ARGV[4] then return { 'behind', applied or '' } end
    -- what Redis has of its former life may be in no log
    if applied and applied ~= ARGV[3] then call('HSET', shard_key, 'doubtful:' .. ARGV[2], applied) end
    call('HSET', shard_key, 'applied:' .. ARGV[2], ARGV[3])
    call('HDEL', shard_key, 'reply:' .. ARGV[2])
  end
  commit()
  return { 'ok', applied or '', whole(due_clock()), whole(now) }
end, false, function(args) return 'applied:' .. args[2] end)
