// The checkout: who orders what was seen, at the price that was seen.
//
//   openCheckout()    shows the view
//   closeCheckout()   leaves it
//   resumeCheckout()  fills in what was sent before, if the view is open and the shop has not responded to it

import { cart, checkout, onCart, onPlaced, refresh } from "./cart.js";
import { attempt, byId, clearNotices, element, icon, setText, tell } from "./dom.js";
import { format, multiply, parse, same } from "./money.js";
import { PAYMENTS, showPlacedOrder } from "./order.js";
import { rememberOrder } from "./orders.js";
import { picture } from "./pictures.js";
import { blocks, problemsOf } from "./problems.js";
import { isGone, session } from "./session.js";
import { unanswered } from "./unanswered.js";

// The name of a field in the API's violations is its path there.
const required = true;
const FIELDS = [
  { id: "name", path: "customer.name", label: "Name", autocomplete: "name", maxlength: 200, required },
  {
    id: "email", path: "customer.email", label: "E-mail", autocomplete: "email", maxlength: 254, required,
    type: "email",
  },
  { id: "phone", path: "customer.phone", label: "Phone (optional)", type: "tel", autocomplete: "tel", maxlength: 32 },
  {
    id: "address", path: "shipping_address", label: "Address", autocomplete: "street-address",
    maxlength: 1000, required, rows: 3,
  },
  { id: "notes", path: "notes", label: "Notes (optional)", autocomplete: "off", maxlength: 2000, rows: 2 },
];

const OTHER_DETAILS = "Your first attempt had placed this order, with the details that you gave then.";
const LOST_RESPONSE = "The shop had placed this order. Only its response was lost.";

let view; // the parts that change, while the view is open
let seen = {}; // {etag, total} of what is shown
let isPlacing = false;

onCart((current, isOwn) => view && cartChanged(current, isOwn));
onPlaced(async ({ order, isEarlier }) => {
  if (view) return showOrder(order, isEarlier ? OTHER_DETAILS : LOST_RESPONSE);
  await rememberOrder(order);
  return tellOrder(order, "Only the response of the shop was lost.");
});

function tellOrder(order, remark = "") {
  const action = { label: "See it", run: () => { location.hash = `#/orders/${order.id}`; } };
  return tell(`Your order ${order.number} was placed. ${remark}`.trim(), { action });
}

function showOrder(order, remark) {
  closeCheckout(); // what becomes of the cart is not shown any more
  return showPlacedOrder(order, remark);
}

export function closeCheckout() {
  view = undefined;
}

export async function openCheckout() {
  view = build();
  seen = {};
  if (cart()) cartChanged(cart());
  else view.form.hidden = true;
  const opened = view;
  await refresh();
  if (view === opened) resumeCheckout();
}

export function resumeCheckout() {
  const kept = unanswered();
  if (!view || !kept || kept.etag !== seen.etag) return;
  fillIn(kept.bodies[0]);
  say("The shop did not respond, and has not placed your order so far. Place it again: you will not order twice.");
}

function build() {
  const parts = {
    message: element("div", { role: "alert", tabindex: "-1" }),
    lines: element("ul", { role: "list" }),
    total: element("strong", {}),
    place: element("button", { type: "submit", class: "primary block" }, "Place the order"),
    empty: element("p", { class: "empty", hidden: true }, "Your cart is empty. "),
  };
  parts.empty.append(element("a", { href: "#/" }, "See the products"));
  const [name, email, phone, address, notes] = FIELDS.map(field);
  const payments = Object.entries(PAYMENTS).map(([value, label], index) => element(
    "label",
    {},
    element("input", { type: "radio", name: "payment", value, checked: index === 0 }),
    label,
  ));
  parts.form = element(
    "form",
    { class: "two", novalidate: true, onsubmit: place },
    element(
      "div",
      { class: "card panel" },
      group("Who orders?", element("div", { class: "columns" }, name, email, phone)),
      group("Where to?", address),
      group("How do you pay?", element("div", { class: "choices" }, payments)),
      notes,
    ),
    element(
      "div",
      { class: "card panel aside summary" },
      element("h2", {}, "Your order"),
      parts.lines,
      element("p", { class: "total-row" }, element("span", {}, "Total"), parts.total),
      parts.message,
      parts.place,
      element("p", { class: "hint" }, "You pay what you see here, or you are asked again."),
    ),
  );
  byId("checkout").replaceChildren(
    element("div", { class: "title-row" }, element("h1", { id: "checkout-title" }, "Checkout")),
    parts.empty,
    parts.form,
  );
  return parts;
}

function group(legend, ...children) {
  return element("fieldset", {}, element("legend", {}, legend), ...children);
}

function field({ id, path, label, rows, ...attributes }) {
  const input = element(rows ? "textarea" : "input", {
    id: `order-${id}`, name: id, "data-path": path, "aria-describedby": `order-${id}-problem`, rows, ...attributes,
  });
  input.oninput = () => showProblem(input, "");
  return element(
    "div",
    { class: "field" },
    element("label", { for: `order-${id}` }, label),
    input,
    element("p", { class: "field-problem", id: `order-${id}-problem` }),
  );
}

function showProblem(input, text) {
  setText(byId(input.getAttribute("aria-describedby")), text);
  if (text) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

// --- what is shown ---------------------------------------------------------------------------------------------------

function cartChanged(current, isOwn = false) {
  const items = current?.items ?? [];
  const before = seen;
  seen = { etag: current?.etag, total: current?.total };
  view.empty.hidden = items.length > 0;
  view.form.hidden = items.length === 0;
  view.lines.replaceChildren(...items.map(row));
  setText(view.total, seen.total ? format(seen.total) : "–");
  label();
  const isOther = before.etag && (before.etag !== seen.etag || !same(before.total, seen.total));
  if (isOther && isOwn) say("");
  else if (isOther && items.length) {
    say("Your cart has changed. Look at it again before you place the order.");
  }
}

function row(item) {
  const each = element("small", {}, `${item.quantity} × ${format(item.unitPrice)}`);
  return element(
    "li",
    {},
    picture({ id: item.productId, name: item.name }),
    element("div", {}, element("p", {}, item.name), each),
    element("span", { class: "number" }, format(multiply(item.unitPrice, item.quantity))),
    problemsOf(item),
  );
}

function label() {
  const hasBlocking = cart()?.items.some(blocks);
  view.place.disabled = isPlacing || hasBlocking || !seen.total;
  const text = seen.total ? `Place the order for ${format(seen.total)}` : "Place the order";
  setText(view.place, isPlacing ? "Placing the order…" : text);
}

function say(text, ...ways) {
  const before = view.message.textContent;
  const callout = text && element("div", { class: "callout" }, icon("warning"), element("p", {}, text), ways);
  view.message.replaceChildren(...callout ? [callout] : []);
  return before !== text;
}

// --- placing it ------------------------------------------------------------------------------------------------------

function readForm() {
  const value = id => byId(`order-${id}`).value.trim();
  return {
    customer: { name: value("name"), email: value("email"), phone: value("phone") },
    shippingAddress: value("address"),
    paymentMethod: view.form.querySelector('input[name="payment"]:checked').value,
    notes: value("notes"),
  };
}

function fillIn({ customer, shippingAddress, paymentMethod, notes }) {
  const texts = { ...customer, address: shippingAddress, notes };
  for (const { id } of FIELDS) byId(`order-${id}`).value ||= texts[id] ?? "";
  if (paymentMethod) view.form.querySelector(`input[value="${CSS.escape(paymentMethod)}"]`).checked = true;
}

function isComplete() {
  const inputs = [...view.form.querySelectorAll("[data-path]")];
  for (const input of inputs) {
    const isMissing = input.required && !input.value.trim();
    const isWrong = input.type === "email" && input.validity.typeMismatch;
    showProblem(input, isMissing ? "Please fill this in." : isWrong ? "This is no e-mail address." : "");
  }
  const first = inputs.find(input => input.getAttribute("aria-invalid"));
  first?.focus();
  return !first;
}

async function place(event) {
  event.preventDefault();
  if (isPlacing || !isComplete()) return undefined;
  clearNotices();
  say("");
  isPlacing = true;
  label();
  const { subject } = session;
  try {
    const { order, isEarlier } = await checkout(readForm(), seen);
    const remark = isEarlier ? OTHER_DETAILS : "";
    if (view && !isGone(subject)) return await showOrder(order, remark);
    if (!isGone(subject)) await rememberOrder(order);
    return tellOrder(order, remark);
  } catch (error) {
    return isGone(subject) ? undefined : await attempt(() => explain(error));
  } finally {
    isPlacing = false;
    if (view) label();
  }
}

async function explain(error) {
  if (error.name !== "ApiError" || !view) throw error;
  if (error.reason === "PRICE_CHANGED") return askForPrice(error.metadata);
  if (error.code === "INVALID_ARGUMENT" && showViolations(error.fields)) return undefined;
  const text = {
    CART_CHANGED: "Your cart was changed meanwhile. Nothing was ordered. Look at it again before you place the order.",
    CART_EMPTY: "Your cart is empty by now. Nothing was ordered.",
    CART_NOT_FOUND: "Your cart has ended. Nothing was ordered.",
    CURRENCY_MISMATCH: "The items have prices in different currencies. Nothing was ordered.",
    IDEMPOTENCY_KEY_REUSED: "This cart was ordered already, with other details. Look at your orders.",
    INSUFFICIENT_STOCK: "There is not enough left of an item. Nothing was ordered. Change what is marked above.",
    ORDER_EXPIRED: "This took too long, and nothing was ordered. Place the order again.",
    PRODUCT_DELETED: "An item is no longer sold. Nothing was ordered. Remove what is marked above.",
  }[error.reason];
  if (!text) return say(`${error.message} You can try again: you will not order twice.`);
  isPlacing = false;
  await refresh();
  if (view) say(text);
  view?.message.focus();
  return undefined;
}

function askForPrice({ expected_total: expected, expected_currency: expectedCurrency, total, currency }) {
  const before = parse(expected, expectedCurrency);
  const now = parse(total, currency);
  const accept = element("button", { type: "button" }, `Order for ${format(now)}`);
  accept.onclick = () => {
    seen = { ...seen, total: now };
    view.form.requestSubmit();
  };
  const totals = `the total was ${format(before)}, and it is ${format(now)} now`;
  say(`Prices have changed: ${totals}. Nothing was ordered yet.`, accept);
  accept.focus();
}

function showViolations(violations) {
  const inputs = violations.map(({ field: path, description }) => {
    const input = view.form.querySelector(`[data-path="${CSS.escape(path)}"]`);
    if (input) showProblem(input, description);
    return input;
  });
  inputs.find(Boolean)?.focus();
  return inputs.some(Boolean);
}
