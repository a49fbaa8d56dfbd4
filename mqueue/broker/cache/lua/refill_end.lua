-- refill_end: after the leader's SELECT: the rows without a record become ready, the spill below the new frontier comes along, the frontier rises.
-- moves: UNPLACED -refill-> READY, SPILL -refill-> READY, DEAD -refill-> READY, READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, term, topics, then per topic: topic, first key left out (24 bytes; all FF: none), rows, then per row: record (clean, in_pg), body
-- returns {'ok', then per topic: rows loaded, spill brought along, frontier, ready} | {'epoch' | 'term', …}
--
-- Of several topics each gets an equal part of what a call may touch. Who waits for them to be opened is told.

-- The rows of a topic, from argument `first` to `last`, that have no record and lie below the frontier -> { record, body }
local function rows_below(frontier, name, first, last)
  local ids, rows = {}, {}
  for i = first, last, 2 do ids[#ids + 1] = id_of(ARGV[i]) end
  if #ids > 0 then load(ids) end
  for i = first, last, 2 do
    local r = ARGV[i]
    local known = records[id_of(r)]
    -- a dead record of an older version is one that was redriven: the row is newer and counts
    if known and state_of(known) == 'x' and version_of(known) < version_of(r) then
      zrem(prefix .. 'dead:' .. name, id_of(r)); known = false
    end
    if not known and less(key_of(r), frontier) then rows[#rows + 1] = { r, ARGV[i + 1] } end
  end
  return rows
end

local function key_at(page, i)    -- of a page of a zset with scores
  return page[i] and pack('>I4', tonumber(page[i + 1]) + 2147483648) .. page[i]
end

-- Returns how many rows were loaded, and how much of the spill was brought along.
local function refill(t, frontier, first, last, share)
  measure(t)
  local was_empty = t.size == 0
  if less(t.low, frontier) then frontier = t.low end
  local rows, at = rows_below(frontier, t.name, first, last), 1

  -- rows and spill, merged by key, as far as there is room; a page of the spill that was cut ends the range
  local spilled = call('ZRANGE', t.spill, 0, share, 'WITHSCORES')
  if #spilled > 2 * share then
    local bound = key_at(spilled, 2 * share + 1)
    if less(bound, frontier) then frontier = bound end
  end
  local room = math.min(math.max(ready_hard - t.size, 1), share)
  local loaded, brought, s = 0, 0, 1
  while true do
    local row, other = rows[at], key_at(spilled, s)
    local key = row and key_of(row[1])
    local from_row = row and (not other or less(key, other))
    if not from_row then key = other end
    if not key or not less(key, frontier) then break end
    if loaded + brought >= room then frontier = key; break end
    local most = loaded + brought == 0 and redis_max or soft -- of a topic that has nothing ready: one in any case
    if from_row and used > (was_empty and most or soft * 3 / 4) then frontier = key; break end
    local id = sub(key, 17)
    if from_row then
      put(id, with_state(row[1], 'r'))
      bodies[id] = row[2]
      at = at + 1; loaded = loaded + 1
    else
      load({ id })
      put(id, with_state(records[id], 'r'))
      zrem(t.spill, sub(key, 5))
      s = s + 2; brought = brought + 1
    end
    zadd(t.ready, unpack1('>I4', key) - 2147483648, sub(key, 5))
  end
  t.size = t.size + loaded + brought
  t.placed = loaded + brought
  t.frontier = frontier
  t.moved = true
  if t.placed > 0 and frontier ~= LAST and t.size < ready_cap then ask(t) end -- the rest, when it is this namespace's turn again
  return loaded, brought
end

operation('refill_end', function()
  local no = refused(true)
  if no then return no end
  local many = tonumber(ARGV[3])
  local share = math.max(1, math.floor(CALL_MAX / many))
  local names, answer, at = {}, { 'ok' }, 4
  for _ = 1, many do
    local t = topic(ARGV[at])
    local first = at + 3
    local last = first + 2 * tonumber(ARGV[at + 2]) - 1
    local loaded, brought = refill(t, ARGV[at + 1], first, last, share)
    names[#names + 1] = t.name
    answer[#answer + 1] = loaded; answer[#answer + 1] = brought; answer[#answer + 1] = t.frontier; answer[#answer + 1] = t.size
    at = last + 1
  end
  commit()
  tell_open(names)
  return answer
end, true)
