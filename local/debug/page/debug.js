// The page with the live numbers: reads them each second and shows them. Nodes are made once and changed afterwards, so
// that a screen reader or a selection stays where it is.

import { byId, drawing, element, setText } from "/pages/dom.js";

const INTERVAL = 1_000; // milliseconds
const LINE = { width: 100, height: 24 };

const groups = new Map();
let paused = false;

async function refresh() {
  if (paused || document.hidden) return;
  try {
    const response = await fetch("/debug/numbers.json");
    if (!response.ok) throw new Error(`status ${response.status}`);
    show(await response.json());
  } catch {
    report("The shop does not respond. Trying again.");
  }
}

function show({ down, groups: shown }) {
  report(down.length ? `No response from ${down.join(", ")}. The other numbers are current.` : "");
  for (const group of shown) {
    if (!groups.has(group.title)) groups.set(group.title, addGroup(group));
    groups.get(group.title)(group);
  }
}

function report(text) {
  setText(byId("problem"), text);
  byId("problem").hidden = !text;
}

// Each of these makes an element and returns what shows new numbers in it.

function addGroup(group) {
  const id = `group-${groups.size}`;
  const section = element("section", { class: "group", "aria-labelledby": id }, element("h2", { id }, group.title));
  if (group.hint) section.append(element("p", { class: "hint" }, group.hint));
  const update = group.columns.length ? addTable(section, id, group.columns) : addTiles(section);
  byId("groups").append(section);
  return update;
}

function addTiles(section) {
  const list = element("dl", { class: "tiles" });
  const tiles = new Map();
  section.append(list);
  return ({ numbers }) => {
    for (const number of numbers) {
      if (!tiles.has(number.name)) tiles.set(number.name, addTile(list, number.name));
      tiles.get(number.name)(number);
    }
  };
}

function addTile(list, name) {
  const value = element("span", { class: "value" });
  const unit = element("span", { class: "unit" });
  const line = addLine();
  const tile = element("div", { class: "tile card" }, element("dt", {}, name), element("dd", {}, value, " ", unit, line.node));
  list.append(tile);
  return number => {
    setText(value, number.value);
    setText(unit, number.unit);
    tile.classList.toggle("bad", number.bad);
    line.draw(number.points);
  };
}

function addTable(section, id, columns) {
  const heads = columns.map(({ name, extra }, place) => element("th", { scope: "col", class: classOf(place, extra) }, name));
  const body = element("tbody");
  const head = element("thead", {}, element("tr", {}, heads, element("th", { scope: "col", class: "chart" }, "last minute’s line")));
  section.append(element("div", { class: "card frame" }, element("table", { "aria-labelledby": id }, head, body)));
  const rows = new Map();
  return group => {
    const order = group.rows.map(row => {
      const key = `${row.detail} ${row.cells[0]}`;
      if (!rows.has(key)) rows.set(key, makeRow(row, columns));
      rows.get(key).update(row);
      return rows.get(key).node;
    });
    const inPlace = order.length === body.children.length && order.every((node, place) => node === body.children[place]);
    if (!inPlace) body.replaceChildren(...order);
  };
}

function makeRow({ cells, detail }, columns) {
  const line = addLine();
  const second = detail && element("span", { class: "second" }, detail);
  const name = element("th", { scope: "row" }, element("span", {}, cells[0]), second);
  const values = cells.slice(1).map((_, place) => element("td", { class: classOf(place + 1, columns[place + 1].extra) }));
  const node = element("tr", {}, name, values, element("td", { class: "chart" }, line.node));
  const update = row => {
    values.forEach((cell, place) => setText(cell, row.cells[place + 1]));
    line.draw(row.points);
  };
  return { node, update };
}

function classOf(place, extra) {
  return `${place ? "number" : ""}${extra ? " extra" : ""}`;
}

function addLine() {
  const line = drawing("polyline");
  const viewBox = `0 0 ${LINE.width} ${LINE.height}`;
  const node = drawing("svg", { class: "line", viewBox, preserveAspectRatio: "none", "aria-hidden": "true" }, line);
  const draw = points => {
    const top = Math.max(...points, Number.MIN_VALUE);
    const step = LINE.width / Math.max(points.length - 1, 1);
    const pairs = points.map((point, place) => [place * step, LINE.height * (1 - point / top)].map(each => each.toFixed(1)));
    line.setAttribute("points", pairs.map(pair => pair.join(",")).join(" "));
  };
  return { node, draw };
}

byId("pause").onclick = () => {
  paused = !paused;
  setText(byId("pause"), paused ? "Continue" : "Pause");
  refresh();
};
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, INTERVAL);
refresh();
