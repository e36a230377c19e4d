// Follows the status of an order by server-sent events.
//
//   follow(order, listener)   order: {id, ticket}. Returns a function that ends it
//     listener.status(status, time)   a status that the order got; each once and in order
//     listener.connection(state, text)  "connecting", "live", "reconnecting", "ended" or "failed", and a sentence
//
// An EventSource sends no headers. So the order's ticket, or the token, is exchanged for a ticket that may stand in a
// URL: it expires soon, and shows nothing but the status. A shop that verifies no tokens ignores it.

import { call } from "./api.js";

const UNAUTHENTICATED = 16;
const MIN_PAUSE = 1_000; // milliseconds until the next attempt, doubled each time
const MAX_PAUSE = 30_000;
const FINAL = ["RECEIVED", "CANCELLED"];

export function follow(order, listener) {
  let source;
  let timer;
  let last = 0; // the version of the last status: a new stream begins with what was told already
  let isFinal = false;
  let hasEnded = false;
  let isBack = false; // whether it was live before
  let needsTicket = false; // whether the last one had expired
  let pause = MIN_PAUSE;

  async function open() {
    try {
      const headers = order.ticket ? { "order-ticket": order.ticket } : {};
      const { ticket } = await call("POST", `/api/v1/orders/${order.id}:ticket`, { headers, repeatable: true });
      if (hasEnded) return;
      source = new EventSource(`/api/orders/stream?order_id=${order.id}&ticket=${encodeURIComponent(ticket)}`);
    } catch (error) {
      if (hasEnded) return;
      if (error.code === "UNAVAILABLE" || error.code === "RESOURCE_EXHAUSTED") again();
      else if (needsTicket) end("failed", "The ticket of the live status has expired.");
      else end("failed", `The live status has ended. ${error.message}`);
      return;
    }
    source.onopen = () => {
      const text = needsTicket ? "Live again, with a new ticket" : isBack ? "Live again" : "Live";
      pause = MIN_PAUSE;
      isBack = true;
      needsTicket = false;
      if (!isFinal) listener.connection("live", text);
    };
    source.onmessage = show;
    source.onerror = failed;
    source.addEventListener("completed", () => end("ended", "This was the last change."));
  }

  function show({ data, lastEventId }) {
    const version = Number(lastEventId);
    if (!(version > last)) return;
    last = version;
    const { status, updated_at: time } = JSON.parse(data);
    isFinal = FINAL.includes(status);
    listener.status(status, time);
  }

  function failed({ data }) {
    if (hasEnded) return;
    if (data && JSON.parse(data).code === UNAUTHENTICATED) { // the ticket has expired since
      source.close();
      needsTicket = true;
      listener.connection("reconnecting", "Reconnecting…");
      open();
    } else if (source.readyState !== EventSource.CLOSED) {
      listener.connection("reconnecting", "Reconnecting…"); // by itself
    } else if (isFinal) {
      end("ended", "This was the last change.");
    } else {
      again();
    }
  }

  function again() {
    listener.connection("reconnecting", "Reconnecting…");
    timer = setTimeout(open, pause * (1 + Math.random() / 4));
    pause = Math.min(pause * 2, MAX_PAUSE);
  }

  function end(state, text) {
    stop();
    listener.connection(state, text);
  }

  function stop() {
    hasEnded = true;
    clearTimeout(timer);
    source?.close();
  }

  listener.connection("connecting", "Connecting…");
  open();
  return stop;
}
