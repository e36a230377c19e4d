// Products for staff: the list, and what can be done to each.

import { call, idempotencyKey } from "./api.js";
import { attempt, byId, element, setText, tell } from "./dom.js";
import { format } from "./money.js";
import { editProduct, newProduct } from "./staff-product-form.js";
import { Rows, act, begin, cell, clearProblems, debounce, field, openDialog, showProblem, showProblems } from "./staff-parts.js";

const PAGE_SIZE = 25;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

let rows;
let nextPage = "";
let filter = {}; // of what is shown
let loading = new AbortController();

export function startProducts() {
  rows = new Rows(byId("product-rows"), productRow);
  byId("product-filter").addEventListener("submit", event => event.preventDefault());
  byId("product-search").addEventListener("input", debounce(load));
  byId("product-category").addEventListener("change", load);
  byId("product-sort").addEventListener("change", load);
  byId("more-products").onclick = () => attempt(loadMore, byId("more-products"));
  const create = byId("new-product");
  create.onclick = () => act(async () => {
    const isNewest = begin();
    const categories = await listCategories();
    if (isNewest()) newProduct(categories, { opener: create, done: created });
  }, create);
}

export function openProducts() {
  load();
  attempt(fillCategories);
}

async function created(product) {
  rows.prepend([product]);
  rows.mark(product.id);
  byId("no-products").hidden = true;
  tell(`${product.name} is in the catalogue.`);
  await fillCategories();
}

// The latest search wins, whichever answer is the first.
function load() {
  loading.abort();
  loading = new AbortController();
  const { signal } = loading;
  const [search, category, sort] = ["search", "category", "sort"].map(name => byId(`product-${name}`).value.trim());
  filter = { search, category, orderBy: sort };
  return attempt(async () => {
    const { updates } = rows;
    const { products, nextPageToken } = await list("", signal);
    rows.replace(rows.newest(products, updates));
    showEnd(nextPageToken);
    const count = `${products.length}${nextPageToken ? " or more" : ""} products found`;
    setText(byId("products-found"), products.length === 1 && !nextPageToken ? "1 product found" : count);
  });
}

async function loadMore() {
  const { products, nextPageToken } = await list(nextPage, loading.signal);
  rows.append(products);
  showEnd(nextPageToken);
  setText(byId("products-found"), `${products.length} more products`);
}

async function list(pageToken, signal) {
  const { search } = filter;
  if (UUID.test(search)) {
    try {
      return { products: [await call("GET", `/api/v1/products/${search.toLowerCase()}`, { signal })], nextPageToken: "" };
    } catch (error) {
      if (error.code === "NOT_FOUND") return { products: [], nextPageToken: "" };
      throw error;
    }
  }
  return call("GET", "/api/v1/products", { query: { ...filter, pageSize: PAGE_SIZE, pageToken }, signal });
}

function showEnd(token) {
  nextPage = token;
  byId("more-products").hidden = !token;
  byId("no-products").hidden = rows.items.length > 0;
}

async function listCategories() {
  const { categories } = await call("GET", "/api/v1/categories");
  return categories.map(({ name }) => name).filter(Boolean);
}

async function fillCategories() {
  const select = byId("product-category");
  const chosen = select.value;
  const names = await listCategories();
  const options = names.map(name => element("option", { value: name }, name));
  select.replaceChildren(element("option", { value: "" }, "All"), ...options);
  select.value = names.includes(chosen) ? chosen : "";
}

function productRow(product) {
  const { name, variant, category, sku, price, stock, deleteTime } = product;
  const about = [variant, category].filter(Boolean).join(" · ");
  const first = cell("Product", {}, element("span", { class: "name" }, name), element("span", { class: "second" }, about));
  const buttons = deleteTime
    ? [action("Restore", name, "restore", button => restore(product, button))]
    : [
        action("Edit", name, "edit", button => edit(product, button)),
        action("Stock", name, "stock", button => changeStock(product, button)),
        action("Delete", name, "delete", button => remove(product, button)),
      ];
  const state = deleteTime ? element("span", { class: "badge bad" }, "Deleted") : stockText(Number(stock));
  return element(
    "tr",
    { role: "row", class: deleteTime ? "deleted" : false },
    first,
    cell("SKU", {}, sku),
    cell("Price", { class: "number" }, format(price)),
    cell("Stock", { class: "number" }, state),
    element("td", { role: "cell", class: "actions" }, element("span", {}, ...buttons)),
  );
}

function stockText(stock) {
  const count = new Intl.NumberFormat().format(stock);
  if (stock === 0) return element("span", { class: "badge bad" }, "Sold out");
  return stock < 5 ? element("span", { class: "badge warn" }, `${count} left`) : count;
}

function action(label, name, key, run) {
  const danger = key === "delete" ? "quiet danger" : "quiet";
  const button = element("button", { type: "button", class: danger, "data-action": key, "aria-label": `${label} ${name}` }, label);
  button.onclick = () => run(button);
  return button;
}

const edit = (product, opener) => act(async () => {
  const isNewest = begin();
  const [fresh, categories] = await Promise.all([call("GET", `/api/v1/products/${product.id}`), listCategories()]);
  if (fresh.deleteTime) {
    rows.update(fresh);
    tell(`${fresh.name} has been deleted meanwhile.`, { error: true });
    return;
  }
  const done = async saved => {
    rows.update(saved);
    tell(`${saved.name} is saved.`);
    await fillCategories();
  };
  if (isNewest()) editProduct(fresh, categories, { opener, done });
}, opener);

const remove = (product, button) => act(async () => {
  const path = `/api/v1/products/${product.id}`;
  try {
    const deleted = await call("DELETE", path, { query: { etag: product.etag }, repeatable: true });
    rows.update(deleted);
    const undo = { label: "Undo", run: () => restore(deleted) };
    tell(`${deleted.name} is deleted: nobody can order it now. Orders keep it.`, { action: undo });
  } catch (error) {
    if (error.reason !== "ETAG_MISMATCH") throw error;
    rows.update(await call("GET", path));
    tell(`Somebody else has changed ${product.name}. Look at it, then delete it again.`, { error: true });
  }
}, button);

const restore = ({ id, etag }, button) => (button ? act : attempt)(async () => {
  const restored = await call("POST", `/api/v1/products/${id}:undelete`, { body: { etag }, repeatable: true });
  rows.update(restored);
  tell(`${restored.name} can be ordered again.`);
}, button);

// A change by a difference: sales go on meanwhile, and nobody can overwrite what they took.
const changeStock = (product, opener) => act(async () => {
  const isNewest = begin();
  const fresh = await call("GET", `/api/v1/products/${product.id}`);
  rows.update(fresh, { mark: false });
  if (!isNewest()) return;
  const { body, close } = openDialog(`Stock of ${fresh.name}`, { opener });
  const input = element("input", { name: "delta", required: true, inputmode: "numeric", autocomplete: "off", pattern: "[+-]?[0-9]+" });
  const then = element("p", { class: "muted", "aria-live": "polite" });
  const save = element("button", { type: "submit", class: "primary" }, "Change the stock");
  const problem = element("p", { class: "field-problem", role: "alert", "data-form-problem": true });
  let key = idempotencyKey(); // one change, however often it is sent
  input.addEventListener("input", () => {
    key = idempotencyKey();
    const delta = readDelta(input);
    setText(then, delta ? `It will be ${Number(fresh.stock) + delta}, less what is sold meanwhile.` : "");
  });
  const onsubmit = event => {
    event.preventDefault();
    clearProblems(form);
    const delta = readDelta(input);
    if (!delta) {
      showProblem(input, "must be a whole number other than 0, as in 10 or -3");
      input.focus();
      return;
    }
    attempt(async () => {
      try {
        const change = { delta: String(delta), requestId: key };
        const changed = await call("POST", `/api/v1/products/${fresh.id}:adjustStock`, { body: change, repeatable: true });
        rows.update(changed);
        close();
        tell(`There are ${changed.stock} of ${changed.name} now.`);
      } catch (error) {
        if (error.name !== "ApiError") throw error;
        showProblems(form, error);
      }
    }, save);
  };
  const hint = "How many pieces come in. A negative number takes pieces out.";
  const form = element(
    "form",
    { class: "fields", novalidate: true, onsubmit },
    element("p", {}, `There are ${fresh.stock} that can be ordered now.`),
    field("Change by", input, { hint }),
    then,
    problem,
    save,
  );
  body.append(form);
  input.focus();
}, opener);

function readDelta(input) {
  const text = input.value.trim().replace("−", "-");
  return /^[+-]?\d{1,9}$/.test(text) ? Number(text) : 0;
}
