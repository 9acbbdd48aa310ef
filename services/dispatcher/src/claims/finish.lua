-- Releases one claim. Returns 1, or 0 if it did not belong to the caller.
-- KEYS: bitmap, circuit, probe, snooze, change, of these two what is in flight, slot.
-- ARGV: 1 attempt, 2 token, 3 set, 4 state (`done`, `parked` or `released`), 5 how long that is kept (ms),
--       6 the probe's effect on the circuit (`closes`, or `ends` without an attempt), 7 delivery id,
--       8 how long `snooze` suppresses from now on (ms, 0: not at all),
--       9 the value for `on_change` (empty: none), 10 how long it is kept (ms),
--       11 how long the delivery stays in flight (ms, 0: it does not).

local attempt, token, set = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local bitmap = read(redis.call('GET', KEYS[1]))
if own(bitmap, attempt, token, set) == NONE then return 0 end
if ARGV[4] == 'done' then
  finish(bitmap, set)
elseif ARGV[4] == 'parked' then
  remove(bitmap, set, true)
  add(bitmap, attempt, 0, NONE, set)
else
  remove(bitmap, set, attempt > 1)
  if attempt > 1 then add(bitmap, attempt - 1, 0, NONE, set) end
end
write(KEYS[1], bitmap, tonumber(ARGV[5]))
if ARGV[6] == 'closes' then redis.call('DEL', KEYS[2], KEYS[3], KEYS[8]) end
if ARGV[6] == 'ends' and redis.call('GET', KEYS[3]) == token then redis.call('DEL', KEYS[3]) end
if ARGV[8] ~= '0' then redis.call('SET', KEYS[4], ':' .. ARGV[7], 'PX', ARGV[8]) end
if ARGV[9] ~= '' then redis.call('SET', KEYS[5], ARGV[9] .. ':' .. ARGV[7], 'PX', ARGV[10]) end
for at = 6, 7 do
  if string.match(redis.call('GET', KEYS[at]) or '', ':(%x+)$') == ARGV[7] then
    -- With 0 this removes it.
    redis.call('PEXPIRE', KEYS[at], ARGV[11])
  end
end
return 1
