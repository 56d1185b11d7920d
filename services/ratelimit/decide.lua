-- Decides a batch of requests of one organization, in order, atomically.
--
-- State. All windows of one scope (the organization, one key, one route) are one string: a header that names its
-- windows, then the instant it was written at, then per window
--   token bucket:     debt                       what is missing to a full bucket, in units x period_ms
--   calendar window:  id, used, seeded           which day or month, units taken, whether metering has been asked
-- A string whose header is not the policy's was written under another policy: windows are carried over by name.
--
-- Arithmetic. Numbers are integers below 2^53, which doubles hold exactly. A bucket's debt shrinks by `limit` per
-- millisecond and grows by cost x period_ms, so nothing is ever rounded and nothing drifts. The policy's validation
-- keeps limit x period_ms below 2^53.
--
-- KEYS  one per scope instance (ARGV[6] tells the scope of each); with give-backs two more: the sets of request ids
--       given back in this and in the previous generation.
-- ARGV  1 windows, 2-4 header per scope, 5 context, 6 scopes, 7 decisions, 8 give-backs, 9 seeds
-- Returns a string. '\1' and pairs of uint16 (key, window): these must be seeded first, nothing was decided.
--       '\0' and a record per decision: kind, denied_by, retry_after_ms, remaining per window, reset_ms per window.

local TOKEN_BUCKET, DAY = 1, 2
local ALLOWED, DENIED = 1, 2
local DAY_MS = 86400000
local GIVEN_BACK_KEPT_MS = 1800000
local floor, ceil, max = math.floor, math.ceil, math.max

local scopes, decisions, give_backs, seeds = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + floor(time[2] / 1000)
local seed_first, day, month, day_left_ms, month_left_ms = struct.unpack('<Bdddd', ARGV[5])

-- The policy: `windows` in its order, `by_scope` the same windows grouped.
local windows, by_scope = {}, {{}, {}, {}}
local formats, slot_counts, ttls_ms = {'<d', '<d', '<d'}, {1, 1, 1}, {0, 0, 0}
local window_count, position = struct.unpack('<B', ARGV[1])
for index = 1, window_count do
  local scope, kind, billable, limit, period_ms
  scope, kind, billable, limit, period_ms, position = struct.unpack('<BBBdd', ARGV[1], position)
  local window = {scope = scope, kind = kind, billable = billable == 1, limit = limit, slot = slot_counts[scope] + 1}
  if kind == TOKEN_BUCKET then
    window.period_ms, window.capacity = period_ms, limit * period_ms
    formats[scope], slot_counts[scope] = formats[scope] .. 'd', slot_counts[scope] + 1
    ttls_ms[scope] = max(ttls_ms[scope], period_ms + 1000)
  else
    window.current = kind == DAY and day or month
    window.left_ms = kind == DAY and day_left_ms or month_left_ms
    formats[scope], slot_counts[scope] = formats[scope] .. 'ddd', slot_counts[scope] + 3
    ttls_ms[scope] = max(ttls_ms[scope], window.left_ms + DAY_MS)
  end
  windows[index] = window
  table.insert(by_scope[scope], window)
end

-- Reads a header's windows: name, kind, period.
local function each_named(header)
  return string.gmatch(string.sub(header, 3), '([^=;]+)=(%d),(%d+);')
end

-- Builds a state for the policy's layout out of a string of another one, or out of nothing.
local function carried(value, scope)
  local old = {}
  local state = {now_ms}
  if value then
    local length = struct.unpack('<I2', value)
    local at = 3 + length
    state[1], at = struct.unpack('<d', value, at)
    for name, kind, period_ms in each_named(string.sub(value, 1, 2 + length)) do
      local fields = {period_ms = tonumber(period_ms)}
      if tonumber(kind) == TOKEN_BUCKET then
        fields[1], at = struct.unpack('<d', value, at)
      else
        fields[1], fields[2], fields[3], at = struct.unpack('<ddd', value, at)
      end
      old[name .. kind] = fields
    end
  end
  for name, kind, period_ms in each_named(ARGV[1 + scope]) do
    local fields = old[name .. kind]
    if tonumber(kind) == TOKEN_BUCKET then
      -- Debt is carried over in units, rounded up: a change of policy must not give anything away.
      table.insert(state, fields and ceil(fields[1] * tonumber(period_ms) / fields.period_ms) or 0)
    else
      for index = 1, 3 do
        table.insert(state, fields and fields[index] or 0)
      end
    end
  end
  return state
end

-- Brings a state to now: buckets refill, calendar windows that have ended start again.
local function bring_to_now(state, scope)
  local elapsed_ms = max(0, now_ms - state[1])
  state[1] = now_ms
  for _, window in ipairs(by_scope[scope]) do
    local slot = window.slot
    if window.kind == TOKEN_BUCKET then
      if elapsed_ms >= window.period_ms then
        state[slot] = 0
      else
        state[slot] = max(0, math.min(state[slot], window.capacity) - elapsed_ms * window.limit)
      end
    else
      local id = state[slot]
      -- A replica whose clock is behind must not start the window that has just begun again: one ahead is kept.
      if id ~= window.current and id ~= window.current + 1 then
        state[slot], state[slot + 1] = window.current, 0
        -- One that follows an older one starts at zero. What was before one that follows nothing is not known.
        state[slot + 2] = (id ~= 0 and id < window.current) and 1 or 0
      end
    end
  end
end

local states = {}
local values = redis.call('MGET', unpack(KEYS, 1, #scopes))
for index = 1, #scopes do
  local scope = string.byte(scopes, index)
  local header, value = ARGV[1 + scope], values[index]
  local state
  if value and string.sub(value, 1, #header) == header then
    state = {struct.unpack(formats[scope], value, #header + 1)}
  else
    state = carried(value, scope)
  end
  bring_to_now(state, scope)
  states[index] = state
end

-- Seeds raise a counter to what metering has, once per window. What was taken meanwhile is in both, hence the larger.
local seed_at = 1
while seed_at <= #seeds do
  local key, window_index, id, used
  key, window_index, id, used, seed_at = struct.unpack('<I2I2dd', seeds, seed_at)
  local state, slot = states[key], windows[window_index].slot
  if state[slot] == id and state[slot + 2] == 0 then
    state[slot + 1], state[slot + 2], state.dirty = max(state[slot + 1], used), 1, true
  end
end

if seed_first == 1 then
  local wanted = {}
  for index = 1, #scopes do
    for window_index, window in ipairs(windows) do
      if window.billable and window.scope == string.byte(scopes, index) and states[index][window.slot + 2] == 0 then
        table.insert(wanted, struct.pack('<I2I2', index, window_index))
      end
    end
  end
  if #wanted > 0 then
    return '\1' .. table.concat(wanted)
  end
end

local organization_index = string.byte(scopes, 1) == 1 and 1 or 0

-- Gives units back to the windows that they came from, once per request.
local back_at = 1
while back_at <= #give_backs do
  local key_index, route_index, cost, back_day, back_month, id
  key_index, route_index, cost, back_day, back_month, id, back_at = struct.unpack('<I2I2I4ddc16', give_backs, back_at)
  local current, previous = KEYS[#scopes + 1], KEYS[#scopes + 2]
  if redis.call('SISMEMBER', previous, id) == 0 and redis.call('SADD', current, id) == 1 then
    for _, window in ipairs(windows) do
      if window.billable then
        local state = states[window.scope == 1 and organization_index or (window.scope == 2 and key_index or route_index)]
        if state[window.slot] == (window.kind == DAY and back_day or back_month) then
          state[window.slot + 1], state.dirty = max(0, state[window.slot + 1] - cost), true
        end
      end
    end
  end
  if back_at > #give_backs then
    redis.call('PEXPIRE', current, GIVEN_BACK_KEPT_MS)
  end
end

local record_format = '<BB' .. string.rep('i8', 1 + 2 * window_count)
local answers, decision_at = {'\0'}, 1
while decision_at <= #decisions do
  local key_index, route_index, cost
  key_index, route_index, cost, decision_at = struct.unpack('<I2I2I4', decisions, decision_at)
  local denied_by, longest_ms = 0, -1
  for index = 1, window_count do
    local window = windows[index]
    local scope, slot = window.scope, window.slot
    local state = states[scope == 1 and organization_index or (scope == 2 and key_index or route_index)]
    if window.kind == TOKEN_BUCKET then
      local over = state[slot] + cost * window.period_ms - window.capacity
      if over > 0 then
        local wait_ms = ceil(over / window.limit)
        if wait_ms > longest_ms then denied_by, longest_ms = index, wait_ms end
      end
    elseif state[slot + 1] + cost > window.limit and window.left_ms > longest_ms then
      denied_by, longest_ms = index, window.left_ms
    end
  end
  local record = {denied_by == 0 and ALLOWED or DENIED, max(0, denied_by - 1), max(0, longest_ms)}
  for index = 1, window_count do
    local window = windows[index]
    local scope, slot = window.scope, window.slot
    local state = states[scope == 1 and organization_index or (scope == 2 and key_index or route_index)]
    if window.kind == TOKEN_BUCKET then
      if denied_by == 0 then
        state[slot], state.dirty = state[slot] + cost * window.period_ms, true
      end
      record[3 + index] = max(0, floor((window.capacity - state[slot]) / window.period_ms))
      record[3 + window_count + index] = ceil(state[slot] / window.limit)
    else
      if denied_by == 0 then
        state[slot + 1], state.dirty = state[slot + 1] + cost, true
      end
      record[3 + index] = max(0, window.limit - state[slot + 1])
      record[3 + window_count + index] = window.left_ms
    end
  end
  answers[#answers + 1] = struct.pack(record_format, unpack(record))
end

for index = 1, #scopes do
  local state = states[index]
  if state.dirty then
    local scope = string.byte(scopes, index)
    local value = ARGV[1 + scope] .. struct.pack(formats[scope], unpack(state, 1, slot_counts[scope]))
    redis.call('SET', KEYS[index], value, 'PX', ttls_ms[scope])
  end
end
return table.concat(answers)
