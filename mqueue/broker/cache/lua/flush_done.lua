-- flush_done: PostgreSQL has committed: note the versions it has, drop what is clean and not needed here, trim the dirty list.
-- uses: unit
-- moves: SPILL -flush-> UNPLACED, DELAYED -flush-> UNPLACED
-- keys  prefix
-- args  epoch, term, number flushed, trim up to it (1) or not yet (0), versions, key hashes, then per version: id, version (>I4);  then the hashes:
--       of a unique key with the id that it stood for: a row tells of that now
-- returns {'ok', entries left, bytes taken of the buffer} | {'epoch' | 'term', …}     may be repeated
local KEY_KEEP = 60000000
local no = refused(true)
if no then return no end
goes_on_when_full()
local up_to, trims, versions, hashes = tonumber(ARGV[3]), ARGV[4] == '1', tonumber(ARGV[5]), tonumber(ARGV[6])

local ids = {}
for i = 1, versions do ids[i] = ARGV[5 + 2 * i] end
if versions > 0 then load(ids) end
for i = 1, versions do
  local id, flushed = ids[i], ARGV[6 + 2 * i]
  local r = records[id]
  if r then
    local v = unpack1('>I4', flushed)
    local state = state_of(r)
    if is_gone(r) then
      if version_of(r) <= v then unbuffer(r); drop_ended(id) end
    elseif v > flushed_of(r) then
      unbuffer(r)
      r = sub(r, 1, 10) .. flushed .. sub(r, 15)
      put(id, r)
      if is_clean(r) then
        local name = topic_of(r)
        if state == 's' then
          drop(id); zrem(prefix .. 'spill:' .. name, sub(key_of(r), 5))
        elseif state == 'x' then
          drop(id); zrem(prefix .. 'dead:' .. name, id)
        elseif state == 'd' and not below_t(due_of(r), id) then
          drop(id); zrem(prefix .. 'delayed', id); bump(name, 'delayed', -1)
        end
      end
    end
  end
end

local function without_holder(unique, known, flushed) -- returns what is left of the record
  local rest = nil
  local ids = holders_in(known)
  load(ids)
  for i = 1, #ids do
    local r = records[ids[i]]
    if ids[i] ~= flushed and r and not is_gone(r) then rest = with_holder(rest, r) end
  end
  if rest then call('HSET', prefix .. 'keys', unique, rest) else call('HDEL', prefix .. 'keys', unique) end
  return rest
end

local at = 6 + 2 * versions
if hashes > 0 then
  local asked = {}
  for i = 1, hashes do asked[i] = sub(ARGV[at + i], 1, 16) end
  local got = call('HMGET', prefix .. 'keys', unpack(asked))
  local uniques = {} -- key -> what is left of its record; false: nothing. Several of its messages may have been flushed
  for i = 1, hashes do
    local of = sub(ARGV[at + i], 17)
    if of ~= '' then
      local known = uniques[asked[i]]
      if known == nil then known = got[i] end
      uniques[asked[i]] = known and without_holder(asked[i], known, of) or false
    elseif got[i] then
      call('HSET', prefix .. 'keys', asked[i], sub(got[i], 1, 42) .. '\1' .. sub(got[i], 44))
      zadd(prefix .. 'key_ends', now + KEY_KEEP, asked[i])
    end
  end
end
if trims then
  call('HSET', shard_key, 'trimmed', ARGV[3])
  while true do
    local page = call('LRANGE', prefix .. 'dirty', 0, 99)
    local n = 0
    while n < #page and unpack1('>I8', page[n + 1]) <= up_to do n = n + 1 end
    for i = 1, n do used = used - #page[i] - ENTRY_WEIGHT end
    if n > 0 then call('LTRIM', prefix .. 'dirty', n, -1) end
    if n < 100 then break end
  end
end
commit()
call('HSET', shard_key, 'flushed', ARGV[3])
return { 'ok', call('LLEN', prefix .. 'dirty'), whole(buffer_taken()) }
