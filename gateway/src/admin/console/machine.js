// One machine: its numbers, its tunnels, and what has happened to it.

import { byId, count, date, figures, rate, say, seconds, show, state, table } from "./dom.js";
import { offerChange } from "./change.js";
import { plot } from "./plot.js";

const HAPPENED = {
  tunnel_up: ["good", "●", "tunnel up"], tunnel_lost: ["bad", "▲", "tunnel lost"], connect_failed: ["bad", "▲", "no tunnel"], refused: ["bad", "▲", "refused"],
  tunnel_drains: ["", "■", "tunnel drains"], channel_failed: ["bad", "▲", "no channel"], channel_forbidden: ["bad", "▲", "channel forbidden"],
  channel_lost: ["bad", "▲", "channel lost"], ejected: ["bad", "▲", "ejected"], trusted: ["good", "●", "trusted again"], drained: ["care", "■", "drained"],
  resumed: ["good", "●", "resumed"], reloaded: ["", "■", "configuration read again"],
};
const TUNNELS = {
  connecting: "connecting", ready: "up", draining: "draining", backing_off: "waiting to connect again", refused: "refused: waiting for a change",
};
const COUNTS = [
  ["tunnels_made", "Tunnels made"], ["connects_failed", "Connects that failed"], ["tunnels_refused", "Connects that were refused"],
  ["channels_prohibited", "Channels forbidden"], ["rekeys", "Key exchanges on standing tunnels"], ["ejections", "Ejections"], ["late_replies", "Replies that nobody waited for"],
];

export class MachinePage {
  constructor() {
    const plots = byId("machine-plots");
    this.rates = plot(plots, "Jobs each second", rate);
    this.times = plot(plots, "Time in the machine", seconds, true);
    this.flight = plot(plots, "Jobs in flight", count);
    this.tunnels = table(byId("tunnels"), "Tunnels", [
      ["State", "", (cell, [name]) => say(cell, TUNNELS[name] ?? name)],
      ["Tunnels", "number", (cell, [, number]) => say(cell, count(number))],
    ], "There is no tunnel.");
    this.counts = table(byId("counts"), "Since the start", [
      ["What", "", (cell, [, title]) => say(cell, title)],
      ["Count", "number", (cell, [, , number]) => say(cell, count(number))],
    ], "Nothing is counted.");
    this.history = table(byId("history"), "History, the latest first", [
      ["When", "", (cell, { time }) => say(cell, date(time))],
      ["What", "", (cell, { what }) => {
        const [kind, shape, word] = HAPPENED[what] ?? ["", "■", what];
        cell.className = kind;
        say(cell, `${shape} ${word}`);
      }],
      ["Why", "long", (cell, { text }) => say(cell, text)],
      ["Shard", "number wide", (cell, { shard }) => say(cell, shard === null ? "all" : String(shard))],
    ], "Nothing has happened yet.");
    this.name = null;
    this.seen = null;
  }

  show(latest, points, machine) {
    const { name } = machine;
    say(byId("machine-name"), name);
    state(byId("machine-state"), machine.state);
    offerChange(byId("machine-change"), latest, machine);
    show(byId("machine-trouble"), machine.trouble !== null);
    if (machine.trouble) say(byId("machine-trouble"), `Last at ${date(machine.trouble.time)}: ${machine.trouble.text}`);
    figures(byId("machine-figures"), [
      ["Jobs each second", rate(machine.jobs_per_second)],
      ["In flight", `${count(machine.in_flight)} of ${count(machine.max_in_flight)}`],
      ["Time in it, p50", seconds(machine.machine_seconds?.p50)],
      ["p99", seconds(machine.machine_seconds?.p99)],
      ["p99.9", seconds(machine.machine_seconds?.p999)],
      ["Channels up", count(machine.channels)],
      ["Keepalive p99", seconds(machine.keepalive_seconds?.p99)],
    ]);
    say(byId("machine-about"), `SSH server ${machine.address}; worlds: ${machine.worlds.join(", ") || "none"}`);
    this.tunnels(Object.keys(TUNNELS).map((of) => [of, machine.tunnels[of] ?? 0]), ([of]) => of);
    this.counts(COUNTS.map(([field, title]) => [field, title, machine[field]]), ([field]) => field);
    if (this.name !== name) { this.name = name; this.seen = null; this.history([], () => 0); }
    const past = `${latest.process.started} ${machine.happenings}`;
    if (this.seen !== past) this.fetchHistory(name, past);
    if (points) {
      const series = (...places) => points.map((point) => [point.time, ...places.map((place) => point.machines[name]?.[place] ?? null)]);
      this.rates([name], series(0), latest.time);
      this.times(["p50", "p99", "p99.9"], series(2, 3, 4), latest.time);
      this.flight([name], series(1), latest.time);
    }
  }

  async fetchHistory(name, past) {
    this.seen = past;
    try {
      const answer = await fetch(`api/machines/${encodeURIComponent(name)}/history`);
      if (!answer.ok) return;
      const { machine, history } = await answer.json();
      if (machine === this.name) this.history(history.reverse(), (_, place) => place);
    } catch {
      // With the next state.
      this.seen = null;
    }
  }
}
