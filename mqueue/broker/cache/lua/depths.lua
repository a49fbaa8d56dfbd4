-- depths: how much Redis holds of each of these topics. It is one call for many: as commands of their own they would hold the broker's loop.
-- moves: nothing
-- keys  prefix
-- args  epoch (unused), topic...
-- returns {'ok', then per topic: ready, spill, delayed, leased, unflushed, dead}
operation('depths', function()
  local found = { 'ok' }
  for at = 2, #ARGV do
    local name = ARGV[at]
    local counters = call('HMGET', prefix .. 'topic:' .. name, 'delayed', 'leased', 'unflushed')
    local n = #found
    found[n + 1] = call('ZCARD', prefix .. 'ready:' .. name)
    found[n + 2] = call('ZCARD', prefix .. 'spill:' .. name)
    for i = 1, 3 do found[n + 2 + i] = tonumber(counters[i] or 0) end
    found[n + 6] = call('ZCARD', prefix .. 'dead:' .. name)
  end
  return found
end)
