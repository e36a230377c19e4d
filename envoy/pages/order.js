// One order: what it has, and its status, live.
//
//   openOrder(id)                    shows the view
//   closeOrder()                     ends its stream
//   showPlacedOrder(order, remark)   goes to the view of an order that was placed right now, with a remark, if any

import { call } from "./api.js";
import { attempt, byId, element, icon, setText, tell } from "./dom.js";
import { format, multiply } from "./money.js";
import { readOrder, rememberOrder, STATUSES, ticketOf } from "./orders.js";
import { picture } from "./pictures.js";
import { session, signIn } from "./session.js";
import { follow } from "./status.js";

const WAY = ["PLACED", "PROCESSED", "DELIVERED", "RECEIVED"];
const CANCELLABLE = ["PLACED", "PROCESSED"];

let placed; // what was placed right now: {order, remark, subject}
let stop = () => {};
let turn = 0; // of the view: what was read for an earlier one is not shown

export async function showPlacedOrder(order, remark = "") {
  await rememberOrder(order);
  placed = { order, remark, subject: session.subject };
  location.hash = `#/orders/${order.id}`;
}

export function closeOrder() {
  turn += 1;
  stop();
}

export async function openOrder(id) {
  const mine = turn += 1;
  const fresh = placed?.order.id === id && placed.subject === session.subject ? placed : undefined;
  byId("order").replaceChildren(element("h1", { id: "order-title" }, "Your order"));
  const ticket = await ticketOf(id);
  if (mine !== turn) return;
  const order = fresh?.order ?? await readOrSignIn(id, mine);
  if (!order || mine !== turn) return;
  if (placed === fresh) placed = undefined;
  const steps = element("ol", { class: "steps", role: "list" });
  const live = element("p", { class: "live", role: "status" });
  // A guest's ticket shows an order; only customers and staff cancel.
  const cancel = ticket ? undefined : element("button", { type: "button", class: "danger", hidden: true });
  const told = element("p", { class: "spoken", role: "status" });
  const reached = new Map();
  if (cancel) {
    cancel.append("Cancel the order");
    cancel.onclick = () => attempt(async () => {
      await call("POST", `/api/v1/orders/${id}:cancel`, { repeatable: true });
      tell(`Order ${order.number} is cancelled.`);
    }, cancel);
  }
  const number = element("p", { class: "muted" }, "Number ", element("strong", {}, order.number));
  const head = element("div", { class: "head-row" }, element("h2", {}, "Status"), live);
  const title = fresh ? "Thank you for your order" : "Your order";
  byId("order").replaceChildren(
    element(
      "div",
      { class: "title-row" },
      element("div", {}, element("h1", { id: "order-title" }, title), number),
      element("a", { href: "#/orders" }, "All your orders"),
    ),
    ...fresh?.remark ? [element("p", { class: "callout" }, icon("info"), fresh.remark)] : [],
    element(
      "div",
      { class: "two" },
      element("div", { class: "card panel" }, head, steps, told, cancel),
      element("div", { class: "card panel aside" }, element("h2", {}, "Your order"), contents(order), delivery(order)),
    ),
  );
  showSteps(steps, reached);
  stop();
  stop = follow({ id, ticket }, {
    status(status, time) {
      reached.set(status, time);
      showSteps(steps, reached);
      setText(told, `Status: ${STATUSES[status] ?? status}`);
      if (cancel) cancel.hidden = !CANCELLABLE.includes(status);
    },
    connection(state, text) {
      live.dataset.state = state;
      setText(live, text);
    },
  });
}

async function readOrSignIn(id, mine) {
  try {
    return await readOrder(id);
  } catch (error) {
    if (mine !== turn) return undefined;
    if (error.reason !== "TOKEN_REQUIRED") throw error;
    await signIn("Sign in to see this order."); // which opens the view again
    return undefined;
  }
}

function showSteps(list, reached) {
  const isCancelled = reached.has("CANCELLED");
  const way = isCancelled ? [...WAY.filter(status => reached.has(status)), "CANCELLED"] : WAY;
  const last = [...reached.keys()].at(-1);
  list.replaceChildren(...way.map(status => {
    const time = reached.get(status);
    const classes = [reached.has(status) && "done", status === last && "now", status === "CANCELLED" && "cancelled"];
    return element(
      "li",
      { class: classes.filter(Boolean).join(" "), "data-status": status, "aria-current": status === last && "step" },
      element("span", { class: "dot" }, icon(status === "CANCELLED" ? "cross" : "check")),
      element("strong", {}, STATUSES[status]),
      time && element("time", { datetime: time }, new Date(time).toLocaleTimeString()),
    );
  }));
}

function contents({ items, total }) {
  const rows = items.map(({ productId, name, quantity, unitPrice }) => element(
    "li",
    {},
    picture({ id: productId, name }),
    element("div", {}, element("p", {}, name), element("small", {}, `${quantity} × ${format(unitPrice)}`)),
    element("span", { class: "number" }, format(multiply(unitPrice, quantity))),
  ));
  return element(
    "div",
    { class: "summary" },
    element("ul", { role: "list" }, rows),
    element("p", { class: "total-row" }, element("span", {}, "Total"), element("strong", {}, format(total))),
  );
}

function delivery({ customer, shippingAddress, paymentMethod, notes }) {
  const pairs = [
    ["Name", customer?.name],
    ["E-mail", customer?.email],
    ["Phone", customer?.phone],
    ["Address", shippingAddress],
    ["Payment", PAYMENTS[paymentMethod] ?? paymentMethod],
    ["Notes", notes],
  ];
  const pair = ([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text));
  return element("dl", { class: "pairs" }, pairs.filter(([, text]) => text).map(pair));
}

export const PAYMENTS = { CARD: "Card", BANK_TRANSFER: "Bank transfer", CASH_ON_DELIVERY: "Cash on delivery" };
