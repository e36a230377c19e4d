// Pictures of products: the product's own, or a drawing in its place.
//
//   picture(product)   an element with the product's image_uri if that is https or a path of this site, and else a
//                      drawing: the colour is made of the id, the shape of the name and category, or the initials if
//                      no shape fits
//
// A picture is decoration: the name beside it says what it is.

import { drawing, element } from "./dom.js";

const TONES = 10; // as many classes tone-… has the style

// On a square of 64: `solid` is filled softly, `line` is drawn.
const SHAPES = {
  lamp: { solid: "M22 22l10-10 12 12-10 10z", line: "M22 22l10-10 12 12-10 10z M27 17l-9 14 12 20 M20 52h22 M38 28l6 6" },
  pendant: { solid: "M16 40c0-10 7-16 16-16s16 6 16 16z", line: "M32 8v16 M16 40c0-10 7-16 16-16s16 6 16 16z M27 40a5 5 0 0 0 10 0" },
  light: { solid: "M24 14h16l6 18H18z", line: "M24 14h16l6 18H18z M32 32v20 M22 52h20 M39 32v8" },
  string: { solid: "M14 28a4 6 0 1 0 .1 0z M32 36a4 6 0 1 0 .1 0z M50 28a4 6 0 1 0 .1 0z", line: "M6 16c8 16 44 16 52 0 M14 25v3a4 6 0 1 0 .1 0 M32 28v8a4 6 0 1 0 .1 0 M50 25v3a4 6 0 1 0 .1 0" },
  headphones: { solid: "M12 36h8v16h-8z M44 36h8v16h-8z", line: "M16 36v-4a16 16 0 0 1 32 0v4 M12 36h8v16h-8z M44 36h8v16h-8z" },
  speaker: { solid: "M32 44a8 8 0 1 0 0-16 8 8 0 0 0 0 16z", line: "M20 10h24a4 4 0 0 1 4 4v36a4 4 0 0 1-4 4H20a4 4 0 0 1-4-4V14a4 4 0 0 1 4-4z M32 44a8 8 0 1 0 0-16 8 8 0 0 0 0 16z M32 19h.1" },
  record: { solid: "M28 48a16 16 0 1 0 0-32 16 16 0 0 0 0 32z", line: "M8 12h48v40H8z M28 48a16 16 0 1 0 0-32 16 16 0 0 0 0 32z M28 33h.1 M50 18v18l-8 6" },
  cable: { solid: "M12 10h8v14h-8z M44 40h8v14h-8z", line: "M12 10h8v14h-8z M16 24v14c0 14 16 14 16 0V26c0-14 16-14 16 0v14 M44 40h8v14h-8z" },
  pan: { solid: "M24 50a16 16 0 1 0 0-32 16 16 0 0 0 0 32z", line: "M24 50a16 16 0 1 0 0-32 16 16 0 0 0 0 32z M24 44a10 10 0 1 0 0-20 M36 24l18-14" },
  knife: { solid: "M10 38L44 10c4 6 2 12-4 18L20 44z", line: "M10 38L44 10c4 6 2 12-4 18L20 44z M15 40L8 54" },
  grinder: { solid: "M20 30h24l-3 24H23z", line: "M20 30h24l-3 24H23z M22 30c0-8 20-8 20 0 M32 24v-8h16 M48 12v4" },
  pot: { solid: "M14 26h36v22a6 6 0 0 1-6 6H20a6 6 0 0 1-6-6z", line: "M14 26h36v22a6 6 0 0 1-6 6H20a6 6 0 0 1-6-6z M10 26h44 M18 26c2-8 26-8 28 0 M32 20v-5 M14 34H8 M50 34h6" },
  board: { solid: "M18 20h28v34H18z", line: "M18 20h9v-6a5 5 0 0 1 10 0v6h9v34H18z M32 14h.1 M25 28v18 M32 28v18 M39 28v18" },
  scale: { solid: "M12 34h40l4 20H8z", line: "M12 34h40l4 20H8z M10 22h44l-6 8H16z M32 50a6 6 0 0 1 0-8 M28 46h8" },
  chair: { solid: "M20 10h24v20H20z", line: "M20 10h24v20H20z M16 36h32 M32 30v18 M32 48l-12 6 M32 48l12 6 M16 36v-8 M48 36v-8" },
  desk: { solid: "M6 20h52v6H6z", line: "M6 20h52v6H6z M14 26v28 M50 26v28 M10 54h8 M46 54h8 M14 36h36" },
  notebook: { solid: "M18 10h30v44H18z", line: "M18 10h30v44H18z M14 18h8 M14 28h8 M14 38h8 M14 47h8 M29 22h12 M29 30h12" },
  pen: { solid: "M40 12l12 12-28 28-14 2 2-14z", line: "M40 12l12 12-28 28-14 2 2-14z M34 18l12 12 M12 40l12 12" },
  keyboard: { solid: "M6 20h52v26H6z", line: "M6 20h52v26H6z M14 28h.1 M22 28h.1 M30 28h.1 M38 28h.1 M46 28h4 M14 34h4 M26 34h.1 M34 34h.1 M42 34h.1 M50 34h.1 M20 40h24" },
  tent: { solid: "M32 14L8 52h48z", line: "M32 14L8 52h48z M32 14l-3-4 M32 14l3-4 M32 28L22 52h20z" },
  bottle: { solid: "M22 28c0-4 4-6 4-8h12c0 2 4 4 4 8v24a4 4 0 0 1-4 4H26a4 4 0 0 1-4-4z", line: "M26 10h12v8H26z M22 28c0-4 4-6 4-10h12c0 4 4 6 4 10v24a4 4 0 0 1-4 4H26a4 4 0 0 1-4-4z M22 38h20" },
  pack: { solid: "M16 24a16 12 0 0 1 32 0v30H16z", line: "M16 24a16 12 0 0 1 32 0v30H16z M26 13V9h12v4 M22 38h20v16H22z M22 28h20 M12 34v14 M52 34v14" },
  torch: { solid: "M22 22h20v14H22z", line: "M22 22h20v14H22z M6 26h16 M6 32h16 M42 26h16 M42 32h16 M28 29h8 M26 42l-4 8 M32 42v10 M38 42l4 8" },
  mat: { solid: "M46 24a10 10 0 1 0 0 20 10 10 0 0 0 0-20z", line: "M46 24a10 10 0 1 0 0 20 10 10 0 0 0 0-20z M46 30a4 4 0 1 0 0 8 M46 24H14a10 10 0 0 0 0 20h32 M22 24v20" },
  book: { solid: "M14 12h34v40H14z", line: "M48 12H18a4 4 0 0 0-4 4v34a4 4 0 0 0 4 4h30z M14 50a4 4 0 0 1 4-4h30 M24 22h14 M24 30h10" },
  throw: { solid: "M12 18h40v26H12z", line: "M12 18h40v26H12z M12 26h40 M12 36h40 M16 44v6 M22 44v6 M28 44v6 M36 44v6 M42 44v6 M48 44v6" },
  vase: { solid: "M24 20c0 8-8 10-8 20 0 8 5 14 10 14h12c5 0 10-6 10-14 0-10-8-12-8-20z", line: "M22 20h20 M24 20c0 8-8 10-8 20 0 8 5 14 10 14h12c5 0 10-6 10-14 0-10-8-12-8-20 M32 20V8 M32 14l8-6 M32 16l-8-5" },
  clock: { solid: "M32 54a22 22 0 1 0 0-44 22 22 0 0 0 0 44z", line: "M32 54a22 22 0 1 0 0-44 22 22 0 0 0 0 44z M32 18v14l9 6 M32 14v.1 M50 32h.1 M32 50v.1 M14 32h.1" },
  towel: { solid: "M20 16h24v38H20z", line: "M8 16h48 M20 16h24v38H20z M20 40h24 M20 46h24" },
  stool: { solid: "M14 18h36v7H14z", line: "M14 18h36v7H14z M20 25l-5 29 M44 25l5 29 M18 40h28" },
};

// A word of the name decides, then the category. The first match wins.
const WORDS = [
  ["string lights", "string"], ["pendant", "pendant"], ["reading light", "light"], ["lamp", "lamp"],
  ["headphone", "headphones"], ["speaker", "speaker"], ["record", "record"], ["cable", "cable"],
  ["skillet", "pan"], ["pan", "pan"], ["knife", "knife"], ["grinder", "grinder"], ["pot", "pot"],
  ["keyboard", "keyboard"],
  ["board", "board"], ["scale", "scale"], ["chair", "chair"], ["desk", "desk"], ["table", "desk"],
  ["notebook", "notebook"], ["pen", "pen"], ["tent", "tent"], ["bottle", "bottle"], ["pack", "pack"], ["bag", "pack"],
  ["torch", "torch"], ["mat", "mat"], ["throw", "throw"], ["blanket", "throw"], ["vase", "vase"], ["clock", "clock"],
  ["towel", "towel"], ["stool", "stool"], ["book", "book"], ["guide", "book"], ["atlas", "book"],
];
const CATEGORIES = [
  ["light", "lamp"], ["audio", "headphones"], ["music", "headphones"], ["kitchen", "pot"], ["office", "pen"],
  ["outdoor", "tent"], ["sport", "bottle"], ["book", "book"], ["home", "vase"], ["garden", "vase"],
  ["furniture", "chair"],
];

export function picture(product) {
  const art = element("div", { class: `art tone-${hash(product.id) % TONES}` }, placeholder(product));
  if (/^(https:\/\/|\/(?!\/))/.test(product.imageUri ?? "")) {
    const image = element("img", { alt: "", loading: "lazy", decoding: "async", width: 480, height: 360 });
    image.onload = () => art.replaceChildren(image);
    image.onerror = () => image.remove();
    image.src = product.imageUri;
    art.append(image); // above the drawing, which shows until it is loaded
  }
  return art;
}

function placeholder({ id, name, category = "" }) {
  const turn = hash(`${id} shape`) % 360;
  const blob = drawing("path", {
    class: "blob",
    d: "M60 7c18-3 35 10 38 27s-6 35-24 42-40-2-46-19S39 11 60 7z",
    transform: `rotate(${turn} 62 43)`,
  });
  return drawing(
    "svg",
    { viewBox: "0 0 120 90", preserveAspectRatio: "xMidYMid slice", "aria-hidden": "true", focusable: "false" },
    blob,
    shape(name, category) ?? initials(name),
  );
}

function shape(name, category) {
  const found = find(WORDS, name) ?? find(CATEGORIES, category);
  if (!found) return undefined;
  const { solid, line } = SHAPES[found[1]];
  return drawing(
    "g",
    { transform: "translate(28 13)" },
    drawing("path", { class: "solid", d: solid }),
    drawing("path", { class: "line", d: line }),
  );
}

function find(list, text) {
  // From the beginning of a word: a pen is no carpenter. "Headphones" and "Cutting Board" are found by their own words.
  const lower = ` ${text.toLowerCase()}`;
  return list.find(([word]) => lower.includes(` ${word}`)) ?? list.find(([word]) => lower.endsWith(word));
}

function initials(name) {
  const letters = name.split(/\s+/u).filter(word => /^\p{L}|^\p{N}/u.test(word)).slice(0, 2).map(word => [...word][0]);
  return drawing("text", { x: 60, y: 46, class: "initials" }, letters.join("").toUpperCase() || "·");
}

function hash(text) { // FNV-1a
  let value = 0x811c9dc5;
  for (const each of text) value = Math.imul(value ^ each.codePointAt(0), 0x01000193) >>> 0;
  return value;
}
