// The page for staff: products, stock, and orders that are moved on by hand.
//
// In a shop that verifies tokens, it asks for a token of staff. Only the shop decides what a token may do: this page asks it.

import { call, idempotencyKey } from "./api.js";
import { attempt, byId, element, icon } from "./dom.js";
import { onSession, session, signIn, signOut, startSession } from "./session.js";
import { closeOrders, forgetOrders, openOrders, startOrders } from "./staff-orders.js";
import { begin } from "./staff-parts.js";
import { openProducts, startProducts } from "./staff-products.js";
import "./unanswered.js"; // who signs out here leaves no checkout in the shop's page

const VIEWS = { products: "Products", orders: "Orders" };

let allowed = false;
let checks = 0; // only the newest one counts

// Asks the shop to move on an order that cannot exist: staff are told so, and nobody else gets that far.
async function isStaff() {
  try {
    await call("POST", `/api/v1/orders/${idempotencyKey()}:process`, { repeatable: true });
  } catch (error) {
    if (error.code === "NOT_FOUND") return true;
    if (error.code === "PERMISSION_DENIED" || error.code === "UNAUTHENTICATED") return false;
    throw error;
  }
  return false;
}

async function checkAccess() {
  const mine = checks += 1;
  allowed = false;
  showView();
  forgetOrders();
  const place = byId("access");
  if (!session.canSignIn) {
    const text = "This shop has no sign-in: anyone who reaches this page can change its products and orders.";
    place.replaceChildren(element("div", { class: "callout" }, icon("warning"), element("p", {}, text)));
    allowed = true;
  } else if (!session.subject) {
    const open = element("button", { type: "button", class: "primary", onclick: () => signIn() }, "Sign in");
    place.replaceChildren(gate("Sign in as staff", "This page is for the staff of the shop, who sign in with a token.", open));
  } else {
    const isAllowed = await isStaff();
    if (mine !== checks) return;
    allowed = isAllowed;
    place.replaceChildren(...allowed ? [] : [gateOfCustomer()]);
  }
  showView();
}

function gateOfCustomer() {
  const text = `You are signed in as ${session.subject}, a customer. Your orders are in the shop.`;
  const shop = element("a", { class: "button primary", href: "/#/orders" }, "Go to the shop");
  const other = element("button", { type: "button", onclick: () => signOut() }, "Sign in as somebody else");
  return gate("This page is for staff only", text, shop, other);
}

function gate(title, text, ...buttons) {
  return element(
    "div",
    { class: "card gate" },
    element("h1", {}, title),
    element("p", { class: "muted" }, text),
    element("div", { class: "row-buttons" }, ...buttons),
  );
}

function currentView() {
  const name = location.hash.replace("#/", "");
  return name in VIEWS ? name : "products";
}

function showView() {
  const current = currentView();
  document.title = `${VIEWS[current]} – Shop staff`;
  for (const name of Object.keys(VIEWS)) {
    byId(name).hidden = !allowed || name !== current;
    if (name === current) byId(`${name}-link`).setAttribute("aria-current", "page");
    else byId(`${name}-link`).removeAttribute("aria-current");
  }
  closeOrders();
  begin(); // no dialog of another view opens any more
  if (!allowed) return;
  if (current === "orders") openOrders();
  else openProducts();
}

async function start() {
  await startSession({ staff: true });
  startProducts();
  startOrders();
  onSession(() => attempt(checkAccess));
  window.addEventListener("hashchange", () => {
    if (!location.hash.startsWith("#/")) return;
    showView();
    byId(`${currentView()}-title`).focus();
  });
  await checkAccess();
}

attempt(start);
