-- Checks that routes cannot express. Only the routes for unusual requests enable this filter: REST that is not plain, and
-- gRPC with an unusual method or content-type. `decide` has no side effects. An error in it returns a 500, because Envoy
-- would let the request pass. No pattern may take more than linear time: one that searches from every position, such as
-- ":[^/]*/$", would block a worker for a second on a long path.

local READ, LIST = "GET, HEAD, OPTIONS", "GET, HEAD, POST, OPTIONS"

-- The first pattern that matches the path has the allowed methods. The transcoder returns 404 for all other paths.
local RESOURCES = {
  {"^/api/orders/stream/?$", READ},
  {"^/api/v1/orders/[^/]+/status/stream/?$", READ},
  {"^/api/v1/products/?$", LIST},
  {"^/api/v1/orders/?$", LIST},
  {"^/api/v1/categories/?$", READ},
  {"^/api/v1/products:batchGet$", READ},
  {"^/api/v1/products/[^/:]+:adjustStock$", "POST, OPTIONS"},
  {"^/api/v1/products/[^/:]+:undelete$", "POST, OPTIONS"},
  {"^/api/v1/products/[^/:]+/?$", "GET, HEAD, PATCH, DELETE, OPTIONS"},
  {"^/api/v1/orders/[^/:]+:process$", "POST, OPTIONS"},
  {"^/api/v1/orders/[^/:]+:deliver$", "POST, OPTIONS"},
  {"^/api/v1/orders/[^/:]+:receive$", "POST, OPTIONS"},
  {"^/api/v1/orders/[^/:]+:cancel$", "POST, OPTIONS"},
  {"^/api/v1/orders/[^/:]+:ticket$", "POST, OPTIONS"},
  {"^/api/v1/orders/[^/:]+/?$", READ},
  {"^/api/v1/carts/?$", "POST, OPTIONS"},
  {"^/api/v1/carts:mine$", READ},
  {"^/api/v1/carts:merge$", "POST, OPTIONS"},
  {"^/api/v1/carts/[^/:]+:add$", "POST, OPTIONS"},
  {"^/api/v1/carts/[^/:]+:set$", "POST, OPTIONS"},
  {"^/api/v1/carts/[^/:]+:clear$", "POST, OPTIONS"},
  {"^/api/v1/carts/[^/:]+:checkout$", "POST, OPTIONS"},
  {"^/api/v1/carts/[^/:]+/?$", "GET, HEAD, DELETE, OPTIONS"},
}

-- Parameters that are not lists. An empty one counts as absent, and a repeated one is ambiguous.
local SINGLE = {
  category = true, customerEmail = true, etag = true, number = true, orderBy = true, pageSize = true, pageToken = true,
  requestId = true, search = true, status = true,
}

local function reject(status, text, allow)
  return {status = status, text = text, allow = allow}
end

local function methods(path)
  for _, resource in ipairs(RESOURCES) do
    if path:match(resource[1]) then
      return resource[2]
    end
  end
end

-- Returns whether a page of another site sent the request. Such a page can send a POST without a preflight if it has a
-- content-type of forms, or none. Browsers reveal it in `origin`, and on trusted pages in `sec-fetch-site`.
local function is_cross_site(request)
  local site = request["sec-fetch-site"]
  return site ~= "same-origin" and (site ~= nil or request.origin ~= nil)
end

-- Returns the content-type in lower case and without parameters. A malformed one is returned as it is.
local function media_type(request)
  local value = (request["content-type"] or ""):lower()
  local kind = value:match("^[%w/.+-]*")
  local rest = value:sub(#kind + 1)
  return (rest:match("^%s*$") or rest:match("^%s*;")) and kind or value
end

-- Returns a rejection, nil if the content-type is allowed, or `"body?"` if it is allowed without a body only.
local function check_content_type(request)
  local kind = media_type(request)
  if kind == "application/json" then
    return nil
  end
  local length = request["content-length"]
  local empty = kind == "" or (kind == "application/x-www-form-urlencoded" and length == "0")
  if not empty or (length or "0") ~= "0" or (request[":method"] == "POST" and is_cross_site(request)) then
    return reject(415, "writes below /api/ must be JSON with the content-type application/json")
  end
  if length == nil then
    return "body?"
  end
end

-- Returns a rejection, or the query for the transcoder.
local function check_query(method, path, query)
  local kept, seen = {}, {}
  for pair in query:gmatch("[^&]+") do
    local name = pair:match("^[^=]*")
    local field = name:gsub("_(%l)", string.upper)
    local shown = "the query parameter " .. name:sub(1, 100)
    if name:find("%", 1, true) then
      return reject(400, "the name of a query parameter must not be percent-encoded: " .. name:sub(1, 100))
    elseif method == "POST" and not path:match("^/api/v1/products/?$") then
      return reject(400, shown .. " is not allowed: put it into the body")
    elseif field == "product" or field:match("^product%.") then
      return reject(400, shown .. " is not allowed: put the product into the body")
    elseif field == "id" and path:match("^/api/v1/%l+/.") then
      return reject(400, "the id is in the path and must not be in the query")
    elseif not (SINGLE[field] and pair:match("^[^=]*=?$")) then
      if SINGLE[field] and seen[field] then
        return reject(400, shown .. " must occur only once")
      end
      seen[field] = true
      kept[#kept + 1] = pair
    end
  end
  return table.concat(kept, "&")
end

-- Decides on a request below /api/. Returns a rejection, or its path, its method and whether it must have no body.
local function rest(request)
  local method = request[":method"]
  local path, query = request[":path"]:match("^([^?]*)%??(.*)$")
  -- Clients that encode a whole segment also encode the colon of a verb.
  path = path:gsub("%%3[Aa]", ":")
  local last = path:reverse():match("^/([^/]*)")
  if last and last:find(":", 1, true) then
    path = path:sub(1, -2)
  end
  local allowed = methods(path)
  if allowed and method == "OPTIONS" then
    return {status = 204, text = "", allow = allowed}
  elseif allowed and not (", " .. allowed .. ","):find(" " .. method .. ",", 1, true) then
    return reject(405, method .. " is not allowed here; use " .. allowed, allowed)
  elseif (request["content-type"] or ""):match("^application/grpc") then
    return reject(415, "paths below /api/ are REST; use gRPC at /<package>.<service>/<method>")
  end
  local empty = false
  if method ~= "GET" and method ~= "HEAD" then
    local found = check_content_type(request)
    if type(found) == "table" then
      return found
    end
    empty = found ~= nil
  end
  query = check_query(method, path, query)
  if type(query) == "table" then
    return query
  end
  return {path = query == "" and path or path .. "?" .. query, head = method == "HEAD", empty = empty}
end

-- Decides on a gRPC request with an unusual method or content-type. Returns a rejection, or its content-type.
local function grpc(request)
  if request[":method"] == "OPTIONS" then
    return {status = 204, text = "", allow = "POST, OPTIONS"}
  elseif request[":method"] ~= "POST" then
    return reject(405, request[":method"] .. " is not allowed here; use POST", "POST, OPTIONS")
  end
  local kind = media_type(request)
  local base = kind:gsub("%+proto$", "")
  if base == "application/grpc" or base == "application/grpc-web" or base == "application/grpc-web-text" then
    return {content_type = kind}
  end
  return reject(415, "this path is gRPC or gRPC-Web; REST is below /api/")
end

local function decide(headers)
  local request = {}
  for _, name in ipairs({":method", ":path", "content-length", "content-type", "origin", "sec-fetch-site"}) do
    request[name] = headers:get(name)
  end
  return (request[":path"]:match("^/api/") and rest or grpc)(request)
end

function envoy_on_request(handle)
  local ok, result = pcall(decide, handle:headers())
  if not ok then
    handle:logErr(result)
    result = reject(500, "")
  end
  if not result.status and result.empty then
    local body = handle:body()
    if body and body:length() > 0 then
      result = reject(415, "writes below /api/ must be JSON with the content-type application/json")
    end
  end
  if result.status then
    local response = {[":status"] = tostring(result.status)}
    if result.allow then
      response.allow = result.allow
    end
    handle:respond(response, result.text)
    return
  end
  local headers = handle:headers() -- again, because waiting for the body invalidated them
  if result.path then
    headers:replace(":path", result.path)
  end
  if result.content_type then
    headers:replace("content-type", result.content_type)
    handle:clearRouteCache()
  end
  if result.head then
    -- The transcoder appends the method that it sees; the access log uses the first one.
    headers:replace("x-envoy-original-method", "HEAD")
    headers:replace(":method", "GET")
    handle:streamInfo():dynamicMetadata():set("shop", "head", true)
  end
end

function envoy_on_response(handle)
  local noted = handle:streamInfo():dynamicMetadata():get("shop")
  if noted and noted.head then
    for chunk in handle:bodyChunks() do
      chunk:setBytes("")
    end
  end
end
