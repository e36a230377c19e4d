// Who is signed in, in this tab. The token ends with the tab.
//
//   startSession(options)     restores the token of this tab, and fills the element [data-session] with the buttons to
//                             sign in and out, if the shop verifies tokens. options: staff, for a page that asks for
//                             staff
//   session                   {subject, canSignIn}: the token's `sub`, or "" for a guest
//   isGone(subject)           whether who had this subject has signed out since; false for a guest's, ""
//   onSession(callback)       calls back after a sign-in or sign-out, and waits for what it returns
//   signIn(reason)            opens the dialog. Resolves to whether somebody has signed in
//   signOut()                 forgets the token, because the customer wants it
//   onSignOut(callback)       calls back before that, but not before the end of a token that the shop no longer accepts
//
// The subject is read from the token to show it. Only the shop verifies tokens.

import { ApiError, call, onRefusedToken, setToken } from "./api.js";
import { closeButton, element, icon, spoken, tell } from "./dom.js";
import { tab } from "./storage.js";

const KEY = "shop.token";

export const session = { subject: "", canSignIn: false };

export const isGone = subject => subject !== "" && subject !== session.subject;

const callbacks = [];
const signOutCallbacks = [];
let settings = { signIn: false, demoTokens: false };
let forStaff = false;

export function onSession(callback) {
  callbacks.push(callback);
}

export function onSignOut(callback) {
  signOutCallbacks.push(callback);
}

export async function startSession({ staff = false } = {}) {
  forStaff = staff;
  onRefusedToken((error, isPresent) => {
    error.isTold = true;
    if (!isPresent) return;
    const hasExpired = error.reason === "TOKEN_EXPIRED";
    end(hasExpired ? "Your sign-in has expired. Sign in again." : "The shop does not accept this token.");
  });
  const stored = tab.read(KEY);
  if (stored) use(stored);
  settings = await loadSettings();
  session.canSignIn = settings.signIn;
  showButtons();
}

async function loadSettings() {
  try {
    return await call("GET", "/pages/settings.json");
  } catch {
    return { signIn: true, demoTokens: false };
  }
}

function use(token) {
  const claims = readClaims(token);
  if (!claims?.sub || claims.exp * 1000 <= Date.now()) {
    tab.write(KEY, undefined);
    return false;
  }
  session.subject = claims.sub;
  tab.write(KEY, token);
  setToken(token);
  return true;
}

function readClaims(token) {
  if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) return undefined; // no header could have it
  try {
    const [, claims] = token.split(".");
    const bytes = Uint8Array.from(atob(claims.replace(/-/g, "+").replace(/_/g, "/")), each => each.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}

async function changed() {
  showButtons();
  for (const callback of callbacks) await callback();
}

export function signOut() {
  for (const callback of signOutCallbacks) callback();
  return end("You are signed out.");
}

async function end(message) {
  session.subject = "";
  tab.write(KEY, undefined);
  setToken("");
  await changed();
  tell(message);
}

function showButtons() {
  const place = document.querySelector("[data-session]");
  if (!place) return;
  const hadFocus = place.contains(document.activeElement);
  place.replaceChildren();
  if (session.subject) {
    const name = element("span", { class: "who" }, icon("person"), spoken("Signed in as "), session.subject);
    place.append(name, element("button", { type: "button", class: "quiet", onclick: () => signOut() }, "Sign out"));
  } else if (session.canSignIn) {
    const open = element("button", { type: "button", class: "quiet", onclick: () => signIn() }, icon("person"));
    open.append(element("span", { class: "label" }, "Sign in"));
    place.append(open);
  }
  if (hadFocus) place.querySelector("button")?.focus();
}

export function signIn(reason = "") {
  const { promise, resolve } = Promise.withResolvers?.() ?? withResolvers();
  const before = document.activeElement;
  const title = element("h2", { id: "sign-in-title" }, "Sign in");
  const problem = element("p", { class: "field-problem", role: "alert" });
  const dialog = element(
    "dialog",
    { class: "sheet", "aria-labelledby": "sign-in-title" },
    element("header", {}, title, closeButton("Close", () => dialog.close())),
    reason && element("p", {}, reason),
    settings.demoTokens && !forStaff && demoForm(accept, problem),
    pasteForm(accept, problem),
    problem,
    element("div", { "data-notices": true, role: "status" }),
  );

  async function accept(token) {
    if (!dialog.isConnected) return; // closed before the shop has made the token
    problem.textContent = "";
    if (!use(token.trim())) {
      problem.textContent = "This is no token, or it has expired.";
      return;
    }
    dialog.close();
    tell(`You are signed in as ${session.subject}.`);
    await changed();
    resolve(Boolean(session.subject));
  }

  dialog.addEventListener("close", () => {
    dialog.remove();
    before?.isConnected && before.focus();
    if (!session.subject) resolve(false);
  });
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector("input, textarea").focus();
  return promise;
}

function withResolvers() {
  const all = {};
  all.promise = new Promise((resolve, reject) => Object.assign(all, { resolve, reject }));
  return all;
}

function demoForm(accept, problem) {
  const name = element("input", {
    id: "demo-name", required: true, maxlength: 64, autocomplete: "username", spellcheck: "false", value: "ada",
  });
  return form("Continue", async () => {
    try {
      await accept((await call("POST", "/demo/token", { body: { sub: name.value.trim() } })).token);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      problem.textContent = error.message;
    }
  },
  element("label", { for: "demo-name" }, "Your name"),
  name,
  element("p", { class: "hint" }, "This is a demo: any name will do, and there is no password."));
}

function pasteForm(accept) {
  const field = element("textarea", {
    id: "token", rows: 3, required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "token-hint",
  });
  const hint = forStaff
    ? "A token for staff, from your OpenID provider or from make token ROLE=staff."
    : "From your OpenID provider or from make token SUB=ada. It is kept in this tab only.";
  return form(
    "Sign in with this token",
    () => accept(field.value),
    element("label", { for: "token" }, "Token"),
    field,
    element("p", { class: "hint", id: "token-hint" }, hint),
  );
}

function form(label, submit, ...fields) {
  const button = element("button", { type: "submit", class: "primary" }, label);
  const onsubmit = async event => {
    event.preventDefault();
    button.disabled = true;
    await submit();
    button.disabled = false;
  };
  return element("form", { class: "fields", onsubmit }, ...fields, button);
}
