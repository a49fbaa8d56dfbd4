-- refill_end: after the leader's SELECT: the rows without a record become ready, the spill below the new frontier comes along, the frontier rises.
-- uses: unit
-- moves: UNPLACED -refill-> READY, SPILL -refill-> READY, DEAD -refill-> READY, READY -spill-> SPILL UNPLACED
-- keys  prefix
-- args  epoch, term, topic, first key left out (24 bytes; all FF: none), then per row: record (clean, in_pg), body
-- returns {'ok', rows loaded, spill brought along, frontier, ready} | {'epoch' | 'term', …}
local no = refused(true)
if no then return no end
local name, frontier = ARGV[3], ARGV[4]
local t = topic(name)
measure(t)
if less(t.low, frontier) then frontier = t.low end

local ids = {}
for i = 5, #ARGV, 2 do ids[#ids + 1] = id_of(ARGV[i]) end
if #ids > 0 then load(ids) end
local rows, at = {}, 1
for i = 5, #ARGV, 2 do
  local r = ARGV[i]
  local known = records[id_of(r)]
  -- a dead record of an older version is one that was redriven: the row is newer and counts
  if known and state_of(known) == 'x' and version_of(known) < version_of(r) then
    zrem(prefix .. 'dead:' .. name, id_of(r)); known = false
  end
  if not known and less(key_of(r), frontier) then rows[#rows + 1] = { r, ARGV[i + 1] } end
end

-- rows and spill, merged by key, as far as there is room; a page of the spill that was cut ends the range
local spill_max = CALL_MAX
local spilled = call('ZRANGE', t.spill, 0, spill_max, 'WITHSCORES')
local function spill_key(s)
  return spilled[s] and pack('>I4', tonumber(spilled[s + 1]) + 2147483648) .. spilled[s]
end
if #spilled > 2 * spill_max then
  local bound = spill_key(2 * spill_max + 1)
  if less(bound, frontier) then frontier = bound end
end
local room = math.min(math.max(ready_hard - t.size, 1), CALL_MAX)
local loaded, brought, s = 0, 0, 1
while true do
  local row, other = rows[at], spill_key(s)
  local key = row and key_of(row[1])
  local from_row = row and (not other or less(key, other))
  if not from_row then key = other end
  if not key or not less(key, frontier) then break end
  if loaded + brought >= room then frontier = key; break end
  local full = from_row and total() > (loaded + brought + t.size > 0 and soft * 3 / 4 or redis_max) -- one where there is none, if it fits at all
  if full then frontier = key; break end
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
commit()
return { 'ok', loaded, brought, frontier, t.size }
