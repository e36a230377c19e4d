// Orders for staff: the list, which stays current while it is in sight, and each order with what can be done to it.

import { call } from "./api.js";
import { attempt, byId, element, formatTime, setText, tell } from "./dom.js";
import { format, multiply } from "./money.js";
import { Rows, act, ask, begin, cell, debounce, openDialog } from "./staff-parts.js";

const PAGE_SIZE = 25;
const MAX_PAGE_SIZE = 100; // the shop's
const POLL_INTERVAL = 4_000; // milliseconds
const MAX_POLL_INTERVAL = 60_000; // milliseconds, after failures

const STATUSES = {
  PLACED: { label: "Placed", kind: "warn", verb: "process", step: "Process" },
  PROCESSED: { label: "Processed", kind: "", verb: "deliver", step: "Deliver" },
  DELIVERED: { label: "Delivered", kind: "", verb: "receive", step: "Mark as received" },
  RECEIVED: { label: "Received", kind: "good" },
  CANCELLED: { label: "Cancelled", kind: "bad" },
};

let rows;
let nextPage = "";
let filter = {}; // of what is shown
let isOpen = false;
let timer;
let failures = 0;
let loading = new AbortController();
let shownOrder; // the open dialog: {id, show, close}

export function startOrders() {
  rows = new Rows(byId("order-rows"), orderRow);
  const options = Object.entries(STATUSES).map(([value, { label }]) => element("option", { value }, label));
  byId("order-status").append(...options);
  byId("order-filter").addEventListener("submit", event => event.preventDefault());
  byId("order-search").addEventListener("input", debounce(load));
  byId("order-status").addEventListener("change", load);
  byId("more-orders").onclick = () => attempt(loadMore, byId("more-orders"));
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (isOpen && !document.hidden) refresh();
  });
}

export function openOrders() {
  isOpen = true;
  load();
}

export function closeOrders() {
  isOpen = false;
  loading.abort();
  clearTimeout(timer);
}

// For who is the next at this screen: orders have the names and addresses of customers.
export function forgetOrders() {
  shownOrder?.close();
  rows.replace([]);
  byId("order-filter").reset();
}

function load() {
  loading.abort();
  loading = new AbortController();
  clearTimeout(timer);
  const { signal } = loading;
  const search = byId("order-search").value.trim();
  filter = { status: byId("order-status").value, [search.includes("@") ? "customerEmail" : "number"]: search };
  return attempt(async () => {
    const { updates } = rows;
    const { orders, nextPageToken } = await list("", PAGE_SIZE, signal);
    rows.replace(rows.newest(orders, updates));
    showEnd(nextPageToken);
    const many = `${orders.length}${nextPageToken ? " or more" : ""} orders found`;
    setText(byId("orders-found"), orders.length === 1 ? "1 order found" : many);
    showLive();
  }).finally(() => !signal.aborted && schedule());
}

async function loadMore() {
  const { orders, nextPageToken } = await list(nextPage, PAGE_SIZE, loading.signal);
  rows.append(orders);
  showEnd(nextPageToken);
  setText(byId("orders-found"), `${orders.length} more orders`);
}

function list(pageToken, pageSize, signal) {
  return call("GET", "/api/v1/orders", { query: { ...filter, pageSize, pageToken }, signal });
}

function showEnd(token) {
  nextPage = token;
  byId("more-orders").hidden = !token;
  byId("no-orders").hidden = rows.items.length > 0;
}

// Nobody looks at a page that is hidden, so it asks for nothing. After a failure it asks less often.
function schedule() {
  clearTimeout(timer);
  if (!isOpen || document.hidden) return;
  timer = setTimeout(refresh, Math.min(POLL_INTERVAL * 2 ** failures, MAX_POLL_INTERVAL));
}

// Gets the newest orders again. Those further down are as they were, so a list that somebody reads does not jump.
async function refresh() {
  const { signal } = loading;
  try {
    const size = Math.min(Math.max(rows.items.length, PAGE_SIZE), MAX_PAGE_SIZE);
    const { updates } = rows;
    const { orders: found, nextPageToken } = await list("", size, signal);
    const orders = rows.newest(found, updates);
    const fresh = orders.filter(({ id }) => !rows.get(id));
    const changed = orders.filter(order => rows.get(order.id) && rows.get(order.id).etag !== order.etag);
    const rest = rows.items.slice(size);
    rows.replace([...orders, ...rest.filter(({ id }) => !orders.some(order => order.id === id))]);
    if (!rest.length) showEnd(nextPageToken);
    for (const { id } of [...fresh, ...changed]) rows.mark(id);
    if (fresh.length) setText(byId("orders-found"), fresh.length === 1 ? "1 new order" : `${fresh.length} new orders`);
    const shown = shownOrder && changed.find(({ id }) => id === shownOrder.id);
    if (shown) shownOrder.show(shown);
    failures = 0;
    showLive();
  } catch (error) {
    if (error.name !== "ApiError") return;
    failures += 1;
    showLive(error);
  }
  if (!signal.aborted) schedule();
}

function showLive(error) {
  const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" }).format(new Date());
  byId("orders-live").classList.toggle("late", Boolean(error));
  setText(byId("orders-live"), error ? "Not up to date. Trying again." : `Updated at ${time}`);
}

function orderRow(order) {
  const { number, customer, items, total, createTime } = order;
  const open = element("button", { type: "button", class: "link", "data-action": "open" }, number);
  open.onclick = () => openOrder(order, open);
  const pieces = items.reduce((sum, { quantity }) => sum + quantity, 0);
  return element(
    "tr",
    { role: "row" },
    cell("Order", {}, open, element("span", { class: "second" }, formatTime(createTime))),
    cell("Customer", {}, element("span", {}, customer?.name || "–", element("span", { class: "second" }, customer?.email))),
    cell("Items", { class: "number" }, String(pieces)),
    cell("Total", { class: "number" }, format(total)),
    cell("Status", {}, badge(order)),
    element("td", { role: "cell", class: "actions" }, element("span", {}, ...moves(order))),
  );
}

function badge({ status }) {
  const { label, kind } = STATUSES[status] ?? { label: status, kind: "" };
  return element("span", { class: `badge ${kind}` }, label);
}

// The buttons for what may be done to an order now.
function moves(order) {
  const { number, status } = order;
  const { verb, step } = STATUSES[status] ?? {};
  const button = (label, key, properties) => {
    return element("button", { type: "button", "data-action": key, "aria-label": `${label}: ${number}`, ...properties }, label);
  };
  const buttons = [];
  if (verb) {
    const next = button(step, "next", {});
    next.onclick = () => act(() => move(order, verb), next);
    buttons.push(next);
  }
  if (status === "PLACED" || status === "PROCESSED") {
    const cancel = button("Cancel", "cancel", { class: "quiet danger" });
    cancel.onclick = () => act(() => cancelOrder(order, cancel), cancel);
    buttons.push(cancel);
  }
  return buttons;
}

async function cancelOrder(order, opener) {
  const text = "Its products go back into the stock. This cannot be undone.";
  if (await ask(`Cancel ${order.number}?`, text, { label: "Cancel the order", opener })) await move(order, "cancel");
}

// The etag is that of what was shown: a move that somebody else made meanwhile is not taken for this one.
async function move({ id, number, etag }, verb) {
  let order;
  try {
    order = await call("POST", `/api/v1/orders/${id}:${verb}`, { body: { etag }, repeatable: true });
    tell(`${number} is ${STATUSES[order.status].label.toLowerCase()}.`);
  } catch (error) {
    if (!["ETAG_MISMATCH", "ILLEGAL_TRANSITION"].includes(error.reason)) throw error;
    order = await call("GET", `/api/v1/orders/${id}`);
    const now = STATUSES[order.status].label.toLowerCase();
    tell(`Somebody else was faster: ${number} is ${now} now.`, { error: true });
  }
  rows.update(order);
  if (shownOrder?.id === id) shownOrder.show(order);
}

const openOrder = ({ id }, opener) => act(async () => {
  const isNewest = begin();
  const order = await call("GET", `/api/v1/orders/${id}`);
  rows.update(order, { mark: false });
  if (!isNewest()) return;
  const { dialog, body, close } = openDialog(order.number, { opener, broad: true });
  const show = current => {
    const focused = body.contains(document.activeElement);
    body.replaceChildren(...details(current));
    if (focused) body.querySelector("button")?.focus();
  };
  shownOrder = { id, show, close };
  dialog.addEventListener("close", () => {
    shownOrder = undefined;
  });
  show(order);
}, opener);

function details(order) {
  const { items, total, customer, shippingAddress, paymentMethod, notes, createTime, updateTime } = order;
  const facts = [
    ["Status", badge(order)],
    ["Customer", [customer?.name, customer?.email, customer?.phone].filter(Boolean).join("\n")],
    ["Address", shippingAddress],
    ["Payment", paymentMethod],
    ["Notes", notes],
    ["Placed", formatTime(createTime)],
    ["Last change", formatTime(updateTime)],
  ];
  const lines = items.map(({ name, quantity, unitPrice }) => element(
    "tr",
    { role: "row" },
    cell("Product", {}, name),
    cell("Pieces", { class: "number" }, `${quantity} × ${format(unitPrice)}`),
    cell("Price", { class: "number" }, format(multiply(unitPrice, quantity))),
  ));
  const sum = element(
    "tr",
    { role: "row" },
    cell("Total", {}, element("strong", {}, "Total")),
    cell("", {}),
    cell("Total", { class: "number" }, element("strong", {}, format(total))),
  );
  return [
    element(
      "dl",
      { class: "facts" },
      ...facts.filter(([, value]) => value).map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
    ),
    element("table", { class: "lines", role: "table", "aria-label": "Items" }, element("tbody", { role: "rowgroup" }, ...lines, sum)),
    element("div", { class: "row-buttons" }, ...moves(order)),
  ];
}
