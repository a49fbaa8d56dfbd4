-- load_leases: leases that outlived their epoch, before the next one is opened.
-- moves: UNPLACED -load-> LEASED
-- keys  prefix
-- args  '', term, then per lease: record (leased, clean, in_pg), body
-- returns {'ok', how many} | {'term', a later one}
operation('load_leases', function()
  if tonumber(ARGV[2]) < term then return { 'term', whole(term) } end
  local loaded = 0
  for i = 3, #ARGV, 2 do
    local r = ARGV[i]
    local id = id_of(r)
    put(id, r)
    bodies[id] = ARGV[i + 1]
    local until_ = unpack1('>I8', r, 73)
    zadd(leases_key, until_, id)
    leases_until(until_)
    topic(topic_of(r))
    bump(topic_of(r), 'leased', 1)
    loaded = loaded + 1
  end
  commit()
  return { 'ok', loaded }
end)
