// Money as the API has it, {currencyCode, units, nanos}, without a float anywhere.
//
//   format(money)              as text for people, in the style of the reader's language: "€12.50"
//   multiply(money, count)     the price of that many pieces
//   add(one, other)            their sum. Both must have the same currency
//   compare(one, other)        negative, 0 or positive. Both must have the same currency
//   same(one, other)           whether amount and currency are equal; either may be absent
//   parse(text, currencyCode)  from decimal text: "12.50"; throws a RangeError if it is none
//   decimal(money)             as decimal text, without a needless 0 at the end: "12.5"

const NANOS = 1_000_000_000n; // a unit has this many

function nanosOf({ units = "0", nanos = 0 }) {
  return BigInt(units) * NANOS + BigInt(nanos);
}

function fromNanos(amount, currencyCode) {
  return { currencyCode, units: String(amount / NANOS), nanos: Number(amount % NANOS) };
}

function nanosOfBoth(one, other) {
  if (one.currencyCode !== other.currencyCode) throw new RangeError(`${one.currencyCode} is not ${other.currencyCode}`);
  return [nanosOf(one), nanosOf(other)];
}

export function format(money) {
  const { currencyCode } = money;
  return new Intl.NumberFormat(undefined, { style: "currency", currency: currencyCode }).format(decimal(money));
}

export function multiply(money, count) {
  return fromNanos(nanosOf(money) * BigInt(count), money.currencyCode);
}

export function add(one, other) {
  const [first, second] = nanosOfBoth(one, other);
  return fromNanos(first + second, one.currencyCode);
}

export function compare(one, other) {
  const [first, second] = nanosOfBoth(one, other);
  return first < second ? -1 : Number(first > second);
}

export function same(one, other) {
  if (!one || !other) return !one && !other;
  return one.currencyCode === other.currencyCode && nanosOf(one) === nanosOf(other);
}

export function parse(text, currencyCode) {
  const found = /^(-?)(\d+)(?:\.(\d{1,9}))?$/.exec(text.trim());
  if (!found) throw new RangeError(`${text} is no amount`);
  const [, sign, units, fraction = ""] = found;
  const amount = BigInt(units) * NANOS + BigInt(fraction.padEnd(9, "0"));
  return fromNanos(sign ? -amount : amount, currencyCode);
}

export function decimal(money) {
  const amount = nanosOf(money);
  const size = amount < 0n ? -amount : amount;
  const fraction = String(size % NANOS).padStart(9, "0").replace(/0+$/, "");
  return `${amount < 0n ? "-" : ""}${size / NANOS}${fraction && `.${fraction}`}`;
}
