// Draining and resuming: a button that says what it does, a question, the request, and what came of it.

import { byId, say, show } from "./dom.js";

const TEXTS = {
  drain: (machine) => machine === null
    ? ["Drain the gateway", "It takes no new jobs: callers are told that there is nowhere to go, and load balancers that it is not ready. Jobs in hand go on. It stays so until it is resumed, or the gateway is restarted."]
    : [`Drain ${machine}`, "It gets no new jobs. Those that have not left go to the other machines of its worlds; where there is none, they wait. Those that have left are answered. It stays so until it is resumed, or the gateway is restarted."],
  resume: (machine) => machine === null
    ? ["Resume the gateway", "It takes jobs again, and load balancers are told that it is ready."]
    : [`Resume ${machine}`, "It gets jobs again, step by step where others can take the rest."],
};

// Makes `button` the one that changes a machine, or the gateway where `machine` is null. Hidden where whoever looks may change nothing.
export function offerChange(button, state, machine) {
  const name = machine === null ? null : machine.name;
  const change = (machine ?? state).draining ? "resume" : "drain";
  show(button, state.may_change);
  say(button, TEXTS[change](name)[0]);
  button.onclick = () => ask(change, name);
}

function ask(change, machine) {
  const [title, text] = TEXTS[change](machine);
  const dialog = byId("confirm");
  say(byId("confirm-title"), `${title}?`);
  say(byId("confirm-text"), text);
  say(byId("confirm-yes"), title);
  byId("confirm-no").onclick = () => dialog.close();
  byId("confirm-yes").onclick = () => { dialog.close(); make(change, machine, title); };
  dialog.showModal();
  byId("confirm-no").focus();
}

async function make(change, machine, title) {
  const query = machine === null ? "" : `?machine=${encodeURIComponent(machine)}`;
  try {
    const answer = await fetch(`${change}${query}`, { method: "POST", headers: { "X-Seeway": "console" } });
    const text = await answer.text();
    if (!answer.ok) return tell(`${title}: refused. ${why(text)}`, false);
    const { draining, jobs } = JSON.parse(text);
    const whose = machine === null ? "The gateway" : `Machine ${machine}`;
    tell(`${whose} takes ${draining ? "no new jobs" : "jobs"}; jobs in hand: ${jobs}.`, true);
  } catch {
    tell(`${title}: the gateway did not answer. Look at its state before you try again.`, false);
  }
}

function why(text) {
  try { return JSON.parse(text).message; } catch { return text.trim(); }
}

function tell(text, isDone) {
  const at = byId("result");
  at.classList.toggle("done", isDone);
  show(at, true);
  // After it is there, so that it is read.
  setTimeout(() => say(at, text), 50);
}
