-- take_asked: the topics of the namespace whose turn it is that asked for a refill, those that have waited longest first.
-- moves: nothing
-- keys  prefix
-- args  epoch, term, topics at most
-- returns {'ok', topics} | {'epoch' | 'term', …}
operation('take_asked', function()
  local no = refused(true)
  if no then return no end
  local names = {}
  while #names == 0 do
    local turn = call('ZPOPMIN', prefix .. 'askers')
    if not turn[1] then break end
    local asked = prefix .. 'asked:' .. turn[1]
    local taken = call('ZPOPMIN', asked, tonumber(ARGV[3]))
    for i = 1, #taken, 2 do names[#names + 1] = taken[i] end
    if call('EXISTS', asked) == 1 then call('ZADD', prefix .. 'askers', now, turn[1]) end
  end
  commit()
  return { 'ok', names }
end)
