// The form of a product, to create and to edit it.
//
//   newProduct(categories, options)             to create one
//   editProduct(product, categories, options)   to edit one
//
// options: opener, the button that gets the focus afterwards; done, called with the product when it is created or saved.
//
// An edit sends the fields that were changed, with the etag that they were read with. If somebody else was faster, the form
// takes over what they changed, keeps what was entered here, and says where both differ.

import { call, idempotencyKey } from "./api.js";
import { attempt, element, icon } from "./dom.js";
import { decimal, parse, same } from "./money.js";
import { clearProblems, field, openDialog, showProblem, showProblems } from "./staff-parts.js";

const FIELDS = ["name", "variant", "category", "price", "sku", "image_uri", "description"];

const own = name => name === "image_uri" ? "imageUri" : name; // the field in JSON

const valueOf = (product, name) => name === "price" ? amount(product.price) : product[own(name)] ?? "";

// With as many decimal places as people write in this currency: "12.50".
function amount(price) {
  const text = decimal(price);
  const format = new Intl.NumberFormat("en", { style: "currency", currency: price.currencyCode });
  const places = format.resolvedOptions().minimumFractionDigits;
  const [units, fraction = ""] = text.split(".");
  return places || fraction ? `${units}.${fraction.padEnd(places, "0")}` : units;
}

export function newProduct(categories, { opener, done }) {
  const { body, close } = openDialog("New product", { opener, broad: true });
  let key = idempotencyKey();
  let sent = "";
  const form = productForm(categories, "Create", async () => {
    const product = { stock: form.elements.stock.value.trim() || "0" };
    for (const name of FIELDS) product[own(name)] = read(form, name);
    const text = JSON.stringify(product);
    if (sent && sent !== text) key = idempotencyKey(); // another product, not another attempt
    sent = text;
    const headers = { "idempotency-key": key };
    const created = await call("POST", "/api/v1/products", { body: product, headers, repeatable: true });
    close();
    await done(created);
  });
  const stock = element("input", { name: "stock", inputmode: "numeric", autocomplete: "off", value: "0" });
  form.querySelector(".columns").append(field("Stock", stock));
  form.elements.currency.value = "EUR";
  body.append(form);
  form.elements.name.focus();
}

export function editProduct(product, categories, { opener, done }) {
  const { body, close } = openDialog(`Edit ${product.name}`, { opener, broad: true });
  let base = product; // what the fields were filled with
  const path = `/api/v1/products/${product.id}`;
  const form = productForm(categories, "Save", async () => {
    const changed = FIELDS.filter(name => isChanged(form, base, name));
    if (!changed.length) {
      close();
      return;
    }
    const update = { etag: base.etag };
    for (const name of changed) update[own(name)] = read(form, name);
    try {
      const query = { updateMask: changed.map(own).join(",") };
      const saved = await call("PATCH", path, { body: update, query, repeatable: true });
      close();
      await done(saved);
    } catch (error) {
      if (error.reason !== "ETAG_MISMATCH") throw error;
      const theirs = await call("GET", path);
      base = merge(form, base, theirs);
    }
  });
  fill(form, product, FIELDS);
  body.append(form);
  form.elements.name.focus();
}

function isChanged(form, base, name) {
  if (name === "price") {
    try {
      return !same(read(form, "price"), base.price);
    } catch {
      return true; // it is reported when it is sent
    }
  }
  return form.elements[name].value.trim() !== valueOf(base, name).trim();
}

// Takes over what somebody else changed, but for fields that were changed here too. Returns the new base.
function merge(form, base, theirs) {
  const both = [];
  for (const name of FIELDS) {
    if (name === "price" ? same(theirs.price, base.price) : valueOf(theirs, name) === valueOf(base, name)) continue;
    if (!isChanged(form, base, name)) fill(form, theirs, [name]);
    else if (isChanged(form, theirs, name)) both.push(name);
  }
  for (const node of form.querySelectorAll(".theirs")) node.remove();
  for (const name of both) {
    const text = name === "price" ? `${valueOf(theirs, name)} ${theirs.price.currencyCode}` : valueOf(theirs, name) || "empty";
    form.elements[name].closest(".field").append(element("p", { class: "theirs" }, `Somebody else set: ${text}`));
  }
  const text = both.length
    ? "Somebody else has changed this product. Look at the marked fields: yours replace theirs if you save again."
    : "Somebody else has changed this product. The form shows their changes and yours. Save again.";
  const place = form.querySelector("[data-conflict]");
  place.replaceChildren(element("div", { class: "callout" }, icon("warning"), element("p", {}, text)));
  place.scrollIntoView({ block: "nearest" });
  if (theirs.deleteTime) form.querySelector("[data-form-problem]").textContent = "It has been deleted meanwhile.";
  return theirs;
}

function fill(form, product, names) {
  for (const name of names) {
    form.elements[name].value = valueOf(product, name);
    if (name === "price") form.elements.currency.value = product.price.currencyCode;
  }
}

class FieldError extends Error {
  constructor(name, description) {
    super(description);
    Object.assign(this, { name: "FieldError", field: name });
  }
}

function read(form, name) {
  const text = form.elements[name].value.trim();
  if (name !== "price") return text;
  try {
    return parse(text.replace(",", "."), form.elements.currency.value.trim().toUpperCase());
  } catch {
    throw new FieldError("price", "must be an amount such as 12.50");
  }
}

function productForm(categories, label, submit) {
  const input = (name, properties = {}) => element("input", { name, autocomplete: "off", ...properties });
  const known = `categories-${idempotencyKey()}`;
  const button = element("button", { type: "submit", class: "primary" }, label);
  const onsubmit = event => {
    event.preventDefault();
    clearProblems(form);
    attempt(async () => {
      try {
        await submit();
      } catch (error) {
        if (error.name === "FieldError") {
          showProblem(form.elements[error.field], error.message);
          form.elements[error.field].focus();
        } else if (error.name === "ApiError") showProblems(form, error);
        else throw error;
      }
    }, button);
  };
  const picture = "An address that begins with https://, or a path of this shop. Without one, the shop draws a picture.";
  const form = element(
    "form",
    { class: "fields", novalidate: true, onsubmit },
    element("div", { "data-conflict": true, role: "status" }),
    element(
      "div",
      { class: "columns" },
      field("Name", input("name", { required: true, maxlength: 200 }), { whole: true }),
      field("Variant", input("variant", { maxlength: 100 }), { hint: "As in black, 41 mm." }),
      field("Category", input("category", { maxlength: 100, list: known })),
      field("Price", input("price", { required: true, inputmode: "decimal" })),
      field("Currency", input("currency", { required: true, maxlength: 3 }), { hint: "Three letters, as in EUR." }),
      field("SKU", input("sku", { maxlength: 64 }), { hint: "If empty, it is made from the name." }),
      field("Picture", input("image_uri", { maxlength: 2000, inputmode: "url" }), { hint: picture }),
      field("Description", element("textarea", { name: "description", rows: 4, maxlength: 10000 }), { whole: true }),
    ),
    element("datalist", { id: known }, ...categories.map(name => element("option", { value: name }))),
    element("p", { class: "field-problem", role: "alert", "data-form-problem": true }),
    button,
  );
  return form;
}
