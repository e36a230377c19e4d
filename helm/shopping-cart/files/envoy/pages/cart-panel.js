// The cart as a panel at the side.
//
//   startCartPanel()   prepares the panel and the button that opens it

import { cart, clear, isPending, onCart, setQuantity, shownQuantity } from "./cart.js";
import { attempt, byId, closeButton, element, icon, setText } from "./dom.js";
import { add, format, multiply } from "./money.js";
import { picture } from "./pictures.js";
import { blocks, problemsOf } from "./problems.js";

const MAX_QUANTITY = 100_000_000;
const TYPING_PAUSE = 600; // milliseconds

const rows = new Map(); // by product, so that what has the focus stays
let parts;

export function startCartPanel() {
  const dialog = byId("cart");
  const stale = "The catalogue does not respond. Prices are those of when you added the items.";
  parts = {
    title: element("h2", { id: "cart-title", tabindex: "-1" }, "Your cart"),
    stale: element("p", { class: "callout", hidden: true }, stale),
    lines: element("ul", { class: "lines", role: "list" }),
    empty: element("p", { class: "empty" }, "Your cart is empty."),
    total: element("strong", { id: "cart-total" }),
    why: element("p", { class: "field-problem", id: "cart-why" }),
    order: element("a", { class: "button primary block", href: "#/checkout", onclick: () => dialog.close() }, "Check out"),
    clearing: element("div", { class: "row" }),
  };
  parts.totals = element(
    "div",
    { class: "totals" },
    element("p", { class: "total-row" }, element("span", {}, "Total"), parts.total),
    parts.why,
    parts.order,
    parts.clearing,
  );
  offerToClear();
  dialog.append(
    element("header", {}, parts.title, closeButton("Close the cart", () => dialog.close())),
    parts.stale,
    parts.empty,
    parts.lines,
    element("div", { class: "notices", "data-notices": true, role: "status" }),
    parts.totals,
  );
  dialog.onclick = ({ target }) => { // beside the panel
    if (target === dialog) dialog.close();
  };
  byId("open-cart").onclick = () => dialog.showModal();
  onCart(show);
  show(undefined);
}

function offerToClear() {
  const ask = element("button", { type: "button", class: "quiet danger" }, icon("trash"), "Clear the cart");
  ask.onclick = () => {
    const yes = element("button", { type: "button", class: "danger" }, "Yes, remove all items");
    yes.onclick = () => attempt(clear, yes).then(() => {
      offerToClear();
      parts.title.focus();
    });
    const no = element("button", { type: "button", onclick: offerToClear }, "No");
    parts.clearing.replaceChildren(yes, no);
    no.focus();
  };
  const hadFocus = parts.clearing.contains(document.activeElement);
  parts.clearing.replaceChildren(ask);
  if (hadFocus) ask.focus();
}

function show(current) {
  const items = current?.items ?? [];
  const focusedRow = [...rows.values()].find(({ node }) => node.contains(document.activeElement));
  for (const [id, row] of rows) {
    if (items.some(({ productId }) => productId === id)) continue;
    row.stop();
    row.node.remove();
    rows.delete(id);
  }
  items.forEach((item, index) => {
    if (!rows.has(item.productId)) rows.set(item.productId, line(item.productId));
    const row = rows.get(item.productId);
    row.show(item);
    const there = parts.lines.children[index];
    if (there !== row.node) parts.lines.insertBefore(row.node, there ?? null);
  });
  if (focusedRow && !focusedRow.node.isConnected) parts.title.focus();
  parts.empty.hidden = items.length > 0;
  parts.totals.hidden = items.length === 0;
  parts.stale.hidden = !current?.stale;
  const total = shownTotal(current);
  setText(parts.total, total ? format(total) : "–");
  const hasBlocking = items.some(blocks);
  setText(parts.why, hasBlocking ? "Some items cannot be ordered. Change or remove them first." : "");
  if (hasBlocking) parts.order.setAttribute("aria-describedby", "cart-why");
  else parts.order.removeAttribute("aria-describedby");
}

// The shop's own total. Before it has answered to a change, the sum of what is shown.
function shownTotal(current) {
  if (!current || !isPending()) return current?.total;
  const sold = current.items.filter(item => !item.problems.some(({ reason }) => reason === "PRODUCT_DELETED"));
  const sums = sold.map(item => multiply(item.unitPrice, shownQuantity(item)));
  if (!sums.length || sums.some(({ currencyCode }) => currencyCode !== sums[0].currencyCode)) return current.total;
  return sums.reduce(add);
}

function line(productId) {
  let item;
  let timer;
  let problems = "";
  const name = element("h3", {});
  const each = element("p", { class: "each" });
  const sum = element("span", { class: "sum" });
  const input = element("input", { inputmode: "numeric", autocomplete: "off", maxlength: 9 });
  const less = element("button", { type: "button", onclick: () => step(-1) }, icon("minus"));
  const more = element("button", { type: "button", onclick: () => step(1) }, icon("plus"));
  const remove = element("button", { type: "button", class: "quiet square", onclick: () => send(0) }, icon("trash"));
  const change = element("div", { class: "change" }, element("div", { class: "quantity" }, less, input, more), remove);
  const node = element("li", { class: "line", "data-product": productId });

  function send(quantity) {
    clearTimeout(timer);
    return attempt(() => setQuantity(productId, quantity));
  }

  function step(difference) {
    const wanted = shownQuantity(item) + difference;
    if (wanted < 1 || wanted > MAX_QUANTITY) return;
    send(wanted);
  }

  function typed(isFinal) {
    clearTimeout(timer);
    const wanted = Number(input.value);
    const isValid = /^\d+$/.test(input.value.trim()) && wanted >= 1 && wanted <= MAX_QUANTITY;
    if (isValid && wanted !== shownQuantity(item)) send(wanted);
    else if (isFinal) input.value = shownQuantity(item);
  }

  input.oninput = () => {
    clearTimeout(timer);
    timer = setTimeout(() => typed(false), TYPING_PAUSE);
  };
  input.onchange = () => typed(true);

  function show(changed) {
    const isFirst = !item;
    item = changed;
    const quantity = shownQuantity(item);
    if (isFirst) {
      const what = element("div", { class: "what" }, element("div", {}, name, each), sum);
      node.append(picture({ id: productId, name: item.name }), what, change);
    }
    setText(name, item.name);
    less.setAttribute("aria-label", `One less: ${item.name}`);
    more.setAttribute("aria-label", `One more: ${item.name}`);
    input.setAttribute("aria-label", `Quantity of ${item.name}`);
    remove.setAttribute("aria-label", `Remove ${item.name}`);
    less.disabled = quantity <= 1 && document.activeElement !== less;
    setText(each, `${format(item.unitPrice)} each`);
    setText(sum, format(multiply(item.unitPrice, quantity)));
    if (document.activeElement !== input || Number(input.value) !== quantity && !timer) input.value = quantity;
    const told = JSON.stringify([item.problems, item.available, item.unitPrice, item.addedUnitPrice, item.quantity]);
    if (told === problems) return;
    problems = told;
    const hadFocus = node.contains(document.activeElement) && document.activeElement.closest(".callout");
    node.querySelectorAll(".callout").forEach(callout => callout.remove());
    node.append(...problemsOf(item));
    if (hadFocus) (node.querySelector(".callout button") ?? input).focus();
  }

  return { node, show, stop: () => clearTimeout(timer) };
}
