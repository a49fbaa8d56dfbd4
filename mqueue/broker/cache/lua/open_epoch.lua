-- open_epoch: a new life of the shard. The old keys are unlinked already. The epoch is written last.
-- moves: nothing
-- keys  prefix
-- args  epoch, term, clock at least, clock at most (µs; between them Redis' TIME decides), limits (as of lead), then per broker: node, position (8 bytes)
-- returns {'ok'} | {'term', a later one}
operation('open_epoch', function()
  if tonumber(ARGV[2]) < term then return { 'term', whole(term) } end
  local clock = math.max(math.min(seen, tonumber(ARGV[4])), tonumber(ARGV[3]), 1)
  for _, field in ipairs(call('HKEYS', shard_key)) do
    if string.find(field, ':', 1, true) then call('HDEL', shard_key, field) end -- of a broker, in the epoch before
  end
  for i = 6, #ARGV, 2 do call('HSET', shard_key, 'applied:' .. ARGV[i], ARGV[i + 1]) end
  call('HSET', shard_key, 'term', ARGV[2], 'clock', whole(clock), 'seen', whole(seen), 't_due', whole(clock), 't_id', NO_ID,
    'limits', ARGV[5], 'buffer', 0, 'number', 0,
    'flushed', 0, 'trimmed', 0, 'lease_no', 0, 'ahead', 0, 'next_due', 0, 'next_end', 0, 'keys_at', 0, 'tick_at', 0, 'held', call('EXISTS', leases_key) == 1 and whole(clock + HOLD_US) or 0)
  call('HSET', shard_key, 'epoch', ARGV[1])
  return { 'ok' }
end)
