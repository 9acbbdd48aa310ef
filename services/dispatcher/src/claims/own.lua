-- Which deliveries belong to the caller: it holds the claim, or nobody does and its attempt is the next one (made
-- while Redis was away).

local function own(bitmap, attempt, token, set)
  set = less(set, bitmap.done)
  for _, record in ipairs(bitmap) do
    if record.token ~= token and (record.till > now or is_past(record, attempt))
      and both(set, record.set) ~= NONE
    then
      set = less(set, record.set)
    end
  end
  return set
end

-- A fast path: returns the bitmap without a set, if one claim with this token holds all of it.
local function take(text, token, set)
  local at = text and string.find(text, token, HEAD + 1, true)
  if not at or (at - HEAD - 1) % SIZE ~= TOKEN then return end
  local record = at - TOKEN
  local held = sub(text, record + SET, record + SIZE - 1)
  if both(held, set) ~= set then return end
  local rest = ''
  if held ~= set then rest = sub(text, record, record + SET - 1) .. less(held, set) end
  return sub(text, 1, record - 1) .. rest .. sub(text, record + SIZE)
end
