-- forget_keys: keys of whole requests that PostgreSQL has now go. From here on a key that is not here may be there, until the last of them ends.
-- moves: nothing
-- keys  prefix
-- args  epoch, term, when the last of them ends (µs), then per key: hash, key record as it was read
-- returns {'ok', how many went} | {'epoch' | 'term', …}
operation('forget_keys', function()
  local no = refused(true)
  if no then return no end
  local asked = {}
  for i = 4, #ARGV, 2 do asked[#asked + 1] = ARGV[i] end
  local got, gone = call('HMGET', keys_key, unpack(asked)), {}
  for i = 1, #asked do
    if got[i] == ARGV[3 + 2 * i] then gone[#gone + 1] = asked[i] end -- one whose time was over may be in use again
  end
  if #gone > 0 then
    local until_then = tonumber(call('HGET', shard_key, 'keys_until') or 0)
    call('HSET', shard_key, 'keys_until', whole(math.max(until_then, tonumber(ARGV[3]))))
    call('HINCRBY', shard_key, 'keys_no', 1)
    drop_keys(gone)
    call('ZREM', prefix .. 'request_keys', unpack(gone))
    call('HSET', shard_key, 'used', whole(used))
  end
  return { 'ok', #gone }
end)
