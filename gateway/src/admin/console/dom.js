// What pages are made of: elements, tables that are changed in place so that focus and selection stay, and numbers as people read them.
// What the gateway says goes into the page as text only.

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Touches the page only where something is different: screen readers are told of each change.
export function say(at, text) {
  if (at.textContent !== text) at.textContent = text;
}

export function show(at, isShown) {
  if (at.hidden === isShown) at.hidden = !isShown;
}

// A table whose rows are known by a key. `columns`: [heading, class, fill(cell, item)]; the first one heads its row.
export function table(at, caption, columns, nothing) {
  const body = element("tbody");
  const head = element("tr", {}, ...columns.map(([title, kind]) => element("th", { scope: "col", class: kind }, title)));
  const rows = new Map();
  at.replaceChildren(element("table", {}, element("caption", { class: "unseen" }, caption), element("thead", {}, head), body));
  const empty = element("tr", {}, element("td", { class: "empty", colspan: columns.length }, nothing));
  return (items, keyOf) => {
    const seen = new Set();
    items.forEach((item, place) => {
      const key = keyOf(item, place);
      seen.add(key);
      let row = rows.get(key);
      if (!row) {
        row = element("tr", {}, ...columns.map(([, kind], column) =>
          column === 0 ? element("th", { scope: "row", class: kind }) : element("td", { class: kind })));
        rows.set(key, row);
      }
      if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
      columns.forEach(([, , fill], column) => fill(row.children[column], item));
    });
    for (const [key, row] of rows) {
      if (!seen.has(key)) { row.remove(); rows.delete(key); }
    }
    if (items.length === 0) body.append(empty); else empty.remove();
  };
}

// Named figures, such as jobs each second.
export function figures(at, named) {
  for (const [name, value, kind] of named) {
    let figure = [...at.children].find((child) => child.firstChild.textContent === name);
    if (!figure) {
      figure = element("div", {}, element("dt", {}, name), element("dd"));
      at.append(figure);
    }
    figure.lastChild.className = kind ?? "";
    say(figure.lastChild, value);
  }
}

// A share of a limit: a bar, and the numbers beside it.
export function share(cell, name, used, max, format = count) {
  let [bar, text] = cell.children;
  if (!bar) {
    bar = element("meter", { min: 0, low: 0.7, high: 0.9, optimum: 0 });
    text = element("span");
    cell.append(bar, " ", text);
  }
  bar.setAttribute("aria-label", name);
  bar.value = max > 0 ? used / max : 0;
  say(text, `${format(used)} of ${format(max)}`);
}

const STATES = {
  ready: ["●", "good", "ready"], starting: ["◐", "care", "starting"], probing: ["◐", "care", "being tried"],
  draining: ["■", "care", "drained"], ejected: ["▲", "bad", "ejected"], down: ["▲", "bad", "down"],
};

// What something is, by shape, colour and word.
export function state(at, name, word) {
  const [shape, kind, usual] = STATES[name] ?? ["?", "care", name];
  at.classList.remove("good", "care", "bad");
  at.classList.add("state", kind);
  if (at.children.length === 0) at.replaceChildren(element("span", { "aria-hidden": "true" }), " ", element("span"));
  say(at.firstChild, shape);
  say(at.lastChild, word ?? usual);
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
export const count = (number) => whole.format(number);
export const rate = (number) => (number > 0 && number < 100 ? fine : whole).format(number);

export function bytes(number) {
  if (number < 1024) return `${number} B`;
  if (number < 1024 * 1024) return `${fine.format(number / 1024)} KiB`;
  return `${fine.format(number / 1024 / 1024)} MiB`;
}

export function seconds(number) {
  if (number === null || number === undefined) return "–";
  const [value, unit] = number < 0.001 ? [number * 1e6, "µs"] : number < 1 ? [number * 1e3, "ms"] : [number, "s"];
  return `${value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)} ${unit}`;
}

export function duration(number) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [length, unit] of units) if (number >= length) return `${whole.format(Math.floor(number / length))} ${unit}`;
  return `${Math.floor(number)} s`;
}

const two = (number) => String(number).padStart(2, "0");
export function clock(time) {
  const at = new Date(time * 1000);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}
export function date(time) {
  const at = new Date(time * 1000);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(time)}`;
}
