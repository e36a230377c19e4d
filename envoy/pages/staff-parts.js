// Parts of the page for staff.
//
//   openDialog(title, options)    a modal dialog. options: opener, the button that gets the focus afterwards; broad. Returns
//                                 {dialog, body, close}: fill `body` with what it shows. It is removed when it closes
//   ask(title, text, options)     asks for a confirmation. options: label, opener. Resolves to whether there was one
//   act(work, button)             runs it with the button out of use, and shows the error if it fails. If the button is
//                                 replaced meanwhile, another one of the same row or dialog gets the focus
//   begin()                       begins something that opens a dialog after a response. Returns a function that returns
//                                 whether nothing else was begun, and no dialog opened, meanwhile
//   field(label, input, options)  a label, an input and a place for its problem. options: hint, whole (a row of its own)
//   showProblems(form, error)     shows the problems that the shop found, each at its field, or the message at the end.
//                                 A field's name is the last part of that of the API: product.imageUri → image_uri
//   clearProblems(form)
//   cell(label, options, ...)     a table cell, which shows its label on a narrow screen. options: class
//   Rows                          the rows of a table by id. They stay the same elements while nothing changes, and a row
//                                 that is replaced keeps the focus
//   debounce(run)                 calls it some time after the last call

import { attempt, element, icon, spoken } from "./dom.js";

const PAUSE = 250; // milliseconds after the last key
const MARK_TIME = 2_500; // milliseconds for which a changed row is marked

let ids = 0;
let begun = 0;

export function openDialog(title, { opener, broad = false } = {}) {
  begin();
  const place = placeOf(opener);
  const id = `dialog-${ids += 1}`;
  const closing = element("button", { type: "button", class: "quiet square", onclick: () => dialog.close() }, icon("close"));
  closing.append(spoken("Close"));
  const body = element("div", {});
  const dialog = element(
    "dialog",
    { class: broad ? "sheet broad" : "sheet", "aria-labelledby": id },
    element("header", {}, element("h2", { id }, title), closing),
    body,
    element("div", { "data-notices": true, role: "status" }),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    focusAgain(place);
  });
  document.body.append(dialog);
  dialog.showModal();
  return { dialog, body, close: () => dialog.close() };
}

// Where a button is, so that another one is found there if it is replaced meanwhile.
function placeOf(button) {
  return { button, dialog: button.closest("dialog"), id: button.closest("tr[data-id]")?.dataset.id };
}

function focusAgain({ button, dialog, id }) {
  const around = id ? document.querySelector(`tr[data-id="${id}"]`) : dialog?.isConnected && dialog;
  const same = button.isConnected ? button : around?.querySelector?.(`[data-action="${button.dataset.action}"]`);
  (same ?? around?.querySelector?.("button:not(header *)") ?? around?.querySelector?.("button") ?? document.getElementById("main")).focus();
}

export function begin() {
  const mine = begun += 1;
  return () => mine === begun;
}

export async function act(work, button) {
  const focused = document.activeElement === button;
  const place = placeOf(button);
  const result = await attempt(work, button);
  if (focused && [document.body, place.dialog].includes(document.activeElement)) focusAgain(place);
  return result;
}

export function ask(title, text, { label, opener }) {
  return new Promise(resolve => {
    const { dialog, body, close } = openDialog(title, { opener });
    const answer = value => {
      resolve(value);
      close();
    };
    body.append(
      element("p", {}, text),
      element(
        "div",
        { class: "row-buttons" },
        element("button", { type: "button", class: "danger", onclick: () => answer(true) }, label),
        element("button", { type: "button", onclick: () => answer(false) }, "Go back"),
      ),
    );
    dialog.addEventListener("close", () => resolve(false));
    body.querySelector("button:last-of-type").focus();
  });
}

export function field(label, input, { hint = "", whole = false } = {}) {
  const id = `field-${ids += 1}`;
  const problem = element("p", { class: "field-problem", id: `${id}-problem` });
  const about = hint && element("p", { class: "hint", id: `${id}-hint` }, hint);
  input.id = id;
  input.setAttribute("aria-describedby", hint ? `${id}-hint ${id}-problem` : `${id}-problem`);
  return element(
    "div",
    { class: whole ? "field whole" : "field" },
    element("label", { for: id }, label, input.required && element("span", { class: "muted" }, " (required)")),
    input,
    about,
    problem,
  );
}

export function clearProblems(form) {
  for (const node of form.querySelectorAll(".field-problem")) node.textContent = "";
  for (const node of form.querySelectorAll("[aria-invalid]")) node.removeAttribute("aria-invalid");
}

export function showProblems(form, error) {
  clearProblems(form);
  const unplaced = [];
  for (const { field: name, description } of error.fields) {
    const input = inputOf(form, name);
    if (input) showProblem(input, description);
    else unplaced.push(`${name} ${description}`);
  }
  if (!error.fields.length || unplaced.length) {
    form.querySelector("[data-form-problem]").textContent = unplaced.join(", ") || error.message;
  }
  form.querySelector("[aria-invalid]")?.focus();
}

function inputOf(form, name) {
  const names = name.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`).split(".");
  return names.map(each => form.elements.namedItem(each)).findLast(Boolean);
}

export function showProblem(input, description) {
  input.setAttribute("aria-invalid", "true");
  const text = description[0].toUpperCase() + description.slice(1);
  input.closest(".field").querySelector(".field-problem").textContent = text;
}

export function cell(label, properties, ...children) {
  return element("td", { role: "cell", "data-label": label, ...properties }, ...children);
}

export class Rows {
  #body;
  #make;
  #shown = new Map(); // id → {item, node, updated}
  #updates = 0;

  constructor(body, make) {
    this.#body = body;
    this.#make = make;
  }

  get items() {
    return [...this.#shown.values()].map(({ item }) => item);
  }

  get(id) {
    return this.#shown.get(id)?.item;
  }

  // How many updates there were. A list that is read from now on has them.
  get updates() {
    return this.#updates;
  }

  // The items of a list that was read after so many updates: a later one is not undone.
  newest(items, updates) {
    return items.map(item => {
      const known = this.#shown.get(item.id);
      return known?.updated > updates ? known.item : item;
    });
  }

  // Shows these items, in this order, and no others.
  replace(items) {
    const ids = new Set(items.map(({ id }) => id));
    for (const [id, { node }] of this.#shown) {
      if (!ids.has(id)) {
        node.remove();
        this.#shown.delete(id);
      }
    }
    const before = this.#shown;
    this.#shown = new Map();
    let next = this.#body.firstElementChild;
    for (const item of items) {
      const known = before.get(item.id);
      const node = this.#put(item, known);
      if (node === next) next = next.nextElementSibling;
      else this.#body.insertBefore(node, next);
    }
  }

  append(items) {
    const fresh = items.filter(({ id }) => !this.#shown.has(id));
    this.#body.append(...fresh.map(item => this.#put(item)));
  }

  prepend(items) {
    const fresh = items.filter(({ id }) => !this.#shown.has(id));
    this.replace([...fresh, ...this.items]);
  }

  // Shows the new state of an item, if it is shown at all.
  update(item, { mark = true } = {}) {
    const known = this.#shown.get(item.id);
    if (!known) return;
    this.#put(item, known);
    this.#shown.get(item.id).updated = this.#updates += 1;
    if (mark) this.mark(item.id);
  }

  mark(id) {
    const { node } = this.#shown.get(id) ?? {};
    node?.classList.add("changed");
    setTimeout(() => node?.classList.remove("changed"), MARK_TIME);
  }

  #put(item, known) {
    let node = known?.node;
    if (!node || JSON.stringify(known.item) !== JSON.stringify(item)) {
      const focused = node?.contains(document.activeElement) && document.activeElement.dataset.action;
      const made = this.#make(item);
      made.dataset.id = item.id;
      node?.replaceWith(made);
      node = made;
      if (focused) (node.querySelector(`[data-action="${focused}"]`) ?? node.querySelector("button"))?.focus();
    }
    this.#shown.set(item.id, { item, node, updated: known?.updated });
    return node;
  }
}

export function debounce(run) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, PAUSE);
  };
}
