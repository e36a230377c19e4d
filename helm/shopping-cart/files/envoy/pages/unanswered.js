// The checkout of this tab that has no definite answer yet. A reload keeps it, and asks again.
//
//   keep(cart, etag, body)   keeps a checkout before it is sent. cart: {id, secret}
//   unanswered()             it: {id, secret, subject, etag, bodies}; undefined if there is none
//   send()                   sends exactly that checkout, any number of times: it is one order. Returns {order,
//                            isEarlier}, or throws an error, after which it is kept only if it may still be an order
//
// bodies is what was sent for the same version of the cart, the last first: the form may have changed in between.
// isEarlier says that the order has the details of an earlier one.

import { call } from "./api.js";
import { session } from "./session.js";
import { tab } from "./storage.js";

const KEY = "shop.checkout";
const UNDECIDED = [
  "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "CANCELLED", "UNKNOWN", "INTERNAL",
];

export function keep({ id, secret = "" }, etag, body) {
  const before = unanswered();
  const others = before?.id === id && before.etag === etag ? before.bodies : [];
  const bodies = [body, ...others.filter(other => JSON.stringify(other) !== JSON.stringify(body))];
  write({ id, secret, subject: secret ? "" : session.subject, etag, bodies });
}

export function unanswered() {
  const kept = read();
  if (!kept?.subject || kept.subject === session.subject) return kept;
  if (session.subject) tab.write(KEY, undefined); // somebody else has signed in
  return undefined;
}

function read() {
  const text = tab.read(KEY);
  return text && JSON.parse(text);
}

function write(kept) {
  tab.write(KEY, kept?.bodies.length ? JSON.stringify(kept) : undefined);
}

export async function send() {
  const kept = unanswered();
  const headers = kept.secret ? { "cart-secret": kept.secret } : {};
  for (let isEarlier = false; ; isEarlier = true) {
    const [body, ...others] = kept.bodies;
    try {
      const order = await call("POST", `/api/v1/carts/${kept.id}:checkout`, { body, headers, repeatable: true });
      write(undefined);
      return { order, isEarlier };
    } catch (error) {
      const isOther = error.reason === "IDEMPOTENCY_KEY_REUSED"; // ordered with what was sent before
      if (isOther || error.code === "INVALID_ARGUMENT") write({ ...kept, bodies: others });
      else if (error.name === "ApiError" && !UNDECIDED.includes(error.code)) write(undefined);
      if (!isOther || !others.length) throw error;
      kept.bodies = others;
    }
  }
}
