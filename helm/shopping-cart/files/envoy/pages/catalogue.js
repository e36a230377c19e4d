// The catalogue: categories, search, sorting, pages, and a card for each product.
//
//   startCatalogue()   prepares the controls
//   openCatalogue()    shows the view, and reads it again unless it is new

import { call } from "./api.js";
import { add, cart, onCart, shownQuantity } from "./cart.js";
import { attempt, byId, closeButton, drawing, element, setText, spoken, tell } from "./dom.js";
import { format } from "./money.js";
import { picture } from "./pictures.js";

const PAGE_SIZE = 24;
const SEARCH_PAUSE = 200; // milliseconds after the last key
const FRESH_TIME = 5_000; // milliseconds
const FEW = 5; // so many pieces or fewer are told by number

let cards = [];
let shown = {}; // the query of the list
let nextPage = "";
let running; // the AbortController of the newest query
let readAt = 0;
let isReady = false;
let hasFailed = false;

export function startCatalogue() {
  const skeleton = () => element("li", { class: "card skeleton", "aria-hidden": "true" });
  byId("products").replaceChildren(...Array.from({ length: 8 }, skeleton));
  let timer;
  byId("search").oninput = () => {
    clearTimeout(timer);
    timer = setTimeout(search, SEARCH_PAUSE);
  };
  byId("sort").onchange = () => attempt(() => list(true));
  byId("more").onclick = () => attempt(() => list(hasFailed && !cards.length));
  onCart(() => cards.forEach(each => each.showInCart()));
}

export async function openCatalogue() {
  if (Date.now() - readAt < FRESH_TIME) return;
  await Promise.all([loadCategories(), list(true)]);
}

function search() {
  if (byId("catalogue").hidden) location.hash = "#/";
  return attempt(() => list(true));
}

const category = () => document.querySelector('input[name="category"]:checked')?.value ?? "";

async function loadCategories() {
  const { categories } = await call("GET", "/api/v1/categories");
  const chosen = category();
  const chips = ["", ...categories.map(({ name }) => name)].map(name => {
    const input = element("input", { type: "radio", name: "category", value: name, checked: name === chosen });
    input.onchange = () => attempt(() => list(true));
    return element("label", {}, input, name || "All");
  });
  const fieldset = byId("categories");
  if (fieldset.contains(document.activeElement)) return; // it would lose the focus
  fieldset.replaceChildren(fieldset.querySelector("legend"), ...chips);
}

async function list(restart) {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const asked = {
    pageSize: PAGE_SIZE,
    search: byId("search").value.trim(),
    category: category(),
    orderBy: byId("sort").value,
  };
  // The next page belongs to the list that is shown, whatever has been typed since.
  const query = restart ? asked : { ...shown, pageToken: nextPage };
  byId("products").setAttribute("aria-busy", "true");
  byId("more").disabled = true;
  try {
    const page = await call("GET", "/api/v1/products", { query, signal });
    if (signal.aborted) return; // a newer query has started
    showPage(page, restart, query);
  } catch (error) {
    if (!signal.aborted) showFailure(restart);
    throw error;
  } finally {
    if (!signal.aborted) {
      byId("products").removeAttribute("aria-busy");
      byId("more").disabled = false;
    }
  }
}

function showFailure(restart) {
  hasFailed = true;
  if (restart) cards = [];
  if (restart) byId("products").replaceChildren();
  byId("more").hidden = false;
  setText(byId("more"), "Try again");
}

function showPage({ products, nextPageToken }, restart, query) {
  const added = products.map(card);
  if (restart) {
    cards = added;
    byId("products").replaceChildren(...added.map(each => each.node));
  } else {
    const hadFocus = document.activeElement === byId("more") || document.activeElement === document.body;
    cards.push(...added);
    byId("products").append(...added.map(each => each.node));
    if (hadFocus) added[0]?.node.querySelector("button").focus();
  }
  shown = query;
  nextPage = nextPageToken;
  readAt = Date.now();
  hasFailed = false;
  setText(byId("more"), "Show more");
  byId("more").hidden = !nextPage;
  byId("none").hidden = cards.length > 0;
  const title = query.search ? `Results for “${query.search}”` : query.category || "All products";
  setText(byId("catalogue-title"), title);
  const number = nextPage ? `${cards.length} or more` : cards.length;
  const count = number === 1 ? "1 product" : `${number} products`;
  if (isReady) setText(byId("found"), cards.length ? `${count} found.` : "Nothing found.");
  isReady = true;
}

// A card is kept while it is shown, so that its button keeps the focus.
function card(product) {
  const inCart = element("span", { class: "badge in-cart", hidden: true });
  const title = element("button", { type: "button", onclick: () => showDetail(product) }, product.name);
  const buy = buyButton(product);
  const node = element(
    "li",
    { class: "card product", "data-product": product.id },
    picture(product),
    inCart,
    element(
      "div",
      { class: "text" },
      element("h2", { class: "name" }, title),
      element("p", { class: "variant" }, product.variant || "\u00a0"),
      element("p", { class: "facts" }, stars(product.star), stock(product)),
      element("div", { class: "buy" }, element("span", { class: "price" }, format(product.price)), buy),
    ),
  );
  node.classList.toggle("sold-out", product.stock === "0");
  function showInCart() {
    const item = cart()?.items.find(each => each.productId === product.id);
    const quantity = item ? shownQuantity(item) : 0;
    inCart.hidden = quantity === 0;
    setText(inCart, `${quantity} in cart`);
  }
  showInCart();
  return { node, showInCart };
}

function buyButton(product) {
  const name = spoken(`: ${product.name}`);
  if (product.stock === "0") return element("button", { type: "button", disabled: true }, "Sold out", name);
  const button = element("button", { type: "button", class: "primary" }, "Add to cart", name);
  button.onclick = () => attempt(async () => {
    await add(product);
    tell(`${product.name} is in your cart.`);
  }, button);
  return button;
}

function stars(star) {
  if (!star) return element("span", { class: "stars" }, "No rating yet");
  const path = drawing("path", { d: "M12 2.5l2.9 6.2 6.8.8-5 4.7 1.3 6.7-6-3.3-6 3.3 1.3-6.7-5-4.7 6.8-.8z" });
  const shape = drawing("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, path);
  return element("span", { class: "stars" }, shape, spoken("Rated "), star.toFixed(1), spoken(" of 5"));
}

function stock({ stock: left }) {
  if (left === "0") return element("span", { class: "stock out" }, "Sold out");
  if (BigInt(left) <= FEW) return element("span", { class: "stock few" }, `${left} left`);
  return element("span", { class: "stock" }, "In stock");
}

function showDetail(product) {
  const facts = element(
    "div",
    { class: "text" },
    product.variant && element("p", { class: "muted" }, product.variant),
    product.description && element("p", { class: "description" }, product.description),
    element("p", { class: "facts row" }, stars(product.star), stock(product)),
    element("p", { class: "price" }, format(product.price)),
    buyButton(product),
  );
  const title = element("h2", { id: "detail-title" }, product.name);
  const dialog = element(
    "dialog",
    { class: "sheet detail", "aria-labelledby": "detail-title" },
    element("header", {}, title, closeButton("Close", () => dialog.close())),
    element("div", { class: "body" }, picture(product), facts),
    element("div", { "data-notices": true, role: "status" }),
  );
  dialog.onclose = () => dialog.remove();
  dialog.onclick = ({ target }) => { // beside the sheet
    if (target === dialog) dialog.close();
  };
  document.body.append(dialog);
  dialog.showModal();
}
