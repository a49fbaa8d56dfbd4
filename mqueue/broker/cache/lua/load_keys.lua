-- load_keys: keys of whole requests that outlived their epoch, before the next one is opened.
-- moves: nothing
-- keys  prefix
-- args  '', term, when the last of those that PostgreSQL alone has ends (µs; 0: there are none), then per key: hash, key record with its ids
-- returns {'ok'} | {'term', a later one}
operation('load_keys', function()
  if tonumber(ARGV[2]) < term then return { 'term', whole(term) } end
  call('HSET', shard_key, 'keys_no', 0, 'keys_until', ARGV[3])
  for i = 4, #ARGV, 2 do
    set_keys({ ARGV[i], ARGV[i + 1] })
    call('ZADD', prefix .. 'request_keys', unpack1('>I8', ARGV[i + 1], 35), ARGV[i])
  end
  call('HSET', shard_key, 'used', whole(used))
  return { 'ok' }
end)
