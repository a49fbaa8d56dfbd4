-- idle_topics: topics with ready messages that nobody fetched from for long. Those that hold nothing are forgotten, and sooner: whoever fetches
-- from topics that do not exist must not fill Redis. Looks at some by chance.
-- moves: nothing
-- keys  prefix
-- args  epoch, term, idle (µs), idle with nothing in it (µs), topics to look at
-- returns {'ok', topics, how many were forgotten} | {'epoch' | 'term', …}
operation('idle_topics', function()
  local no = refused(true)
  if no then return no end
  local idle, empty_idle, most = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
  local found, forgotten = {}, 0
  for _, name in ipairs(call('SRANDMEMBER', prefix .. 'topics', most)) do
    local key = prefix .. 'topic:' .. name
    local got = call('HMGET', key, 'fetched', 'delayed', 'leased', 'unflushed')
    local unused = now - tonumber(got[1] or 0)
    if unused > empty_idle then
      if call('ZCARD', prefix .. 'ready:' .. name) > 0 then
        if unused > idle then found[#found + 1] = name end
      elseif tonumber(got[2] or 0) == 0 and tonumber(got[3] or 0) == 0 and tonumber(got[4] or 0) == 0
        and call('EXISTS', prefix .. 'spill:' .. name, prefix .. 'dead:' .. name) == 0 then
        call('DEL', key, prefix .. 'waiters:' .. name)
        call('SREM', prefix .. 'topics', name)
        forgotten = forgotten + 1
      end
    end
  end
  commit()
  return { 'ok', found, forgotten }
end)
