-- load_keys: keys of whole requests that outlived their epoch, before the next one is opened.
-- uses: unit
-- moves: nothing
-- keys  prefix
-- args  '', term, then per key: hash, key record with its ids
-- returns {'ok'} | {'term', a later one}
if tonumber(ARGV[2]) < term then return { 'term', whole(term) } end
goes_on_when_full()
for i = 3, #ARGV, 2 do
  call('HSET', prefix .. 'keys', ARGV[i], ARGV[i + 1])
  call('ZADD', prefix .. 'request_keys', unpack1('>I8', ARGV[i + 1], 35), ARGV[i])
end
return { 'ok' }
