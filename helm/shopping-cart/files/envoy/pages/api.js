// Calls the shop's REST API.
//
//   call(method, path, options)   returns the response's JSON; throws an ApiError
//     body       sent as JSON. A write without one sends {}
//     query      an object; empty values are left out
//     headers    more headers
//     signal     an AbortSignal
//     repeatable whether to send it again if nobody knows whether it arrived: reads, and writes that have a key, an
//                etag or an absolute value. True for GET by default
//   ApiError                      code ("NOT_FOUND"), message, reason ("CART_NOT_FOUND" or ""), metadata, fields (the
//                                 violations), status (HTTP's; 0 if there was no response), mayHaveArrived (whether
//                                 an earlier attempt of the call had no response, and so may have done its work)
//   idempotencyKey()              a new UUID. Use the same one for each attempt of a write
//   setToken(token)               the bearer token of all calls from now on; "" for none
//   onRefusedToken(callback)      calls back if the shop does not accept a token (expired, invalid), with the error and
//                                 whether it is the present token

const CODES = [
  "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
  "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
];

const MAX_ATTEMPTS = 3;
const RETRY_PAUSE = 400; // milliseconds, doubled for each attempt
const MAX_RETRY_PAUSE = 5_000; // milliseconds
const TIMEOUT = 20_000; // milliseconds for one attempt

let token = "";
let refusedToken = () => {};

export class ApiError extends Error {
  constructor({ code, message, reason = "", metadata = {}, fields = [], status = 0, retryAfter = 0 }) {
    super(message);
    Object.assign(this, { name: "ApiError", code, reason, metadata, fields, status, retryAfter });
  }
}

export function setToken(value) {
  token = value;
}

export function onRefusedToken(callback) {
  refusedToken = callback;
}

export function idempotencyKey() { // crypto.randomUUID exists in secure contexts only
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = bytes[6] & 15 | 64;
  bytes[8] = bytes[8] & 63 | 128;
  const hex = Array.from(bytes, each => each.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

export async function call(method, path, options = {}) {
  const { repeatable = method === "GET" } = options;
  let mayHaveArrived = false;
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await attemptCall(method, path, options);
    } catch (error) {
      error.mayHaveArrived = mayHaveArrived;
      mayHaveArrived ||= error.status === 0 || error.status >= 500;
      if (!repeatable || attempt === MAX_ATTEMPTS || !passes(error)) throw error;
      const pause = Math.max(error.retryAfter * 1000, RETRY_PAUSE * 2 ** (attempt - 1));
      if (pause > MAX_RETRY_PAUSE) throw error;
      await wait(pause * (1 + Math.random() / 4), options.signal);
    }
  }
}

async function attemptCall(method, path, { body, query, headers, signal }) {
  const request = { method, headers: { accept: "application/json", ...headers }, cache: "no-cache" };
  if (token) request.headers.authorization = `Bearer ${token}`;
  if (method !== "GET" && method !== "DELETE") {
    request.headers["content-type"] = "application/json";
    request.body = JSON.stringify(body ?? {});
  }
  const timeout = AbortSignal.timeout(TIMEOUT);
  request.signal = signal ? AbortSignal.any([signal, timeout]) : timeout;
  let response;
  let json;
  try {
    response = await fetch(withQuery(path, query), request);
    json = response.status === 204 ? {} : await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw unreachable();
  }
  if (response.ok) return json;
  const error = fromStatus(response, json);
  const { authorization } = request.headers;
  if (["TOKEN_EXPIRED", "TOKEN_INVALID"].includes(error.reason) && authorization) {
    refusedToken(error, authorization === `Bearer ${token}`);
  }
  throw error;
}

function withQuery(path, query = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value != null));
  return parameters.size ? `${path}?${parameters}` : path;
}

function fromStatus(response, { code, message, details = [] }) {
  const detail = type => details.find(each => each["@type"]?.endsWith(`google.rpc.${type}`)) ?? {};
  const { reason = "", metadata = {} } = detail("ErrorInfo");
  return new ApiError({
    code: CODES[code] ?? "UNKNOWN",
    message: sentence(message || "The shop could not do that."),
    reason,
    metadata,
    fields: detail("BadRequest").fieldViolations ?? [],
    status: response.status,
    retryAfter: Number(response.headers.get("retry-after")) || 0,
  });
}

function unreachable() {
  const message = "The shop cannot be reached. Check your connection and try again.";
  return new ApiError({ code: "UNAVAILABLE", reason: "UNREACHABLE", message });
}

function passes({ code, reason }) {
  return code === "UNAVAILABLE" || code === "RESOURCE_EXHAUSTED" || code === "DEADLINE_EXCEEDED" && !reason;
}

function sentence(text) {
  const capital = text[0].toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}

function wait(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
