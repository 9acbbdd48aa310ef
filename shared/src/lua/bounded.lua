-- Replaces functions that could run too long without an interrupt. A search takes time proportional to the product of
-- both lengths: one step of a pattern may look at the whole text, and each look at a whole set. Sorting without a
-- comparison function is never interrupted, however long the strings. A date is made of as many parts as its format has.

local find, match, gmatch, gsub, split = string.find, string.match, string.gmatch, string.gsub, string.split
local sort, date = table.sort, os.date
local function check(text, other, most)
    local kind, other_kind = type(text), type(other)
    if (kind == "string" or kind == "number") and (other_kind == "string" or other_kind == "number")
        and #tostring(text) * #tostring(other) > most
    then
        error("the texts are too long to be searched", 3)
    end
end
function string.find(text, pattern, init, plain, ...)
    check(text, pattern, plain and 2 ^ 26 or 2 ^ 25)
    return find(text, pattern, init, plain, ...)
end
function string.match(text, pattern, ...)
    check(text, pattern, 2 ^ 25)
    return match(text, pattern, ...)
end
function string.gmatch(text, pattern, ...)
    check(text, pattern, 2 ^ 25)
    return gmatch(text, pattern, ...)
end
function string.gsub(text, pattern, ...)
    check(text, pattern, 2 ^ 25)
    return gsub(text, pattern, ...)
end
function string.split(text, separator, ...)
    check(text, separator or ",", 2 ^ 26)
    return split(text, separator, ...)
end
function os.date(format, ...)
    if format ~= nil and #tostring(format) > 256 then
        error("the date format is too long", 2)
    end
    return date(format, ...)
end
local function less(a, b)
    return a < b
end
function table.sort(list, compare)
    return sort(list, compare or less)
end
