// The cart of this browser or of who is signed in, and the changes to it.
//
//   startCart()                 loads the cart, and keeps it as it is in other tabs and on other devices
//   cart()                      the cart as the shop last told it; undefined if there is none
//   onCart(callback)            calls back whenever it changes, with the cart and whether this tab has changed it
//   add(product, quantity)      adds pieces; creates the cart if there is none
//   setQuantity(id, quantity)   sets the pieces of a product; 0 removes it
//   clear()                     removes all items
//   refresh()                   reads the cart again
//   forgetCart()                shows none, until the next one is read
//   checkout(details, seen)     places the order of what was seen: {etag, total}. Returns {order, isEarlier}: whether an
//                               earlier attempt had placed it, with other details
//   onPlaced(callback)          calls back with the same when a checkout whose response was lost turns out to be an order
//   mergeGuestCart()            moves the guest's cart into that of who has signed in
//   shownQuantity(item)         what the cart will have of it when all changes have arrived
//   isPending()                 whether a quantity is on its way
//
// Changes are sent one after the other, so the last response is the newest cart. An add has a key and a set is
// absolute: both may be sent again. All tabs share a guest's id and secret (storage.js), and the secret is in no URL.
//
// A checkout without an answer (unanswered.js) comes before everything that is shown. As long as the cart is the
// version that it names, nothing was ordered, and only another click sends it. Otherwise it is sent again: it can
// order nothing more, and so returns the order that it has become, or says that there is none.

import { ApiError, call, idempotencyKey } from "./api.js";
import { tell } from "./dom.js";
import { isGone, session, signIn } from "./session.js";
import { shared } from "./storage.js";
import { keep, send as sendCheckout, unanswered } from "./unanswered.js";

const KEY = "shop.cart";
const FOCUS_PAUSE = 1_000; // milliseconds for which a cart is fresh enough when its tab comes to the front

const callbacks = [];
const desired = new Map(); // quantities on their way, by product
const placedCallbacks = [];
const channel = new BroadcastChannel("shop-cart");
let current;
let guest; // {id, secret} of the guest's cart, as this tab last read it. If another tab has forgotten it, it has ended
let lastTurn = Promise.resolve();
let turnSubject = ""; // who was signed in when the present turn began
let othersChanges = 0; // how often the cart had a change that this tab has not made
let lastRead = 0;

export const cart = () => current;
export const onCart = callback => callbacks.push(callback);
export const onPlaced = callback => placedCallbacks.push(callback);
export const shownQuantity = item => desired.get(item.productId) ?? item.quantity;
export const isPending = () => desired.size > 0;

export async function startCart() {
  channel.onmessage = refreshQuietly;
  const onFront = () => {
    if (document.visibilityState === "visible" && Date.now() - lastRead > FOCUS_PAUSE) refreshQuietly();
  };
  addEventListener("focus", onFront);
  addEventListener("online", refreshQuietly);
  document.addEventListener("visibilitychange", onFront);
  await mergeGuestCart();
}

// --- where the cart is -----------------------------------------------------------------------------------------------

async function readGuest() {
  guest = await shared.read(KEY);
  return guest;
}

async function forgetGuest({ id }) {
  let isForgotten;
  guest = await shared.update(KEY, kept => {
    isForgotten = kept?.id === id;
    return isForgotten ? undefined : kept;
  });
  if (isForgotten) channel.postMessage("changed");
}

// Tabs that create a cart at once use the one that is kept first. Another one stays empty, and expires.
async function createGuest() {
  const { cart: created, secret } = await call("POST", "/api/v1/carts", { repeatable: true });
  guest = await shared.update(KEY, kept => kept ?? { id: created.id, secret });
  return guest;
}

async function open() {
  if (!session.subject) return guest ?? await readGuest() ?? createGuest();
  const isOwn = current && current.id !== guest?.id; // the guest's is shown until it is merged
  return { id: (isOwn ? current : await call("GET", "/api/v1/carts:mine")).id };
}

function change({ id, secret }, verb, body) {
  const headers = secret ? { "cart-secret": secret } : {};
  return call("POST", `/api/v1/carts/${id}:${verb}`, { body, headers, repeatable: true });
}

// A cart that has expired or was merged is forgotten, and a set or clear of it is over. An add goes to the next cart,
// unless it may have been made before: what a sign-in in another tab has merged then has its piece.
async function changeAnyCart(verb, body) {
  const first = await open();
  try {
    return await change(first, verb, body);
  } catch (error) {
    if (error.reason !== "CART_NOT_FOUND") throw error;
    await forgetGuest(first);
    const had = current?.items.length;
    await apply(await readOwn());
    if (verb !== "add") throw ended("Nothing was changed.");
    if (error.mayHaveArrived && (!session.subject || current.items.some(item => item.productId === body.productId))) {
      throw ended("It may have this product: look there before you add it again.");
    }
    const changed = await change(await open(), verb, { ...body, requestId: idempotencyKey() });
    if (had) tell("Your cart had ended. This is a new one.");
    return changed;
  }
}

function ended(text) {
  const message = `Your cart has ended, perhaps because you signed in in another tab. ${text}`;
  return new ApiError({ code: "NOT_FOUND", reason: "CART_ENDED", message });
}

// --- in turn ---------------------------------------------------------------------------------------------------------

function inTurn(work) {
  const turn = lastTurn.then(() => {
    turnSubject = session.subject;
    return work();
  });
  lastTurn = turn.catch(() => {});
  return turn;
}

// If its customer signs out before its turn, a change is not made: it would be one of the guest's cart.
function changeInTurn(work) {
  const { subject } = session;
  return inTurn(() => {
    if (isGone(subject)) throw signedOut();
    return work();
  });
}

function signedOut() {
  return new ApiError({ code: "CANCELLED", message: "You signed out before this was done. Nothing was changed." });
}

async function apply(changed) {
  lastRead = Date.now();
  await settleCheckout(changed);
  if (isGone(turnSubject)) return; // it is their cart
  if (changed?.etag !== current?.etag) othersChanges += 1;
  current = changed;
  notify(false);
}

// own is what this tab has changed: {productId, quantity}.
async function applyChange(changed, own) {
  channel.postMessage("changed");
  try {
    await settleCheckout(changed);
  } catch (error) {
    if (error.name !== "ApiError") throw error; // this change was made; the checkout is asked for again
  }
  if (isGone(turnSubject)) return;
  if (!isOnly(own, changed)) othersChanges += 1;
  current = changed;
  notify();
}

// Whether a cart is the one that was shown and this change of it.
function isOnly({ productId, quantity } = {}, changed) {
  const expected = new Map(current?.items.map(item => [item.productId, item.quantity]));
  if (quantity) expected.set(productId, quantity);
  else expected.delete(productId);
  return changed.items.length === expected.size
    && changed.items.every(item => expected.get(item.productId) === item.quantity);
}

function notify(isOwn = true) {
  for (const callback of callbacks) callback(current, isOwn);
}

export function forgetCart() {
  current = undefined;
  desired.clear();
  notify(false);
}

export function refresh() {
  return inTurn(async () => apply(await readOwn()));
}

async function readOwn() {
  if (session.subject) return call("GET", "/api/v1/carts:mine");
  return await readGuest() && readIfThere(guest);
}

async function readIfThere({ id, secret }) {
  try {
    return await call("GET", `/api/v1/carts/${id}`, { headers: secret ? { "cart-secret": secret } : {} });
  } catch (error) {
    if (error.reason !== "CART_NOT_FOUND") throw error;
    await forgetGuest({ id });
    return undefined;
  }
}

async function refreshQuietly() {
  try {
    await refresh();
  } catch (error) {
    if (error.name !== "ApiError") throw error; // the next click will say what is wrong
  }
}

// --- changes ---------------------------------------------------------------------------------------------------------

export async function add({ id: productId }, quantity = 1) {
  const body = { productId, quantity, requestId: idempotencyKey() };
  const send = () => changeInTurn(async () => {
    const changed = await changeAnyCart("add", body);
    const had = current?.items.find(item => item.productId === productId)?.quantity ?? 0;
    await applyChange(changed, { productId, quantity: had + quantity });
  });
  try {
    await send();
  } catch (error) {
    if (error.reason !== "TOKEN_REQUIRED" || session.subject) throw error;
    if (!await signIn("Sign in to fill a cart.")) throw error;
    await send();
  }
}

export function setQuantity(productId, quantity) {
  desired.set(productId, quantity);
  notify();
  return inTurn(async () => {
    if (!desired.has(productId)) return; // an earlier turn has sent the last quantity, or its customer has signed out
    const wanted = desired.get(productId);
    let changed;
    try {
      changed = await changeAnyCart("set", { productId, quantity: wanted });
    } catch (error) {
      desired.delete(productId);
      notify();
      throw error;
    }
    if (desired.get(productId) === wanted) desired.delete(productId);
    await applyChange(changed, { productId, quantity: wanted });
  });
}

// Removes what was shown and what this tab has changed since, but nothing that came from elsewhere.
export async function clear() {
  const seen = othersChanges;
  const isCleared = await changeInTurn(async () => {
    if (!current || othersChanges !== seen) return false;
    try {
      await applyChange(await changeAnyCart("clear", { etag: current.etag }));
      return true;
    } catch (error) {
      if (error.reason !== "CART_CHANGED") throw error;
      return false;
    }
  });
  if (isCleared) return;
  await refresh();
  if (!current?.items.length) return;
  tell("The cart was changed elsewhere. Nothing was removed. Here is what it has now.", { error: true });
}

export function checkout(details, { etag, total }) {
  return changeInTurn(async () => {
    const target = await open();
    const before = unanswered();
    const isOther = before && (before.id !== target.id || before.etag !== etag);
    const earlier = isOther && await placedBefore();
    if (isGone(turnSubject)) throw signedOut();
    if (!earlier) keep(target, etag, { ...details, etag, expectedTotal: total });
    const placed = earlier ? { ...earlier, isEarlier: true } : await sendCheckout();
    channel.postMessage("changed");
    setTimeout(refreshQuietly);
    return placed;
  });
}

async function settleCheckout(changed) {
  const kept = unanswered();
  try {
    const placed = await placedBefore(changed);
    if (placed && !isGone(kept.subject)) placedCallbacks.forEach(callback => callback(placed));
  } catch (error) {
    if (error.reason !== "IDEMPOTENCY_KEY_REUSED") throw error;
    const action = { label: "Your orders", run: () => { location.hash = "#/orders"; } };
    tell("Your last order was placed. Only the response of the shop was lost.", { action });
  }
}

// What became of a checkout without an answer, once its cart is another version: undefined if it has ordered nothing.
// Throws IDEMPOTENCY_KEY_REUSED if it is an order with details that this tab does not have (any more).
async function placedBefore(changed) {
  const kept = unanswered();
  if (!kept || await hasVersion(kept, changed)) return undefined;
  try {
    return await sendCheckout();
  } catch (error) {
    if (error.name !== "ApiError" || unanswered() || error.reason === "IDEMPOTENCY_KEY_REUSED") throw error;
    const text = "Your cart has changed, and your last order was not placed.";
    if (error.reason === "CART_CHANGED") tell(text, { error: true });
    return undefined;
  }
}

async function hasVersion({ id, secret, etag }, changed) {
  const present = changed?.id === id ? changed : await readIfThere({ id, secret });
  return present?.etag === etag;
}

export async function mergeGuestCart() {
  let merging;
  try {
    const merged = await inTurn(async () => {
      merging = session.subject && await readGuest(); // after the changes that are under way: they may create it
      if (!merging) return undefined;
      const body = { cartId: merging.id, secret: merging.secret };
      const changed = await call("POST", "/api/v1/carts:merge", { body, repeatable: true });
      await forgetGuest(merging);
      await applyChange(changed);
      return changed;
    });
    if (!merged) return refresh();
    const capped = merged.items.filter(item => item.problems.some(({ reason }) => reason === "QUANTITY_CAPPED"));
    const names = capped.map(({ name }) => name).join(", ");
    if (names) tell(`Your carts are one now. It has as many pieces as it may have of: ${names}.`);
    return undefined;
  } catch (error) {
    if (error.reason === "CART_NOT_FOUND") await forgetGuest(merging);
    else if (error.reason === "CART_FULL") {
      const action = { label: "Try again", run: mergeGuestCart };
      tell("Your two carts have too many products together. Remove some, then bring in the other cart.", { action });
    } else throw error;
    return refresh();
  }
}
