// Curves over the last five minutes, drawn as SVG. Each has its own pattern of dashes beside its colour, and its number in the legend.

import { element, say } from "./dom.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [560, 152];
const [LEFT, RIGHT, TOP, BOTTOM] = [58, 8, 10, 20];
const SPAN = 300;
// More curves than this can't be told apart.
export const MOST = 8;

function svg(name, attributes = {}) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// The lines that the eye goes by: 1, 2 or 5 times a power of ten, and whole numbers.
function steps(most) {
  const size = Math.max(10 ** Math.floor(Math.log10(most / 3)), 1);
  const step = [1, 2, 5, 10].map((factor) => factor * size).find((step) => most / step <= 5);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, number) => number * step);
}

// A plot; `format` says a value as text. One that is logarithmic shows fast and slow beside each other.
export function plot(at, title, format, isLogarithmic = false) {
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const legend = element("ul", { class: "legend" });
  at.append(element("figure", {}, element("figcaption", {}, title), drawing, legend));
  const curves = [];
  const items = [];

  function curve(number) {
    if (!curves[number]) {
      curves[number] = svg("path", { class: `curve s${number}`, "vector-effect": "non-scaling-stroke" });
      const sample = svg("svg", { viewBox: "0 0 27 10", "aria-hidden": "true" });
      sample.append(svg("path", { class: `s${number}`, d: "M0 5H27", "stroke-width": 2.5 }));
      items[number] = element("li", {}, element("span"));
      items[number].prepend(sample);
    }
    return curves[number];
  }

  // `names`, and for each moment its time and a value (or null) for each name.
  return (names, moments, now) => {
    // The drawing has as many units as the place that it has has pixels, so that letters are not drawn out.
    const width = Math.max(260, Math.round(drawing.clientWidth) || WIDTH);
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const shown = names.slice(0, MOST);
    const values = moments.flatMap(([, ...all]) => all.slice(0, shown.length)).filter((value) => value !== null && value > 0);
    const most = values.length ? Math.max(...values) : 1;
    const least = isLogarithmic && values.length ? Math.min(...values) : most / 10;
    const [low, high] = isLogarithmic ? [Math.floor(Math.log10(least)), Math.ceil(Math.log10(most) + 1e-9)] : [0, Math.max(most, 1) * 1.08];
    const across = (time) => LEFT + (width - LEFT - RIGHT) * (1 - (now - time) / SPAN);
    const up = (value) => {
      const part = isLogarithmic ? (Math.log10(Math.max(value, 10 ** low)) - low) / Math.max(high - low, 1) : value / high;
      return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part;
    };
    const marks = isLogarithmic ? Array.from({ length: high - low + 1 }, (_, number) => 10 ** (low + number)) : steps(Math.max(most, 1));
    const grid = marks.flatMap((mark) => {
      const text = svg("text", { x: LEFT - 7, y: up(mark) + 4, "text-anchor": "end" });
      text.textContent = mark === 0 ? "0" : format(mark).replace(/\.0+ /, " ");
      return [svg("path", { class: "grid", d: `M${LEFT} ${up(mark)}H${width - RIGHT}` }), text];
    });
    const minutes = width < 430 ? [5, 3, 1, 0] : [5, 4, 3, 2, 1, 0];
    const times = minutes.map((ago) => {
      const anchor = ago === 5 ? "start" : ago === 0 ? "end" : "middle";
      const text = svg("text", { x: across(now - ago * 60), y: HEIGHT - 4, "text-anchor": anchor });
      text.textContent = ago === 0 ? "now" : `−${ago} min`;
      return text;
    });
    const paths = shown.map((name, number) => {
      let path = "";
      let last = -Infinity;
      for (const moment of moments) {
        const [time, value] = [moment[0], moment[number + 1]];
        if (value === null || value === undefined || time < now - SPAN) { last = -Infinity; continue; }
        // Where nobody looked for a while there is no line.
        path += `${time - last > 3 ? "M" : "L"}${across(time).toFixed(1)} ${up(value).toFixed(1)}`;
        last = time;
      }
      curve(number).setAttribute("d", path || "M0 0");
      return curves[number];
    });
    drawing.replaceChildren(...grid, ...times, ...paths);
    const latest = moments.at(-1) ?? [];
    const told = shown.map((name, number) => {
      const value = latest[number + 1];
      const text = `${name} ${value === null || value === undefined ? "–" : format(value)}`;
      say(items[number].lastChild, text);
      return text;
    });
    const wanted = items.slice(0, shown.length);
    if (legend.children.length !== wanted.length || names.length > MOST) legend.replaceChildren(...wanted);
    if (names.length > MOST) legend.append(element("li", {}, `and ${names.length - MOST} more, which have less`));
    drawing.setAttribute("aria-label", `${title}, now: ${told.join(", ") || "nothing"}`);
  };
}
