// The overview: all worlds, all machines, callers, outcomes and limits.

import { byId, bytes, count, element, figures, rate, say, seconds, share, show, state, table } from "./dom.js";
import { offerChange } from "./change.js";
import { MOST, plot } from "./plot.js";

const OUTCOMES = {
  replied: "replied", machine_status: "the machine's own status", rejected: "rejected", not_sent_queue_full: "not sent: queue full",
  not_sent_caller_quota: "not sent: caller's quota", not_sent_nowhere_to_go: "not sent: nowhere to go", not_sent_too_late: "not sent: too late",
  unknown_tunnel_lost: "unknown: tunnel lost", unknown_machine_failed: "unknown: machine failed", unknown_too_late: "unknown: too late",
};
const BYTES = new Set(["queue_bytes"]);
const number = "number";
const rare = "number wide";

function link(cell, name) {
  if (!cell.firstChild) cell.append(element("a", { href: `#/machine/${encodeURIComponent(name)}` }, name));
}

function note(cell, text) {
  if (!cell.children[1]) cell.append(element("small"));
  say(cell.children[1], text ?? "");
  show(cell.children[1], Boolean(text));
}

function stateCell(cell, name, word, why) {
  if (!cell.firstChild) cell.append(element("span"));
  state(cell.firstChild, name, word);
  note(cell, why);
}

export class Overview {
  constructor() {
    const plots = byId("plots");
    this.rates = plot(plots, "Jobs each second, by world", rate);
    this.times = plot(plots, "Time of a job, from admission to outcome", seconds, true);
    this.flight = plot(plots, "Jobs in flight, by machine", count);
    this.queue = plot(plots, "Jobs that wait, by world", count);
    this.worlds = table(byId("worlds"), "Worlds", [
      ["World", "", (cell, { name }) => say(cell, name)],
      ["State", "", (cell, { ready, reason }) => stateCell(cell, ready ? "ready" : "down", ready ? "ready" : "not ready", reason)],
      ["Jobs/s", number, (cell, world) => say(cell, rate(world.jobs_per_second))],
      ["Failed/s", number, (cell, world) => say(cell, rate(world.failed_per_second))],
      ["Waiting", number, (cell, world) => say(cell, count(world.queued))],
      ["p50", rare, (cell, world) => say(cell, seconds(world.seconds?.p50))],
      ["p99", number, (cell, world) => say(cell, seconds(world.seconds?.p99))],
      ["p99.9", rare, (cell, world) => say(cell, seconds(world.seconds?.p999))],
      ["Wait p99", rare, (cell, world) => say(cell, seconds(world.queue_seconds?.p99))],
      ["Sent again", rare, (cell, world) => say(cell, count(world.retries))],
      ["Machines", "wide", (cell, world) => say(cell, world.machines.join(", "))],
    ], "There is no world.");
    this.machines = table(byId("machines"), "Machines", [
      ["Machine", "", (cell, machine) => link(cell, machine.name)],
      ["State", "", (cell, machine) => stateCell(cell, machine.state, undefined, machine.trouble?.text)],
      ["In flight", "wide nowrap", (cell, machine) => share(cell, `In flight at ${machine.name}`, machine.in_flight, machine.max_in_flight)],
      ["Jobs/s", number, (cell, machine) => say(cell, rate(machine.jobs_per_second))],
      ["p50", rare, (cell, machine) => say(cell, seconds(machine.machine_seconds?.p50))],
      ["p99", number, (cell, machine) => say(cell, seconds(machine.machine_seconds?.p99))],
      ["p99.9", rare, (cell, machine) => say(cell, seconds(machine.machine_seconds?.p999))],
      ["Tunnels", rare, (cell, machine) => say(cell, count(machine.tunnels.ready))],
      ["Channels", rare, (cell, machine) => say(cell, count(machine.channels))],
      ["Change", "", (cell, machine) => this.button(cell, machine)],
    ], "There is no machine.");
    this.outcomes = table(byId("outcomes"), "Outcomes", [
      ["Outcome", "", (cell, [name]) => say(cell, OUTCOMES[name] ?? name)],
      ["Each second", number, (cell, [, outcome]) => say(cell, rate(outcome.per_second))],
      ["Since the start", number, (cell, [, outcome]) => say(cell, count(outcome.total))],
    ], "No job has ended yet.");
    this.limits = table(byId("limits"), "Limits", [
      ["Limit", "", (cell, limit) => say(cell, limit.limit)],
      ["Used", "nowrap", (cell, limit) => share(cell, `Used of ${limit.limit}`, limit.used, limit.max, BYTES.has(limit.limit) ? bytes : count)],
      ["Fullest", "", (cell, limit) => say(cell, limit.of ?? "–")],
    ], "There is no limit.");
    this.callers = table(byId("callers"), "The busiest callers", [
      ["Who", "", (cell, caller) => say(cell, caller.who)],
      ["Shown by", "wide", (cell, caller) => say(cell, caller.by.replace("_", " "))],
      ["Listener", "", (cell, caller) => say(cell, caller.listener.replace("_", ", "))],
      ["From", "wide", (cell, caller) => say(cell, caller.from ?? "–")],
      ["Jobs/s", number, (cell, caller) => say(cell, rate(caller.jobs_per_second))],
      ["In hand", number, (cell, caller) => say(cell, count(caller.jobs))],
      ["Waiting", rare, (cell, caller) => say(cell, count(caller.queued))],
      ["Bytes", rare, (cell, caller) => say(cell, bytes(caller.bytes))],
    ], "Nobody sends jobs now.");
  }

  button(cell, machine) {
    if (!cell.firstChild) cell.append(element("button", { type: "button" }));
    offerChange(cell.firstChild, this.latest, machine);
    note(cell, this.latest.may_change ? null : "–");
  }

  show(latest, points) {
    this.latest = latest;
    const { jobs, worlds, machines, callers, limits, time } = latest;
    figures(byId("figures"), [
      ["Jobs each second", rate(jobs.per_second)],
      ["Failed each second", rate(jobs.failed_per_second), jobs.failed_per_second > 0 ? "bad" : ""],
      ["In hand", count(jobs.in_hand)],
      ["Waiting", count(jobs.queued)],
      ["Time of a job, p50", seconds(jobs.seconds?.p50)],
      ["p99", seconds(jobs.seconds?.p99)],
      ["p99.9", seconds(jobs.seconds?.p999)],
    ]);
    this.worlds(worlds, ({ name }) => name);
    show(byId("no-changes"), !latest.may_change);
    say(byId("no-changes"), latest.may_change ? "" : `Nothing can be changed from here: ${latest.why_not}.`);
    this.machines(machines, ({ name }) => name);
    const outcomes = new Map();
    for (const world of worlds) {
      for (const [name, { total, per_second }] of Object.entries(world.outcomes)) {
        const sum = outcomes.get(name) ?? { total: 0, per_second: 0 };
        outcomes.set(name, { total: sum.total + total, per_second: sum.per_second + per_second });
      }
    }
    this.outcomes(Object.keys(OUTCOMES).filter((name) => outcomes.has(name)).map((name) => [name, outcomes.get(name)]), ([name]) => name);
    this.limits(limits, ({ limit }) => limit);
    const paused = callers.hardserver_paused + callers.grpc_paused;
    say(byId("callers-count"), `${count(callers.hardserver)} at the hardserver listeners, ${count(callers.grpc)} at gRPC; ${paused === 0 ? "none" : count(paused)} not read from because of a limit.`);
    this.callers(callers.busiest, (_, place) => place);
    if (points) this.plot(points, worlds, machines, time);
  }

  plot(points, worlds, machines, now) {
    // The busiest first, where not all can be shown.
    const most = (all, of) => (all.length <= MOST ? all : [...all].sort((one, other) => of(other) - of(one))).map(({ name }) => name);
    const worldNames = most(worlds, (world) => world.jobs_per_second);
    const machineNames = most(machines, (machine) => machine.jobs_per_second);
    const series = (names, kind, place) => points.map((point) => [point.time, ...names.map((name) => point[kind][name]?.[place] ?? null)]);
    this.rates(worldNames, series(worldNames, "worlds", 0), now);
    this.times(["p50", "p99", "p99.9"], points.map(({ time, all }) => [time, all[3], all[4], all[5]]), now);
    this.flight(machineNames, series(machineNames, "machines", 1), now);
    this.queue(worldNames, series(worldNames, "worlds", 1), now);
  }
}
