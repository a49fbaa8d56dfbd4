-- clear: a slice of this shard's keys goes, all but the shard hash, whose epoch goes first.
-- moves: READY -clear-> UNPLACED, DELAYED -clear-> UNPLACED, SPILL -clear-> UNPLACED, LEASED -clear-> UNPLACED
-- keys  prefix
-- args  epoch (unused), term, cursor, pattern, how many to look at
-- returns {'ok', next cursor ('0': that was all)} | {'term', a later one}
operation('clear', function()
  if tonumber(ARGV[2]) < term then return { 'term', whole(term) } end
  call('HDEL', shard_key, 'epoch', 'used')
  local found = call('SCAN', ARGV[3], 'MATCH', ARGV[4], 'COUNT', ARGV[5])
  local gone = {}
  for i = 1, #found[2] do
    if found[2][i] ~= shard_key then gone[#gone + 1] = found[2][i] end
  end
  for i = 1, #gone, CALL_MAX do call('UNLINK', unpack(gone, i, math.min(#gone, i + CALL_MAX - 1))) end
  return { 'ok', found[1] }
end)
