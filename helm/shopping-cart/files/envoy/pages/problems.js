// What is wrong with an item of the cart, and the ways out.
//
//   problemsOf(item)      a list of elements, one for each problem
//   blocks(item)          whether the item prevents a checkout

import { setQuantity } from "./cart.js";
import { attempt, element, icon, spoken } from "./dom.js";
import { format } from "./money.js";

const HARMLESS = ["PRICE_CHANGED", "QUANTITY_CAPPED"];

export const blocks = item => item.problems.some(({ reason }) => !HARMLESS.includes(reason));

export function problemsOf(item) {
  return item.problems.map(problem => {
    const { text, ways } = describe(item, problem);
    const isBad = !HARMLESS.includes(problem.reason);
    return element("div", { class: isBad ? "callout bad" : "callout" }, icon("warning"), element("p", {}, text), ways);
  });
}

function describe(item, { reason, message }) {
  const { name, quantity, available, unitPrice, addedUnitPrice } = item;
  const way = (label, pieces) => {
    const button = element("button", { type: "button" }, label, spoken(`: ${name}`));
    button.onclick = () => attempt(() => setQuantity(item.productId, pieces), button);
    return button;
  };
  const remove = way("Remove", 0);
  if (reason === "PRICE_CHANGED") {
    const text = `The price was ${format(addedUnitPrice)} when you put it in. It is ${format(unitPrice)} now.`;
    return { text, ways: [way("Accept the price", quantity)] };
  }
  if (reason === "INSUFFICIENT_STOCK") {
    if (!available || available === "0") return { text: "Sold out.", ways: [remove] };
    const text = available === "1" ? "Only 1 is left." : `Only ${available} are left.`;
    return { text, ways: [way(`Take ${available}`, Number(available)), remove] };
  }
  if (reason === "PRODUCT_DELETED") return { text: "This is no longer sold.", ways: [remove] };
  if (reason === "CURRENCY_MISMATCH") {
    const text = `This is priced in ${unitPrice.currencyCode}. All items of an order have one currency.`;
    return { text, ways: [remove] };
  }
  if (reason === "QUANTITY_CAPPED") return { text: "This is as many as a cart may have of it.", ways: [] };
  return { text: message, ways: [remove] };
}
