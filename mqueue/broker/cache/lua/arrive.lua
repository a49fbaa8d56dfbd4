-- arrive: rows that came another way than through this epoch's scripts are placed as if they had.
-- uses: unit
-- keys  prefix
-- args  epoch, term, then per row: record (clean, in_pg), body
-- returns {'ok', placed} | {'epoch' | 'term', …}
local no = refused(true)
if no then return no end
local ids, placed = {}, 0
for i = 3, #ARGV, 2 do ids[#ids + 1] = id_of(ARGV[i]) end
load(ids)
for i = 3, #ARGV, 2 do
  local r, id = ARGV[i], id_of(ARGV[i])
  local known = records[id]
  if not known or (state_of(known) == 'x' and version_of(known) < version_of(r)) then
    if known then zrem(prefix .. 'dead:' .. topic_of(known), id) end
    placed = placed + 1
    if is_due(r) then
      place(r)
      if records[id] then bodies[id] = ARGV[i + 1] end
    elseif below_t(due_of(r), id) then
      delay(r)
      bodies[id] = ARGV[i + 1]
    end
  end
end
commit()
return { 'ok', placed }
