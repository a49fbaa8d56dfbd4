-- idle_topics: topics with ready messages, or with nothing at all, that nobody fetched from for long; what holds nothing is forgotten.
-- uses: unit
-- moves: nothing
-- keys  prefix
-- args  epoch, term, idle (µs), topics at most
-- returns {'ok', topics} | {'epoch' | 'term', …}
local no = refused(true)
if no then return no end
goes_on_when_full()
local idle, most = tonumber(ARGV[3]), tonumber(ARGV[4])
local found = {}
for _, name in ipairs(call('SRANDMEMBER', prefix .. 'topics', most)) do
  local key = prefix .. 'topic:' .. name
  local got = call('HMGET', key, 'fetched', 'delayed', 'leased', 'unflushed')
  if now - tonumber(got[1] or 0) > idle then
    if call('ZCARD', prefix .. 'ready:' .. name) > 0 then found[#found + 1] = name
    elseif tonumber(got[2] or 0) == 0 and tonumber(got[3] or 0) == 0 and tonumber(got[4] or 0) == 0
      and call('EXISTS', prefix .. 'spill:' .. name, prefix .. 'dead:' .. name) == 0 then
      call('DEL', key, prefix .. 'waiters:' .. name)
      call('SREM', prefix .. 'topics', name)
    end
  end
end
commit()
return { 'ok', found }
