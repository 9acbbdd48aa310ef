-- Tells Hookline when a server of a backend goes down or comes up: POST /events/balancer/health, with the fields of
-- Kong's event. docs/gateways.md says how to load it. HAProxy 2.6 or newer.
--
--   HOOKLINE_INGEST_URL     such as https://hookline.example.com:8050
--   HOOKLINE_INGEST_TOKEN   a token for the source `balancer`
--
-- It looks each second at what HAProxy's checks say, so a change that is undone within a second is not seen. What
-- Hookline does not take yet is kept in memory and sent again, with the same Idempotency-Key.

local URL = os.getenv("HOOKLINE_INGEST_URL")
local TOKEN = os.getenv("HOOKLINE_INGEST_TOKEN")
local MOST_WAITING = 1000

-- What keys of this process begin with.
local run = string.format("haproxy-%s-%s", os.time(), tostring({}):match("0x(%x+)") or "")
local health = {}
local waiting = {}
local raised = 0

local function quoted(text)
    local function escaped(character)
        return string.format("\\u%04x", character:byte())
    end
    return '"' .. text:gsub('[%c"\\]', escaped) .. '"'
end

-- `healthy`, `unhealthy`, or nil for what is not checked or was taken out by hand.
local function judged(status)
    if status:find("^UP") then
        return "healthy"
    elseif status:find("^DOWN") then
        return "unhealthy"
    end
end

local function raise(backend, name, server, now)
    local address = server:get_addr()
    local ip, port = address:match("^%[?(.-)%]?:(%d+)$")
    raised = raised + 1
    table.insert(waiting, {
        key = run .. "-" .. raised,
        body = string.format('{"upstream_id":%s,"ip":%s,"port":%s,"hostname":%s,"health":%s}', quoted(backend),
            quoted(ip or address), port or 0, quoted(name), quoted(now)),
    })
    if #waiting > MOST_WAITING then
        core.Warning("hookline: too many events wait, the oldest is dropped")
        table.remove(waiting, 1)
    end
end

local function look()
    for backend, proxy in pairs(core.backends) do
        for name, server in pairs(proxy.servers) do
            local key = backend .. "/" .. name
            local now = judged(server:get_stats().status)
            -- The first look only takes note.
            if now and health[key] and health[key] ~= now then
                raise(backend, name, server, now)
            end
            health[key] = now or health[key]
        end
    end
end

-- Whether the event is done with.
local function sent(event)
    local answer = core.httpclient():post({
        url = URL .. "/events/balancer/health",
        headers = {
            ["authorization"] = { "Bearer " .. TOKEN },
            ["content-type"] = { "application/json" },
            ["idempotency-key"] = { event.key },
        },
        body = event.body,
        timeout = 5000,
    })
    local status = answer and answer.status or 0
    if status == 200 or status == 202 then
        return true
    end
    local later = status == 0 or status == 429 or status >= 500
    core.Warning(string.format("hookline: an event was answered %d%s", status, later and ", it is sent again" or ""))
    return not later
end

core.register_task(function()
    if not URL or not TOKEN then
        core.Alert("hookline: HOOKLINE_INGEST_URL and HOOKLINE_INGEST_TOKEN are not set, no events are sent")
        return
    end
    while true do
        look()
        while waiting[1] and sent(waiting[1]) do
            table.remove(waiting, 1)
        end
        core.msleep(1000)
    end
end)
