-- What Kong's users have beside Luau's functions, and what differs between LuaJIT and Luau. Gets native functions, sets
-- globals, and returns `kong`.

local native = ...
local byte, find, gmatch, gsub, raw_format = string.byte, string.find, string.gmatch, string.gsub, string.format
local raw_concat, raw_date, raw_rep, raw_tostring = table.concat, os.date, string.rep, tostring
local pack, unpack, now = table.pack, table.unpack, os.time
local bit32 = bit32

-- Texts

function tostring(value)
    if type(value) ~= "number" then
        return raw_tostring(value)
    elseif value ~= value then
        return "nan"
    elseif value == math.huge then
        return "inf"
    elseif value == -math.huge then
        return "-inf"
    end
    return raw_format("%.14g", value)
end
local tostring = tostring

-- `%s` takes any value.
function string.format(form, ...)
    local args, index = pack(...), 0
    for kind in gmatch(form, "%%[-+ #0]*%d*%.?%d*(.)") do
        if kind ~= "%" then
            index += 1
            if kind == "s" and index <= args.n and type(args[index]) ~= "string" then
                args[index] = tostring(args[index])
            end
        end
    end
    return raw_format(form, unpack(args, 1, args.n))
end

function string.rep(text, count, separator)
    if separator == nil or separator == "" or count < 2 then
        return raw_rep(text, count)
    end
    return raw_rep(text .. separator, count - 1) .. text
end

local DATES = {
    C = function(time, utc) return raw_format("%02d", raw_date(utc .. "%Y", time) // 100) end,
    D = function(time, utc) return raw_date(utc .. "%m/%d/%y", time) end,
    F = function(time, utc) return raw_date(utc .. "%Y-%m-%d", time) end,
    R = function(time, utc) return raw_date(utc .. "%H:%M", time) end,
    T = function(time, utc) return raw_date(utc .. "%H:%M:%S", time) end,
    e = function(time, utc) return raw_format("%2d", raw_date(utc .. "%d", time)) end,
    h = function(time, utc) return raw_date(utc .. "%b", time) end,
    k = function(time, utc) return raw_format("%2d", raw_date(utc .. "%H", time)) end,
    l = function(time, utc) return raw_format("%2d", raw_date(utc .. "%I", time)) end,
    n = function() return "\n" end,
    r = function(time, utc) return raw_date(utc .. "%I:%M:%S %p", time) end,
    s = function(time) return raw_format("%d", time) end,
    t = function() return "\t" end,
    u = function(time, utc) return (raw_format("%d", (raw_date(utc .. "%w", time) + 6) % 7 + 1)) end,
}

function os.date(form, time)
    form = form == nil and "%c" or tostring(form)
    if #form > 256 then
        error("the date format is too long", 2)
    end
    time = time or now()
    local utc = byte(form) == 33 and "!" or ""
    if find(form, "^!?%*t") then
        return raw_date(form, time)
    end
    return raw_date(gsub(form, "%%(.)", function(kind)
        local date = DATES[kind]
        if date then
            return (gsub(date(time, utc), "%%", "%%%%"))
        end
        return nil
    end), time)
end

-- Tables

-- Numbers are written as by `tostring`.
function table.concat(list, separator, first, last)
    local parts = {}
    for index = first or 1, last or #list do
        local value = list[index]
        local kind = type(value)
        if kind == "number" then
            value = tostring(value)
        elseif kind ~= "string" then
            error("invalid value (" .. kind .. ") at index " .. tostring(index) .. " in table for 'concat'", 2)
        end
        parts[#parts + 1] = value
    end
    return raw_concat(parts, separator)
end

function table.move(from, first, last, to, target)
    target = target or from
    if to > last or to <= first or from ~= target then
        for index = 0, last - first do
            target[to + index] = from[first + index]
        end
    else
        for index = last - first, 0, -1 do
            target[to + index] = from[first + index]
        end
    end
    return target
end

function table.new()
    return {}
end

function table.clear(list)
    for key in pairs(list) do
        list[key] = nil
    end
end

function table.isempty(list)
    return next(list) == nil
end

function table.nkeys(list)
    local count = 0
    for _ in pairs(list) do
        count += 1
    end
    return count
end

function table.isarray(list)
    local count = 0
    for key in pairs(list) do
        if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then
            return false
        end
        count += 1
    end
    return count == #list
end

function table.getn(list)
    return #list
end

function table.foreach(list, visit)
    for key, value in pairs(list) do
        local result = visit(key, value)
        if result ~= nil then
            return result
        end
    end
    return nil
end

function table.foreachi(list, visit)
    for index = 1, #list do
        local result = visit(index, list[index])
        if result ~= nil then
            return result
        end
    end
    return nil
end

-- Bits: 32 of them, with a sign

local function signed(number)
    return number >= 2 ^ 31 and number - 2 ^ 32 or number
end

local function bitwise(name)
    local operation = bit32[name]
    return function(...)
        return signed(operation(...))
    end
end

bit = {
    arshift = bitwise("arshift"),
    band = bitwise("band"),
    bnot = bitwise("bnot"),
    bor = bitwise("bor"),
    bxor = bitwise("bxor"),
    rol = bitwise("lrotate"),
    ror = bitwise("rrotate"),
    tobit = bitwise("band"),
    lshift = function(number, count)
        return signed(bit32.lshift(number, count % 32))
    end,
    rshift = function(number, count)
        return signed(bit32.rshift(number, count % 32))
    end,
    bswap = function(number)
        local low, high = bit32.lshift(bit32.band(number, 0xff), 24), bit32.rshift(number, 24)
        local middle = bit32.bor(
            bit32.lshift(bit32.band(number, 0xff00), 8),
            bit32.band(bit32.rshift(number, 8), 0xff00)
        )
        return signed(bit32.bor(low, middle, high))
    end,
    tohex = function(number, digits)
        digits = digits or 8
        local text = raw_format(digits < 0 and "%08X" or "%08x", bit32.band(number))
        return string.sub(text, -math.min(math.abs(digits), 8))
    end,
}

-- Logs

local function logger(level, separator)
    return function(...)
        local parts = pack(...)
        for index = 1, parts.n do
            parts[index] = tostring(parts[index])
        end
        native.log(level, raw_concat(parts, separator, 1, parts.n))
    end
end

local LEVELS = { STDERR = 0, EMERG = 1, ALERT = 2, CRIT = 3, ERR = 4, WARN = 5, NOTICE = 6, INFO = 7, DEBUG = 8 }

print = logger(LEVELS.NOTICE, "\t")

local log = {}
for name, level in pairs(LEVELS) do
    log[string.lower(name)] = logger(level, "")
end
local notice = log.notice
setmetatable(log, {
    __call = function(_, ...)
        notice(...)
    end,
})

-- ngx and cjson

ngx = {
    null = native.null,
    now = native.now,
    md5 = native.md5,
    encode_base64 = function(text)
        return native.encode_base64(tostring(text))
    end,
    decode_base64 = native.decode_base64,
    time = function()
        return math.floor(native.now())
    end,
    log = function(level, ...)
        local parts = pack(...)
        for index = 1, parts.n do
            parts[index] = tostring(parts[index])
        end
        native.log(level, raw_concat(parts, "", 1, parts.n))
    end,
}
for name, level in pairs(LEVELS) do
    ngx[name] = level
end

local function safely(call)
    return function(value)
        local good, result = pcall(call, value)
        if good then
            return result
        end
        return nil, result
    end
end

local cjson = { encode = native.encode_json, decode = native.decode_json, null = native.null }
local safe = { encode = safely(native.encode_json), decode = safely(native.decode_json), null = native.null }
local MODULES = {
    bit = bit,
    cjson = cjson,
    ["cjson.safe"] = safe,
    ["table.clear"] = table.clear,
    ["table.isarray"] = table.isarray,
    ["table.isempty"] = table.isempty,
    ["table.new"] = table.new,
    ["table.nkeys"] = table.nkeys,
}

function require(name)
    local module = MODULES[name]
    if module == nil then
        error("require '" .. tostring(name) .. "' not allowed within sandbox", 2)
    end
    return module
end

local kong = { log = log }
for _, frozen in ipairs({ bit, cjson, safe, log, kong }) do
    table.freeze(frozen)
end
return kong
