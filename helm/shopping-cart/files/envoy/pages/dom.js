// Builds elements, and tells people what happens. Texts become text nodes: no data is ever read as HTML.
//
//   element(name, properties, ...children)   an HTML element. A property is an attribute ("aria-label", class), an
//                                            event handler (onclick), or one that only a node has (value, checked,
//                                            disabled). false, null and undefined leave it out. Children may be lists
//   drawing(name, attributes, ...children)   the same for SVG
//   icon(name)                               an icon of this page, hidden from screen readers
//   closeButton(label, close)                a button with a cross
//   byId(id)                                 the element with this id
//   spoken(text)                             text for screen readers only
//   setText(node, text)                      changes it if it differs, so that a live region says nothing twice
//   tell(text, options)                      shows a notice for some seconds, or until it is closed if it is an error or
//                                            has an action. It is in the open dialog, if any, and replaces the last one
//                                            of its kind. options: error, action {label, run}
//   clearNotices()                           closes the notices
//   attempt(work, button)                    runs it with the button out of use, and shows the error if it fails.
//                                            Returns what it returns
//   formatTime(text)                         a time of the API for people

const NOTICE_TIME = 6_000; // milliseconds
const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  cart: "M3 4h2l2.2 11.2a1 1 0 0 0 1 .8h8.9a1 1 0 0 0 1-.8L20 8H6 M9.5 20h.01 M16.5 20h.01",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  cross: "M6 6l12 12M18 6L6 18",
  info: "M12 11v5 M12 8h.01 M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
  minus: "M6 12h12",
  person: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8z M4.5 20c1-4 4-5.5 7.5-5.5s6.5 1.5 7.5 5.5",
  plus: "M12 6v12M6 12h12",
  receipt: "M6 3h12v18l-3-2-3 2-3-2-3 2z M9 8h6 M9 12h6",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14z M16 16l4.5 4.5",
  trash: "M5 7h14 M10 11v6 M14 11v6 M7 7l1 13h8l1-13 M9.5 7V4h5v3",
  warning: "M12 9v4 M12 17h.01 M12 3.5L2.5 20h19z",
};

export const byId = id => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

export function drawing(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value == null) continue;
    if (name.startsWith("on") || ["value", "checked", "disabled", "hidden"].includes(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter(child => child != null && child !== false));
  return node;
}

export function icon(name) {
  const path = drawing("path", { d: ICONS[name] });
  return drawing("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, path);
}

export function spoken(text) {
  return element("span", { class: "spoken" }, text);
}

export function closeButton(label, close) {
  return element("button", { type: "button", class: "quiet square", onclick: close }, icon("close"), spoken(label));
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A modal dialog makes everything else inert, live regions too. So each dialog has a region of its own.
function noticeRegion() {
  const dialogs = document.querySelectorAll("dialog:modal [data-notices]");
  return dialogs[dialogs.length - 1] ?? document.querySelector("[data-notices]:not(dialog *)");
}

export function tell(text, { error = false, action } = {}) {
  const kind = error ? "problem" : action ? "offer" : "news";
  const node = element("div", { class: `notice ${kind}` }, icon(error ? "warning" : "info"));
  node.append(element("p", {}, text));
  if (action) {
    const run = () => {
      node.remove();
      action.run();
    };
    node.append(element("button", { type: "button", class: "quiet", onclick: run }, action.label));
  }
  node.append(closeButton("Close this message", () => node.remove()));
  const region = noticeRegion();
  for (const other of region.querySelectorAll(`.${kind}`)) other.remove();
  region.append(node);
  if (!error && !action) setTimeout(() => node.remove(), NOTICE_TIME);
  return node;
}

export function clearNotices() {
  for (const node of document.querySelectorAll("[data-notices] .notice")) node.remove();
}

export async function attempt(work, button) {
  const focused = button && document.activeElement === button;
  if (button) button.disabled = true;
  try {
    return await work();
  } catch (error) {
    if (error.name === "AbortError" || error.isTold) return undefined;
    if (error.name !== "ApiError") console.error(error);
    tell(error.name === "ApiError" ? error.message : "Something went wrong on this page. Reload it.", { error: true });
    return undefined;
  } finally {
    if (button) button.disabled = false;
    // A button that is out of use loses the focus.
    if (focused && document.activeElement === document.body) button.focus();
  }
}

export function formatTime(text) {
  return new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" }).format(new Date(text));
}
