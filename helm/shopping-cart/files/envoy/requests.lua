-- What a route cannot say about a request. Only the routes that turn this filter on pay for it: what is REST and not
-- plain, and gRPC whose method or content-type is not the usual one. `decide` has no side effects; an error in it is
-- answered with a 500, since Envoy would let the request pass. No pattern may take more than linear time: a search from
-- every place on, as in ":[^/]*/$", would be a second of a worker for one long path.

local READ, LIST = "GET, HEAD, OPTIONS", "GET, HEAD, POST, OPTIONS"

-- The first pattern that matches the path says which methods there are. The transcoder answers 404 for all other paths.
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
  {"^/api/v1/orders/[^/:]+/?$", READ},
}

-- Parameters that are no lists. Empty, they count as absent; twice, it cannot be told which is meant.
local SINGLE = {
  category = true, customerEmail = true, etag = true, number = true, orderBy = true, pageSize = true, pageToken = true,
  requestId = true, search = true, status = true,
}

local function refuse(status, text, allow)
  return {status = status, text = text, allow = allow}
end

local function methods(path)
  for _, resource in ipairs(RESOURCES) do
    if path:match(resource[1]) then
      return resource[2]
    end
  end
end

-- A page of another site can send a POST without asking first if it has one of the content-types of forms, or none. It
-- cannot hide where it comes from: every browser says so in `origin`, and in `sec-fetch-site` where the page is trusted.
local function foreign(request)
  local site = request["sec-fetch-site"]
  return site ~= "same-origin" and (site ~= nil or request.origin ~= nil)
end

-- The content-type in lower case, without parameters; what is none stays as it is.
local function media_type(request)
  local value = (request["content-type"] or ""):lower()
  local kind = value:match("^[%w/.+-]*")
  local rest = value:sub(#kind + 1)
  return (rest:match("^%s*$") or rest:match("^%s*;")) and kind or value
end

-- Answers why the content-type will not do, or `"body?"` where that depends on whether a body comes.
local function check_content_type(request)
  local kind = media_type(request)
  if kind == "application/json" then
    return nil
  end
  local length = request["content-length"]
  local empty = kind == "" or (kind == "application/x-www-form-urlencoded" and length == "0")
  if not empty or (length or "0") ~= "0" or (request[":method"] == "POST" and foreign(request)) then
    return refuse(415, "a write below /api/ is JSON: its content-type must be application/json")
  end
  if length == nil then
    return "body?"
  end
end

-- Answers a refusal, or the query as the transcoder shall have it.
local function check_query(method, path, query)
  local kept, seen = {}, {}
  for pair in query:gmatch("[^&]+") do
    local name = pair:match("^[^=]*")
    local field = name:gsub("_(%l)", string.upper)
    local shown = "the query parameter " .. name:sub(1, 100)
    if name:find("%", 1, true) then
      return refuse(400, "the name of a query parameter must not be percent-encoded: " .. name:sub(1, 100))
    elseif method == "POST" and not path:match("^/api/v1/products/?$") then
      return refuse(400, shown .. " is not allowed: what is written is in the body")
    elseif field == "product" or field:match("^product%.") then
      return refuse(400, shown .. " is not allowed: the product is in the body")
    elseif field == "id" and path:match("^/api/v1/%l+/.") then
      return refuse(400, "the id is in the path and must not be in the query")
    elseif not (SINGLE[field] and pair:match("^[^=]*=?$")) then
      if SINGLE[field] and seen[field] then
        return refuse(400, shown .. " must be there once")
      end
      seen[field] = true
      kept[#kept + 1] = pair
    end
  end
  return table.concat(kept, "&")
end

-- Answers what becomes of a request below /api/: a refusal, or its path, its method and whether it must have no body.
local function rest(request)
  local method = request[":method"]
  local path, query = request[":path"]:match("^([^?]*)%??(.*)$")
  -- Clients that encode a whole segment encode the colon of a verb as well.
  path = path:gsub("%%3[Aa]", ":")
  local last = path:reverse():match("^/([^/]*)")
  if last and last:find(":", 1, true) then
    path = path:sub(1, -2)
  end
  local allowed = methods(path)
  if allowed and method == "OPTIONS" then
    return {status = 204, text = "", allow = allowed}
  elseif allowed and not (", " .. allowed .. ","):find(" " .. method .. ",", 1, true) then
    return refuse(405, method .. " is not allowed here; use one of " .. allowed, allowed)
  elseif (request["content-type"] or ""):match("^application/grpc") then
    return refuse(415, "REST is below /api/, and gRPC at /<package>.<service>/<method>")
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

-- Answers what becomes of a gRPC request that is not spelled as clients spell it: a refusal, or its content-type.
local function grpc(request)
  if request[":method"] == "OPTIONS" then
    return {status = 204, text = "", allow = "POST, OPTIONS"}
  elseif request[":method"] ~= "POST" then
    return refuse(405, request[":method"] .. " is not allowed here; use POST", "POST, OPTIONS")
  end
  local kind = media_type(request)
  local base = kind:gsub("%+proto$", "")
  if base == "application/grpc" or base == "application/grpc-web" or base == "application/grpc-web-text" then
    return {content_type = kind}
  end
  return refuse(415, "this path speaks gRPC and gRPC-Web; REST is below /api/")
end

local function decide(headers)
  local request = {}
  for _, name in ipairs({":method", ":path", "content-length", "content-type", "origin", "sec-fetch-site"}) do
    request[name] = headers:get(name)
  end
  return (request[":path"]:match("^/api/") and rest or grpc)(request)
end

function envoy_on_request(handle)
  local fine, found = pcall(decide, handle:headers())
  if not fine then
    handle:logErr(found)
    found = refuse(500, "")
  end
  if not found.status and found.empty then
    local body = handle:body()
    if body and body:length() > 0 then
      found = refuse(415, "a write below /api/ is JSON: its content-type must be application/json")
    end
  end
  if found.status then
    local answer = {[":status"] = tostring(found.status)}
    if found.allow then
      answer.allow = found.allow
    end
    handle:respond(answer, found.text)
    return
  end
  local headers = handle:headers() -- not those of before: to wait for the body ended them
  if found.path then
    headers:replace(":path", found.path)
  end
  if found.content_type then
    headers:replace("content-type", found.content_type)
    handle:clearRouteCache()
  end
  if found.head then
    -- The transcoder adds the method that it sees; the log has the first.
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
