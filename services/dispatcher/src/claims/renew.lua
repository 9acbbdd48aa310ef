-- Extends claims, group by group.
-- KEYS: bitmap of each group.
-- ARGV: lease (ms), how long the state is kept (ms); then of each group attempt, token, set.
-- Returns {group (from 1), set} for the deliveries that did not belong to the caller.

local till, keep, answers = now + ARGV[1], tonumber(ARGV[2]), {}
for group, key in ipairs(KEYS) do
  local attempt, token, set = tonumber(ARGV[3 * group]), ARGV[3 * group + 1], ARGV[3 * group + 2]
  local text = redis.call('GET', key)
  local taken = take(text, token, set)
  if taken then
    save(key, taken .. pack(RECORD, attempt, till, token, set), keep)
  else
    local bitmap = read(text)
    local mine = own(bitmap, attempt, token, set)
    if mine ~= set then answers[#answers + 1] = {group, less(set, mine)} end
    if mine ~= NONE then
      claim(bitmap, attempt, till, token, mine)
      write(key, bitmap, keep)
    end
  end
end
return answers
