// What the browser keeps for this page, as values that can be copied (texts, numbers, lists, objects).
//
//   shared.read(key)             a value that all tabs have in common; undefined if there is none
//   shared.update(key, change)   replaces it by change(value), undefined for none, while no other tab can change it.
//                                Returns the new value
//   tab.read(key)                a text of this tab, which a reload keeps; undefined if there is none
//   tab.write(key, text)         replaces it; undefined removes it
//
// What tabs share is in IndexedDB, because each process of a browser has a copy of localStorage: a tab can read there
// what another tab has just replaced, whatever locks they take.
//
// In a browser that stores nothing (because its user has forbidden it, or the disk is full), values last until the page
// is reloaded or closed, and tabs share nothing. The page tells people so.

import { tell } from "./dom.js";

const DATABASE = "shop-page";
const STORE = "values";

const memory = new Map(); // what could not be stored
let isTold = false;

export const shared = {
  async read(key) {
    if (memory.has(key)) return memory.get(key);
    try {
      return await transact("readonly", (store, done) => {
        store.get(key).onsuccess = ({ target }) => done(target.result);
      });
    } catch {
      return undefined;
    }
  },

  async update(key, change) {
    if (!memory.has(key)) {
      try {
        return await transact("readwrite", (store, done) => {
          store.get(key).onsuccess = ({ target }) => {
            const changed = change(target.result);
            if (changed === undefined) store.delete(key);
            else store.put(changed, key);
            done(changed);
          };
        });
      } catch (error) {
        console.warn("The browser has not stored a value.", error);
        memory.set(key, await shared.read(key));
      }
    }
    memory.set(key, change(memory.get(key)));
    if (memory.get(key) !== undefined) tellOnce();
    return memory.get(key);
  },
};

export const tab = {
  read(key) {
    if (memory.has(key)) return memory.get(key);
    try {
      return sessionStorage.getItem(key) ?? undefined;
    } catch {
      return undefined;
    }
  },

  write(key, text) {
    try {
      if (text === undefined) sessionStorage.removeItem(key);
      else sessionStorage.setItem(key, text);
      memory.delete(key);
    } catch {
      memory.set(key, text);
    }
  },
};

// A connection for each transaction: one that stays open ends when somebody clears the data of the site.
async function transact(mode, work) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      let result;
      transaction.oncomplete = () => resolve(result);
      transaction.onabort = () => reject(transaction.error);
      work(transaction.objectStore(STORE), value => { result = value; });
    });
  } finally {
    database.close();
  }
}

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function tellOnce() {
  if (isTold) return;
  isTold = true;
  const text = "This browser stores nothing for this page. After a reload, it shows neither your cart nor your orders.";
  tell(text, { error: true });
}
