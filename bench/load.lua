-- What wrk sends and prints. Arguments: a kind, a file of paths or ids, and a number that no other run has.
--   get FILE SALT      GET a line of the file, by chance. What follows a tab is sent as the Authorization header
--   order FILE SALT    POST an order for a product of the file, under an idempotency key of its own
--   cancel FILE SALT   POST each line of the file once, beginning with line SALT
-- For carts, a line has the id of a cart, a tab, and a product or an etag. All carts have the secret of bench/cart_data.py.
--   cart FILE SALT     GET a cart of the file, by chance
--   add FILE SALT      POST a piece of the product, for a line by chance
--   add-once FILE SALT the same, under an idempotency key of its own
--   checkout FILE SALT POST a checkout with the etag for each line once, beginning with line SALT

local lines, headers, kind, salt, count = {}, {}, "get", 0, 0
local after_tab = {}
local customer = '"customer":{"name":"Ada Lovelace","email":"ada@example.com","phone":"+44 20 7946 0000"},'
   .. '"shippingAddress":"12 St James\'s Square, London","paymentMethod":"CARD"'

function init(args)
   kind, salt = args[1], tonumber(args[3])
   for line in io.lines(args[2]) do
      local path, authorization = line:match("([^\t]+)\t?(.*)")
      lines[#lines + 1] = path
      after_tab[#lines] = authorization
      if authorization ~= "" then headers[path] = { Authorization = authorization } end
   end
   math.randomseed(salt)
   for _ = 1, 10 do math.random() end
   if kind == "cancel" or kind == "checkout" then count = salt end
end

local function key()
   return string.format("%08x-%04x-4%03x-8%03x-%012x", salt, math.random(0, 65535), math.random(0, 4095),
      math.random(0, 4095), count)
end

local json = { ["Content-Type"] = "application/json" }

local function cart(method, number, verb, body)
   local sent = { ["Content-Type"] = "application/json", ["cart-secret"] = "bench" }
   if kind == "add-once" then sent["Idempotency-Key"] = key() end
   return wrk.format(method, "/api/v1/carts/" .. lines[number] .. verb, sent, body)
end

function request()
   if kind == "get" then
      local path = lines[math.random(#lines)]
      return wrk.format("GET", path, headers[path])
   end
   count = count + 1
   if kind == "cancel" then return wrk.format("POST", lines[count], json, "{}") end
   if kind == "cart" then return cart("GET", math.random(#lines), "") end
   if kind == "add" or kind == "add-once" then
      local number = math.random(#lines)
      return cart("POST", number, ":add", '{"productId":"' .. after_tab[number] .. '","quantity":1}')
   end
   if kind == "checkout" then
      return cart("POST", count, ":checkout", '{"etag":"' .. after_tab[count] .. '",' .. customer .. '}')
   end
   local body = '{"items":[{"productId":"' .. lines[math.random(#lines)] .. '","quantity":1}],' .. customer .. '}'
   return wrk.format("POST", "/api/v1/orders", { ["Content-Type"] = "application/json", ["Idempotency-Key"] = key() }, body)
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format('{"requests": %d, "seconds": %f, "refused": %d, "broken": %d, "p50_ms": %f, "p99_ms": %f}\n',
      summary.requests, summary.duration / 1e6, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout, latency:percentile(50) / 1e3,
      latency:percentile(99) / 1e3))
end
