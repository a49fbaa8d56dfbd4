-- flush_read: the next dirty entries and the latest versions of what they touched; marks each record in_pg before anything is written.
-- moves: nothing
-- keys  prefix
-- args  epoch, term, entries to skip, ids at most, bytes at most, newest entry wanted (clock µs; 0: all)
-- returns {'ok', entries, ids, records, in_pg flags before (string of 0/1), bodies, errors, key hashes, key records} | {'epoch' | 'term', …}
--         records: false where there is none; bodies and errors: false where the record needs no write
local PAGE = 1000 -- entries at most, and values that one call is given: Lua hands some 8,000 to a call
local entries, ids, hashes, seen_ids, seen_hashes, bytes
local ids_max, bytes_max

local function fits(entry)        -- takes it along, unless the page is full
  local kinds, many, keys = unpack1('>I2I2I2', entry, 27)
  if #entries >= PAGE or #entries > 0 and #ids + many > ids_max then return false end
  local at = 33
  for _ = 1, kinds do
    local len = unpack1('>I2', entry, at + 5)
    at = at + 7 + len
  end
  local mine = {}
  for _ = 1, many do
    local id = sub(entry, at, at + 7)
    at = at + 8
    if not seen_ids[id] then seen_ids[id] = true; mine[#mine + 1] = id end
  end
  load(mine)
  local more = 0
  for i = 1, #mine do
    local r = records[mine[i]]
    if r then more = more + size_of(r) end
  end
  if #entries > 0 and bytes + more > bytes_max then return false end
  bytes = bytes + more
  for i = 1, #mine do ids[#ids + 1] = mine[i] end
  for _ = 1, keys do
    local hash = sub(entry, at, at + 15)
    at = at + 16
    if not seen_hashes[hash] then seen_hashes[hash] = true; hashes[#hashes + 1] = hash end
  end
  entries[#entries + 1] = entry
  return true
end

local function values(key, fields) -- HMGET in parts
  local found = {}
  for from = 1, #fields, PAGE do
    local got = call('HMGET', key, unpack(fields, from, math.min(from + PAGE - 1, #fields)))
    for i = 1, #got do found[from + i - 1] = got[i] end
  end
  return found
end

operation('flush_read', function()
  local no = refused(true)
  if no then return no end
  local skip, newest = tonumber(ARGV[3]), tonumber(ARGV[6])
  ids_max, bytes_max = tonumber(ARGV[4]), tonumber(ARGV[5])
  entries, ids, hashes, seen_ids, seen_hashes, bytes = {}, {}, {}, {}, {}, 0

  local done = false
  while not done do
    local page = call('LRANGE', dirty_key, skip + #entries, skip + #entries + 31)
    if #page == 0 then break end
    for i = 1, #page do
      if newest > 0 and unpack1('>I8', page[i], 9) > newest or not fits(page[i]) then done = true; break end
    end
  end

  local out, flags, bodies_out, errors = {}, {}, {}, {}
  local wanted, where = {}, {}
  for i = 1, #ids do
    local r = records[ids[i]]
    out[i] = r or false
    flags[i] = '0'
    bodies_out[i], errors[i] = false, false
    if r then
      if in_pg(r) then flags[i] = '1' end
      if not is_gone(r) and not is_clean(r) then
        wanted[#wanted + 1] = ids[i]; where[#where + 1] = i
        if not in_pg(r) then put(ids[i], with_flag(r, 1)) end
      end
    end
  end
  if #wanted > 0 then
    local got = values(body_key, wanted)
    for i = 1, #wanted do bodies_out[where[i]] = got[i] end
    if call('EXISTS', error_key) == 1 then
      got = values(error_key, wanted)
      for i = 1, #wanted do errors[where[i]] = got[i] end
    end
  end
  local key_records = values(keys_key, hashes)
  commit()
  return { 'ok', entries, ids, out, table.concat(flags), bodies_out, errors, hashes, key_records }
end)
