-- Marks plain deliveries as done, group by group.
-- KEYS: bitmap of each group.
-- ARGV: how long that is kept (ms); then of each group attempt, token, set.
-- Returns {group (from 1), set} for the deliveries that did not belong to the caller.

local keep, answers = tonumber(ARGV[1]), {}

for group, key in ipairs(KEYS) do
  local attempt, token, set = tonumber(ARGV[3 * group - 1]), ARGV[3 * group], ARGV[3 * group + 1]
  local text = redis.call('GET', key)
  -- Before a later attempt it was parked, and that record must go.
  local taken = attempt == 1 and take(text, token, set)
  if taken then
    local done = union(sub(taken, 17, HEAD), set)
    save(key, sub(taken, 1, 16) .. done .. sub(taken, HEAD + 1), keep)
  else
    local bitmap = read(text)
    local mine = own(bitmap, attempt, token, set)
    if mine ~= set then answers[#answers + 1] = {group, less(set, mine)} end
    if mine ~= NONE then
      finish(bitmap, mine)
      write(key, bitmap, keep)
    end
  end
end
return answers
