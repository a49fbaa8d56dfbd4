-- flush_done: PostgreSQL has committed: note the versions it has, drop what is clean and not needed here, trim the dirty list.
-- moves: SPILL -flush-> UNPLACED, DELAYED -flush-> UNPLACED
-- keys  prefix
-- args  epoch, term, number flushed, trim up to it (1) or not yet (0), versions, key hashes, then per version: id, version (>I4);  then the hashes:
--       of a unique key with the id that it stood for: a row tells of that now
-- returns {'ok', entries left, bytes taken of the buffer} | {'epoch' | 'term', …}     may be repeated
local KEY_KEEP = 60000000

local function note_flushed(id, r, flushed)
  local v = unpack1('>I4', flushed)
  if is_gone(r) then
    if version_of(r) <= v then unbuffer(r); drop_ended(id) end
    return
  end
  if v <= flushed_of(r) then return end
  local state = state_of(r)
  unbuffer(r)
  r = sub(r, 1, 10) .. flushed .. sub(r, 15)
  put(id, r)
  if not is_clean(r) then return end
  local name = topic_of(r)
  if state == 's' then
    drop(id); zrem(prefix .. 'spill:' .. name, sub(key_of(r), 5))
  elseif state == 'x' then
    drop(id); zrem(prefix .. 'dead:' .. name, id)
  elseif state == 'd' and not below_t(due_of(r), id) then
    drop(id); zrem(delayed_key, id); bump(name, 'delayed', -1)
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
  if rest then set_keys({ unique, rest }) else drop_keys({ unique }) end
  return rest
end

local function note_keys(at, hashes) -- of the arguments from `at` on
  local asked = {}
  for i = 1, hashes do asked[i] = sub(ARGV[at + i], 1, 16) end
  local got = call('HMGET', keys_key, unpack(asked))
  local uniques = {} -- key -> what is left of its record; false: nothing. Several of its messages may have been flushed
  for i = 1, hashes do
    local of = sub(ARGV[at + i], 17)
    if of ~= '' then
      local known = uniques[asked[i]]
      if known == nil then known = got[i] end
      uniques[asked[i]] = known and without_holder(asked[i], known, of) or false
    elseif got[i] then
      call('HSET', keys_key, asked[i], sub(got[i], 1, 42) .. '\1' .. sub(got[i], 44))
      zadd(prefix .. 'key_ends', now + KEY_KEEP, asked[i])
    end
  end
end

local function trim(up_to)
  while true do
    local page = call('LRANGE', dirty_key, 0, 99)
    local n = 0
    while n < #page and unpack1('>I8', page[n + 1]) <= up_to do n = n + 1 end
    for i = 1, n do used = used - #page[i] - ENTRY_WEIGHT end
    if n > 0 then call('LTRIM', dirty_key, n, -1) end
    if n < 100 then break end
  end
end

operation('flush_done', function()
  local no = refused(true)
  if no then return no end
  local up_to, trims, versions, hashes = tonumber(ARGV[3]), ARGV[4] == '1', tonumber(ARGV[5]), tonumber(ARGV[6])
  local ids = {}
  for i = 1, versions do ids[i] = ARGV[5 + 2 * i] end
  if versions > 0 then load(ids) end
  for i = 1, versions do
    local r = records[ids[i]]
    if r then note_flushed(ids[i], r, ARGV[6 + 2 * i]) end
  end
  if hashes > 0 then note_keys(6 + 2 * versions, hashes) end
  if trims then
    call('HSET', shard_key, 'trimmed', ARGV[3])
    trim(up_to)
  end
  commit()
  call('HSET', shard_key, 'flushed', ARGV[3])
  return { 'ok', call('LLEN', dirty_key), whole(buffer_taken()) }
end)
