-- Decides a batch of requests of one organization, in order, atomically.
--
-- State. All windows of one scope (the organization, one key, one route) are one string: a header that names its
-- windows, then the instant it was written at and the version of the policy that wrote it, then per window
--   token bucket:     debt                       what is missing to a full bucket, in units x period_ms
--   sliding window:   newest, used x (SLICES + 1)   the newest slice, and the units taken in the last slices, by number
--   calendar window:  id, used, seeded           which day or month, units taken, whether metering has been asked
-- A string whose header is not the policy's was written under another policy: windows are carried over by name.
--
-- Fences. A caller whose policy is older than the one that a string was written under decides nothing, because it would
-- drop windows that it does not know. A caller whose clock is ahead of this server's by more than AHEAD_MS_MAX starts no
-- calendar window: it would give a month away that has not begun.
--
-- Arithmetic. Numbers are integers below 2^53, which doubles hold exactly. A bucket's debt shrinks by `limit` per
-- millisecond and grows by cost x period_ms, so nothing is ever rounded and nothing drifts. The policy's validation
-- keeps limit x period_ms below 2^53.
--
-- Clock. A server's clock may step back, for example to a replica's that is promoted. The time in between is not refilled
-- twice: a string that was written later than now keeps its instant, up to BACK_MS_MAX. After a larger step (the clock had
-- been wrong) its instant is now, and what was taken counts as taken now.
--
-- KEYS  one per scope instance (ARGV[10] tells the scope of each); with give-backs two more: the sets of request ids
--       given back in this and in the previous generation.
-- ARGV  1 windows and 2 how to unpack them: per window scope, kind, billable, slot, limit, period_ms
--       3-5 header per scope, 6-8 format of the values behind it
--       9 context, 10 scopes, 11 decisions, 12 give-backs, 13 seeds
-- Returns a string. '\1' and pairs of uint16 (key, window): these must be seeded first, nothing was decided.
--       '\2': the caller's policy is outdated. '\3': its clock is ahead. Nothing was decided.
--       '\0' and a record per decision: kind, denied_by, retry_after_ms, remaining per window, reset_ms per window.
--
-- The names of the kinds (TOKEN_BUCKET, CALENDAR_DAY, ...) and STATE_LENGTH, how many numbers each keeps, stand before this
-- file: contract/windows.py writes them.
--
-- This runs for every request, so the policy is one flat table of STRIDE numbers per window, unpacked in one call, and
-- functions that are rarely needed are made where they are needed.

local STRIDE = 6
local ALLOWED, DENIED = 1, 2
local HEADER, FORMAT = 2, 5
local GIVEN_BACK_KEPT_MS, AHEAD_MS_MAX = 1800000, 60000
local BACK_MS_MAX = 60000
-- A cost above the limit never fits; what is said of it must still be a number that int64 holds exactly.
local WAIT_MS_MAX = 2^53 - 1
local floor, ceil, max, min, byte, sub = math.floor, math.ceil, math.max, math.min, string.byte, string.sub
local pack, unpack_from, call = struct.pack, struct.unpack, redis.call

-- What lies in the slices of a sliding window, and the instant at which so many of its units have come back.
local function in_slices(state, slot)
  local total = 0
  for at = slot + 1, slot + SLICES + 1 do
    total = total + state[at]
  end
  return total
end
local function back_ms(state, slot, period_ms, units)
  local newest = state[slot]
  for number = newest - SLICES, newest do
    units = units - state[slot + 1 + number % (SLICES + 1)]
    if units <= 0 or number == newest then
      return ceil((number + SLICES + 1) * period_ms / SLICES)
    end
  end
end
local function slice_of(at_ms, period_ms)
  local scaled = at_ms * SLICES
  return (scaled - scaled % period_ms) / period_ms
end

local scopes, decisions, give_backs, seeds = ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local time = call('TIME')
local now_ms = time[1] * 1000 + floor(time[2] / 1000)
local seed_first, window_count, version, caller_ms, day, month, day_left_ms, month_left_ms, ttl_1, ttl_2, ttl_3 =
  unpack_from('<BBddddddddd', ARGV[9])
local policy = {unpack_from(ARGV[2], ARGV[1])}
local last = (window_count - 1) * STRIDE
local key_count = #scopes

local states, dirty = {}, {}
local values = call('MGET', unpack(KEYS, 1, key_count))
for index = 1, key_count do
  local scope = byte(scopes, index)
  local header, value = ARGV[HEADER + scope], values[index]
  local state
  if not value then
    -- Zeros are a full bucket and a calendar window that nothing is known of.
    state = {now_ms, version}
    for slot = 3, #ARGV[FORMAT + scope] - 1 do
      state[slot] = 0
    end
  elseif sub(value, 1, #header) == header then
    state = {unpack_from(ARGV[FORMAT + scope], value, #header + 1)}
  else
    -- Another policy's string: its windows are carried over by name and kind.
    local function each_named(text)
      return string.gmatch(sub(text, 3), '([^=;]+)=(%d),(%d+);')
    end
    -- Written back even if nothing is taken, so that this happens once.
    dirty[index] = true
    local old, length = {}, unpack_from('<I2', value)
    local at = 3 + length
    state = {}
    state[1], state[2], at = unpack_from('<dd', value, at)
    for name, kind, period_ms in each_named(sub(value, 1, 2 + length)) do
      local fields = {period_ms = tonumber(period_ms)}
      for field = 1, STATE_LENGTH[tonumber(kind)] do
        fields[field], at = unpack_from('<d', value, at)
      end
      old[name .. kind] = fields
    end
    for name, kind, period_ms in each_named(header) do
      local fields = old[name .. kind]
      if tonumber(kind) == TOKEN_BUCKET then
        -- Debt is carried over in units, rounded up: a change of policy must not give anything away.
        state[#state + 1] = fields and ceil(fields[1] * tonumber(period_ms) / fields.period_ms) or 0
      elseif tonumber(kind) == SLIDING and fields and fields.period_ms ~= tonumber(period_ms) then
        -- Slices of another length cannot be told apart any more: all of it counts as taken now.
        local newest, total = slice_of(now_ms, tonumber(period_ms)), 0
        for number = max(slice_of(now_ms, fields.period_ms), fields[1]) - SLICES, fields[1] do
          total = total + fields[2 + number % (SLICES + 1)]
        end
        state[#state + 1] = newest
        for number = 0, SLICES do
          state[#state + 1] = number == newest % (SLICES + 1) and total or 0
        end
      else
        for field = 1, STATE_LENGTH[tonumber(kind)] do
          state[#state + 1] = fields and fields[field] or 0
        end
      end
    end
  end
  if state[2] > version then
    return '\2'
  end
  state[2] = version
  -- Bring the state to now: buckets refill, calendar windows that have ended start again.
  local elapsed_ms = max(0, now_ms - state[1])
  local is_stepped = state[1] - now_ms > BACK_MS_MAX
  if is_stepped or state[1] < now_ms then
    state[1] = now_ms
  end
  if is_stepped then
    -- Written back even if nothing is taken, so that it is a step once and time goes on from here.
    dirty[index] = true
  end
  for base = 0, last, STRIDE do
    if policy[base + 1] == scope then
      local kind, slot, limit, period_ms = policy[base + 2], policy[base + 4], policy[base + 5], policy[base + 6]
      if kind == TOKEN_BUCKET then
        if elapsed_ms >= period_ms then
          state[slot] = 0
        else
          state[slot] = max(0, min(state[slot], limit * period_ms) - elapsed_ms * limit)
        end
      elseif kind == SLIDING then
        local current = slice_of(now_ms, period_ms)
        if is_stepped and state[slot] > current then
          local total = in_slices(state, slot)
          for number = 0, SLICES do
            state[slot + 1 + number] = number == current % (SLICES + 1) and total or 0
          end
          state[slot] = current
        end
        for number = max(state[slot] + 1, current - SLICES), current do
          state[slot + 1 + number % (SLICES + 1)] = 0
        end
        state[slot] = max(state[slot], current)
      else
        local id, current = state[slot], kind == CALENDAR_DAY and day or month
        -- A replica whose clock is behind must not start the window that has just begun again: one ahead is kept.
        if id ~= current and id ~= current + 1 then
          if caller_ms - now_ms > AHEAD_MS_MAX then
            return '\3'
          end
          state[slot], state[slot + 1] = current, 0
          -- One that follows an older one starts at zero. What was before one that follows nothing is not known.
          state[slot + 2] = (id ~= 0 and id < current) and 1 or 0
        end
      end
    end
  end
  states[index] = state
end

-- Seeds raise a counter to what metering has. What was taken meanwhile is in both, hence the larger.
local seed_at = 1
while seed_at <= #seeds do
  local key, window, id, used
  key, window, id, used, seed_at = unpack_from('<I2I2dd', seeds, seed_at)
  local state, slot = states[key], policy[(window - 1) * STRIDE + 4]
  if state[slot] == id then
    state[slot + 1], state[slot + 2], dirty[key] = max(state[slot + 1], used), 1, true
  end
end

if seed_first == 1 then
  local wanted = ''
  for base = 0, last, STRIDE do
    if policy[base + 3] == 1 then
      for index = 1, key_count do
        if byte(scopes, index) == policy[base + 1] and states[index][policy[base + 4] + 2] == 0 then
          wanted = wanted .. pack('<I2I2', index, base / STRIDE + 1)
        end
      end
    end
  end
  if wanted ~= '' then
    return '\1' .. wanted
  end
end

-- The key that a request meets in each scope.
local met = {byte(scopes, 1) == 1 and 1 or 0, 0, 0}

-- Gives units back to the windows that they came from, once per request.
local back_at = 1
while back_at <= #give_backs do
  local cost, back_day, back_month, id
  met[2], met[3], cost, back_day, back_month, id, back_at = unpack_from('<I2I2I4ddc16', give_backs, back_at)
  local current, previous = KEYS[key_count + 1], KEYS[key_count + 2]
  if call('SISMEMBER', previous, id) == 0 and call('SADD', current, id) == 1 then
    for base = 0, last, STRIDE do
      if policy[base + 3] == 1 then
        local key, slot = met[policy[base + 1]], policy[base + 4]
        local state = states[key]
        if state[slot] == (policy[base + 2] == CALENDAR_DAY and back_day or back_month) then
          state[slot + 1], dirty[key] = max(0, state[slot + 1] - cost), true
        end
      end
    end
  end
  if back_at > #give_backs then
    call('PEXPIRE', current, GIVEN_BACK_KEPT_MS)
  end
end

local record_format = '<BB' .. string.rep('i8', 1 + 2 * window_count)
local answers, decision_at = {'\0'}, 1
while decision_at <= #decisions do
  local cost
  met[2], met[3], cost, decision_at = unpack_from('<I2I2I4', decisions, decision_at)
  local denied_by, longest_ms = 0, -1
  for base = 0, last, STRIDE do
    local kind, slot, limit = policy[base + 2], policy[base + 4], policy[base + 5]
    local state = states[met[policy[base + 1]]]
    local wait_ms = -1
    if kind == TOKEN_BUCKET then
      local over = state[slot] + (cost - limit) * policy[base + 6]
      if over > 0 then wait_ms = min(ceil(over / limit) + state[1] - now_ms, WAIT_MS_MAX) end
    elseif kind == SLIDING then
      local over = in_slices(state, slot) + cost - limit
      if over > 0 then wait_ms = back_ms(state, slot, policy[base + 6], over) - now_ms end
    elseif state[slot + 1] + cost > limit then
      wait_ms = kind == CALENDAR_DAY and day_left_ms or month_left_ms
    end
    if wait_ms > longest_ms then denied_by, longest_ms = base / STRIDE + 1, wait_ms end
  end
  local allowed = denied_by == 0
  local record = {allowed and ALLOWED or DENIED, max(0, denied_by - 1), max(0, longest_ms)}
  for base = 0, last, STRIDE do
    local kind, slot, limit, period_ms = policy[base + 2], policy[base + 4], policy[base + 5], policy[base + 6]
    local key, at = met[policy[base + 1]], 4 + base / STRIDE
    local state = states[key]
    if kind == TOKEN_BUCKET then
      if allowed then
        state[slot], dirty[key] = state[slot] + cost * period_ms, true
      end
      record[at] = max(0, floor((limit * period_ms - state[slot]) / period_ms))
      record[at + window_count] = state[slot] > 0 and ceil(state[slot] / limit) + state[1] - now_ms or 0
    elseif kind == SLIDING then
      if allowed then
        local slice = slot + 1 + state[slot] % (SLICES + 1)
        state[slice], dirty[key] = state[slice] + cost, true
      end
      local used = in_slices(state, slot)
      record[at] = max(0, limit - used)
      record[at + window_count] = used > 0 and back_ms(state, slot, period_ms, 1) - now_ms or 0
    else
      if allowed then
        state[slot + 1], dirty[key] = state[slot + 1] + cost, true
      end
      record[at] = max(0, limit - state[slot + 1])
      record[at + window_count] = kind == CALENDAR_DAY and day_left_ms or month_left_ms
    end
  end
  answers[#answers + 1] = pack(record_format, unpack(record, 1, 3 + 2 * window_count))
end

for index in pairs(dirty) do
  local scope = byte(scopes, index)
  local value = ARGV[HEADER + scope] .. pack(ARGV[FORMAT + scope], unpack(states[index]))
  call('SET', KEYS[index], value, 'PX', scope == 1 and ttl_1 or (scope == 2 and ttl_2 or ttl_3))
end
return table.concat(answers)
