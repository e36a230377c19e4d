// The checkout of this tab that has no definite answer yet. A reload keeps it, and asks again.
//
//   keep(cart, etag, body)   keeps a checkout before it is sent. cart: {id, secret}
//   unanswered()             it: {id, secret, subject, etag, bodies}; undefined if there is none
//   send()                   sends exactly that checkout, any number of times: it is one order. Returns {order,
//                            isEarlier}, or throws an error, after which it is kept only if it may still be an order
//
// bodies is what was sent for the same version of the cart, the last first: the form may have changed in between.
// isEarlier says that the order has the details of an earlier one.
//
// When a customer signs out, what they have entered is removed. What stays, the cart's id and version, tells them after
// their next sign-in whether the shop has placed the order: it is among theirs. A guest's checkout stays as it is, since
// nothing else finds a guest's order.

import { call } from "./api.js";
import { isGone, onSession, onSignOut, session } from "./session.js";
import { tab } from "./storage.js";

const KEY = "shop.checkout";
const UNDECIDED = [
  "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "CANCELLED", "UNKNOWN", "INTERNAL",
];

onSignOut(() => {
  const kept = unanswered();
  if (kept?.subject) write({ ...kept, bodies: [{ etag: kept.etag }] });
});
onSession(() => { unanswered(); }); // which removes that of somebody else

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
  const settle = left => isGone(kept.subject) || write(left); // who is gone asks again when they are back
  const headers = kept.secret ? { "cart-secret": kept.secret } : {};
  for (let isEarlier = false; ; isEarlier = true) {
    const [body, ...others] = kept.bodies;
    try {
      const order = await call("POST", `/api/v1/carts/${kept.id}:checkout`, { body, headers, repeatable: true });
      settle(undefined);
      return { order, isEarlier };
    } catch (error) {
      const isOther = error.reason === "IDEMPOTENCY_KEY_REUSED"; // ordered with what was sent before
      if (isOther || error.code === "INVALID_ARGUMENT") settle({ ...kept, bodies: others });
      else if (error.name === "ApiError" && !UNDECIDED.includes(error.code)) settle(undefined);
      if (!isOther || !others.length) throw error;
      kept.bodies = others;
    }
  }
}
