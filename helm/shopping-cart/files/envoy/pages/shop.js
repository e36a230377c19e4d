// The page at /: shows one view at a time, which the part of the URL after # names.

import { cart, forgetCart, onCart, mergeGuestCart, refresh, shownQuantity, startCart } from "./cart.js";
import { startCartPanel } from "./cart-panel.js";
import { openCatalogue, startCatalogue } from "./catalogue.js";
import { closeCheckout, openCheckout, resumeCheckout } from "./checkout.js";
import { attempt, byId, clearNotices, setText } from "./dom.js";
import { closeOrder, openOrder } from "./order.js";
import { openOrders } from "./orders.js";
import { onSession, session, startSession } from "./session.js";

const VIEWS = {
  catalogue: { open: openCatalogue, title: "Shop" },
  checkout: { open: openCheckout, close: closeCheckout, title: "Checkout · Shop" },
  order: { open: openOrder, close: closeOrder, title: "Your order · Shop" },
  orders: { open: openOrders, title: "Your orders · Shop" },
};
const PERSONAL = ["checkout", "order", "orders"];

let shown;

function route() {
  const [, first, second] = location.hash.split("/");
  if (first === "checkout") return ["checkout"];
  if (first === "orders") return second ? ["order", second] : ["orders"];
  return ["catalogue"];
}

async function show() {
  const [name, argument] = route();
  const isFirst = !shown;
  if (shown) VIEWS[shown].close?.();
  shown = name;
  for (const view of Object.keys(VIEWS)) byId(view).hidden = view !== name;
  document.title = VIEWS[name].title;
  if (name === "orders") byId("orders-link").setAttribute("aria-current", "page");
  else byId("orders-link").removeAttribute("aria-current");
  byId("cart").close();
  clearNotices();
  const opened = attempt(() => VIEWS[name].open(argument));
  if (isFirst) return opened;
  scrollTo(0, 0);
  byId("main").focus({ preventScroll: true });
  return opened;
}

function showCount() {
  const count = (cart()?.items ?? []).reduce((sum, item) => sum + shownQuantity(item), 0);
  const node = byId("cart-count");
  const text = count > 999 ? "999+" : String(count);
  if (node.textContent === text) return;
  const isMore = count > Number(node.textContent);
  setText(node, text);
  node.hidden = count === 0;
  node.classList.remove("new");
  if (isMore) requestAnimationFrame(() => node.classList.add("new"));
}

function sessionChanged() {
  return session.subject ? signedIn() : signedOut();
}

async function signedIn() {
  await attempt(mergeGuestCart);
  if (shown === "orders" || shown === "order") await show();
  else resumeCheckout(); // the form keeps what a guest has entered
}

// Nothing of who was signed in waits for a response to leave the page.
async function signedOut() {
  forgetCart();
  for (const view of PERSONAL) byId(view).replaceChildren();
  if (PERSONAL.includes(shown)) show();
  await attempt(refresh);
}

document.querySelector(".skip").onclick = event => { // the URL's # is for views
  event.preventDefault();
  byId("main").focus();
};
byId("search-form").onsubmit = event => {
  event.preventDefault();
  byId("products").querySelector("button")?.focus();
};
addEventListener("hashchange", show);
onCart(showCount);
onSession(sessionChanged);
startCatalogue();
startCartPanel();
const started = startSession();
if (route()[0] !== "catalogue") await started; // only a catalogue is the same for everybody
show();
await started;
await attempt(startCart);
