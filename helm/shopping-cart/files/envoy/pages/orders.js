// One's orders: those of who is signed in, or those that a guest placed in this browser.
//
//   openOrders()            shows the view
//   rememberOrder(order)    keeps a guest's order, with the ticket that opens it
//   readOrder(id)           reads an order, with its ticket if it was placed here
//   ticketOf(id)            the ticket of an order that was placed here, or ""
//   statusBadge(status)     a status as a coloured word

import { call } from "./api.js";
import { attempt, byId, element, formatTime, tell } from "./dom.js";
import { format } from "./money.js";
import { session } from "./session.js";
import { shared } from "./storage.js";

const KEY = "shop.orders";
const MAX_ORDERS = 50; // the newest that are kept
const PAGE_SIZE = 10;

export const STATUSES = {
  PLACED: "Placed",
  PROCESSED: "Packed",
  DELIVERED: "On its way",
  RECEIVED: "Received",
  CANCELLED: "Cancelled",
};

export async function rememberOrder({ id, ticket = "" }) {
  if (session.subject && !ticket) return; // the shop knows whose it is
  await shared.update(KEY, (orders = []) => {
    const others = orders.filter(each => each.id !== id);
    return [{ id, ticket }, ...others].slice(0, MAX_ORDERS);
  });
}

export async function ticketOf(id) {
  return (await storedOrders()).find(each => each.id === id)?.ticket ?? "";
}

const storedOrders = async () => await shared.read(KEY) ?? [];

export function statusBadge(status) {
  const kind = { RECEIVED: "good", CANCELLED: "bad" }[status] ?? "";
  return element("span", { class: `badge ${kind}` }, STATUSES[status] ?? status);
}

export async function openOrders() {
  const pages = session.subject ? customersPages() : guestsPages();
  const list = element("ul", { class: "orders", role: "list" });
  const more = element("button", { type: "button", hidden: true }, "Show more");
  const none = element("p", { class: "empty", hidden: true });
  const noOrders = session.subject ? "You have no orders yet. " : "No orders were placed in this browser yet. ";
  none.append(noOrders, element("a", { href: "#/" }, "See the products"));
  more.onclick = () => attempt(load, more);
  const isGuest = session.canSignIn && !session.subject;
  const whose = isGuest ? "These are the orders of this browser. Sign in to see yours." : "";
  byId("orders").replaceChildren(
    element(
      "div",
      { class: "title-row" },
      element("div", {}, element("h1", { id: "orders-title" }, "Your orders"), element("p", { class: "muted" }, whose)),
    ),
    list,
    none,
    element("p", { class: "more" }, more),
  );

  async function load() {
    const { value = [], done } = await pages.next();
    const isFirst = !list.children.length;
    const shown = value.map(row);
    list.append(...shown);
    if (!isFirst) shown[0]?.querySelector("a").focus();
    more.hidden = done;
    none.hidden = list.children.length > 0;
  }

  await load();
}

// An async generator's last page is its return value: `done` then says that there is no other.
async function* customersPages() {
  for (let pageToken = ""; ;) {
    const page = await call("GET", "/api/v1/orders", { query: { pageSize: PAGE_SIZE, pageToken } });
    if (!page.nextPageToken) return page.orders;
    pageToken = page.nextPageToken;
    yield page.orders;
  }
}

async function* guestsPages() {
  const stored = await storedOrders();
  for (let start = 0; ; start += PAGE_SIZE) {
    const orders = await Promise.all(stored.slice(start, start + PAGE_SIZE).map(readIfThere));
    const found = orders.filter(Boolean);
    if (start + PAGE_SIZE >= stored.length) return found;
    yield found;
  }
}

export async function readOrder(id) {
  const ticket = await ticketOf(id);
  return call("GET", `/api/v1/orders/${encodeURIComponent(id)}`, { headers: ticket ? { "order-ticket": ticket } : {} });
}

async function readIfThere({ id }) {
  try {
    return await readOrder(id);
  } catch (error) {
    // It is not there any more, or its ticket has expired.
    if (error.code === "NOT_FOUND" || error.code === "UNAUTHENTICATED") return undefined;
    tell(error.message, { error: true });
    return undefined;
  }
}

function row(order) {
  const things = order.items.map(({ name, quantity }) => quantity > 1 ? `${quantity} × ${name}` : name).join(", ");
  const link = element(
    "a",
    { class: "card", href: `#/orders/${order.id}` },
    element("span", { class: "number" }, order.number),
    statusBadge(order.status),
    element("span", { class: "things" }, things),
    element("span", { class: "number" }, format(order.total)),
    element("small", {}, formatTime(order.createTime)),
  );
  return element("li", {}, link);
}
