// The console: listens to the gateway's state, each second, and shows it; asks for changes when told to and sure.

import { byId, bytes, clock, duration, say, show, state } from "./dom.js";
import { Overview } from "./overview.js";
import { MachinePage } from "./machine.js";
import { offerChange } from "./change.js";

// How long there may be no news before that is said, in milliseconds.
const SILENCE = 4000;
const RETRY_FIRST = 500;
const RETRY_MOST = 8000;
// What plots remember, in seconds.
const REMEMBERED = 300;
// Whoever wants less motion gets plots less often, in milliseconds.
const CALM = 5000;

const pages = { overview: new Overview(), machine: new MachinePage() };
const isCalm = matchMedia("(prefers-reduced-motion: reduce)");
let source = null;
let retry = RETRY_FIRST;
let heard = 0;
// What is shown; and the process and the points that were heard last, which are others while updates are paused.
let latest = null;
let started = null;
let points = [];
// The points that are shown while updates are paused.
let held = null;
let isLost = false;
let plotted = 0;
let known = new Map();

function announce(text) {
  const at = byId("announce");
  // The same words twice are news too.
  at.textContent = "";
  setTimeout(() => { at.textContent = text; }, 50);
}

async function remember() {
  try {
    const answer = await fetch("api/history");
    if (answer.ok) points = await answer.json();
  } catch {
    // What comes from now on is there; the stream says whether the gateway is.
  }
}

function listen() {
  source?.close();
  source = new EventSource("api/events");
  heard = Date.now();
  source.addEventListener("state", (event) => {
    heard = Date.now();
    retry = RETRY_FIRST;
    hear(JSON.parse(event.data));
  });
  // Nobody may listen for ever: whoever comes again is heard at once, and nobody needs to be told.
  source.addEventListener("end", listen);
  source.addEventListener("error", lost);
}

function lost() {
  if (!source) return;
  source.close();
  source = null;
  if (!isLost) {
    isLost = true;
    announce("No news from the gateway: what is shown is old.");
  }
  setTimeout(listen, retry);
  retry = Math.min(retry * 2, RETRY_MOST);
  tellStream();
}

function tellStream() {
  const at = byId("stream");
  at.classList.toggle("lost", isLost);
  const since = latest ? clock(latest.time) : null;
  if (isLost) say(at, since ? `No news since ${since}: trying again` : "The gateway does not answer: trying again");
  else if (held) say(at, `Paused at ${since ?? "the start"}`);
  else say(at, since ? `Live, ${since}` : "Connecting");
}

async function hear(now) {
  const isNew = isLost || started !== now.process.started;
  if (isLost) announce("The gateway answers again.");
  isLost = false;
  started = now.process.started;
  if (isNew) await remember();
  if (points.at(-1)?.time !== now.time) points.push(pointOf(now));
  while (points.length && points[0].time < now.time - REMEMBERED) points.shift();
  tellChanges(now);
  if (held) { tellStream(); return; }
  latest = now;
  draw();
}

// The same as the gateway keeps: see docs/console.md. Of the first moment nobody knows the rates.
function pointOf({ time, interval, jobs, worlds, machines }) {
  const rate = (value) => (interval > 0 ? value : null);
  const times = (of) => (of ? [of.p50, of.p99, of.p999] : [null, null, null]);
  return {
    time,
    all: [rate(jobs.per_second), jobs.in_flight, jobs.queued, ...times(jobs.seconds)],
    worlds: Object.fromEntries(worlds.map((world) => [world.name, [rate(world.jobs_per_second), world.queued, ...times(world.seconds)]])),
    machines: Object.fromEntries(machines.map((machine) => [machine.name, [rate(machine.jobs_per_second), machine.in_flight, ...times(machine.machine_seconds)]])),
  };
}

// What somebody who does not see the page wants to hear: that something is other than it was.
function tellChanges({ ready, draining, worlds, machines }) {
  const now = new Map([["the gateway", draining ? "drained" : ready ? "ready" : "not ready"]]);
  for (const world of worlds) now.set(`world ${world.name}`, world.ready ? "ready" : "not ready");
  for (const machine of machines) now.set(`machine ${machine.name}`, machine.state === "draining" ? "drained" : machine.state);
  const changed = [...now].filter(([name, is]) => known.has(name) && known.get(name) !== is);
  known = now;
  if (changed.length) announce(changed.map(([name, is]) => `${name} is ${is}`).join("; "));
}

function route() {
  const match = location.hash.match(/^#\/machine\/(.+)$/);
  if (!match) return ["overview", null];
  try { return ["machine", decodeURIComponent(match[1])]; } catch { return ["machine", match[1]]; }
}

function draw() {
  tellStream();
  if (!latest) return;
  const { ready, draining, reasons, version, shards, process } = latest;
  if (draining) state(byId("ready"), "draining"); else state(byId("ready"), ready ? "ready" : "down", ready ? "ready" : "not ready");
  show(byId("trouble"), reasons.length > 0);
  say(byId("trouble"), reasons.join(". "));
  offerChange(byId("gateway-change"), latest, null);
  const { pid, uptime, cpu_seconds, resident_bytes, threads, open_files } = process;
  const figures = open_files === null ? "" : ` · ${bytes(resident_bytes)} of memory · ${duration(cpu_seconds)} of processor time · ${threads} threads · ${open_files} open files`;
  say(byId("about"), `Seeway ${version} · process ${pid} · up for ${duration(uptime)} · ${shards} ${shards === 1 ? "shard" : "shards"}${figures}`);
  const [name, machine] = route();
  const is = machine === null ? null : latest.machines.find((other) => other.name === machine);
  const page = machine !== null && !is ? "missing" : name;
  for (const id of ["overview", "machine", "missing"]) show(byId(id), id === page);
  document.title = machine === null ? "Seeway" : `${machine} – Seeway`;
  if (page === "missing") return;
  const withPlots = !isCalm.matches || Date.now() - plotted >= CALM;
  if (withPlots) plotted = Date.now();
  pages[page].show(latest, withPlots ? (held ?? points).filter(({ time }) => time <= latest.time) : null, is);
}

byId("pause").addEventListener("click", () => {
  held = held ? null : [...points];
  byId("pause").setAttribute("aria-pressed", String(held !== null));
  tellStream();
});

addEventListener("hashchange", () => {
  // The skip link's own place is no page.
  if (!location.hash.startsWith("#/")) return;
  plotted = 0;
  show(byId("result"), false);
  draw();
  scrollTo(0, 0);
  document.querySelector("main > :not([hidden]) h1")?.focus();
});

addEventListener("resize", () => { plotted = 0; draw(); });

setInterval(() => {
  if (Date.now() - heard > SILENCE) lost();
}, 1000);

listen();
