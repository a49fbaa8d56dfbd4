-- crowded: how much of its budget Redis holds, and topics with ready messages that could go.
-- moves: nothing
-- keys  prefix
-- args  epoch, term, topics at most (0: none)
-- returns {'ok', bytes used, bytes beyond which nothing is loaded, names, when they were last fetched from (clock µs), how many are ready} | {'epoch' | 'term', …}
operation('crowded', function()
  local no = refused(true)
  if no then return no end
  local names, fetched, ready = {}, {}, {}
  local most = tonumber(ARGV[3])
  for _, name in ipairs(most > 0 and call('SRANDMEMBER', prefix .. 'topics', most) or {}) do
    local many = call('ZCARD', prefix .. 'ready:' .. name)
    if many > 0 then
      names[#names + 1] = name
      fetched[#fetched + 1] = call('HGET', prefix .. 'topic:' .. name, 'fetched') or '0'
      ready[#ready + 1] = many
    end
  end
  commit()
  return { 'ok', whole(used), whole(math.min(soft, 2 ^ 53)), names, fetched, ready }
end)
