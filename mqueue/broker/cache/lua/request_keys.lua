-- request_keys: the keys of whole requests that end first, where there are more than are to stay.
-- moves: nothing
-- keys  prefix
-- args  epoch, term, how many may stay, how many at most
-- returns {'ok', hashes, key records with their ids} | {'epoch' | 'term', …}
operation('request_keys', function()
  local no = refused(true)
  if no then return no end
  local over = call('ZCARD', prefix .. 'request_keys') - tonumber(ARGV[3])
  if over <= 0 then return { 'ok', {}, {} } end
  local hashes = call('ZRANGE', prefix .. 'request_keys', 0, math.min(over, tonumber(ARGV[4])) - 1)
  return { 'ok', hashes, call('HMGET', keys_key, unpack(hashes)) }
end)
