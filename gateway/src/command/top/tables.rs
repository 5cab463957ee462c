//! The state as tables and lines of text: what both the live screen and `--once` show.

use std::time::Duration;

use super::text::{NONE, bytes, lasting, rate, seconds};
use crate::admin::state::{Machine, Percentiles, State};

/// How well something is; it has a shape and a word besides the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Uneasy,
    Held,
    Bad,
}

/// A pane's table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) title: &'static str,
    /// The most important column first; and whether it is of numbers.
    pub(super) columns: &'static [(&'static str, bool)],
    pub(super) rows: Vec<Row>,
}

/// A table's row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What stays the same while everything else in it changes.
    pub(super) key: String,
    /// What colour the second column has.
    pub(super) tone: Option<Tone>,
    pub(super) cells: Vec<String>,
    /// What is wrong with it.
    pub(super) why: Option<String>,
}

/// A state's shape and word.
pub(super) fn mark(state: &str) -> (&'static str, Tone) {
    match state {
        "ready" => ("● ready", Tone::Good),
        "starting" => ("◐ starting", Tone::Uneasy),
        "probing" => ("◐ probing", Tone::Uneasy),
        "draining" => ("■ drained", Tone::Held),
        "ejected" => ("▲ ejected", Tone::Bad),
        "down" => ("▲ down", Tone::Bad),
        "not ready" => ("▲ not ready", Tone::Bad),
        _ => ("▲ unknown", Tone::Bad),
    }
}

/// The gateway's own state.
pub(super) fn gateway_mark(state: &State) -> (&'static str, Tone) {
    match (state.draining, state.ready) {
        (true, _) => mark("draining"),
        (false, true) => mark("ready"),
        (false, false) => mark("not ready"),
    }
}

/// Who it is, after its mark.
pub(super) fn about(state: &State) -> String {
    let process = &state.process;
    let uptime = Duration::try_from_secs_f64(process.uptime).unwrap_or_default();
    let memory = process.resident_bytes.map(|resident| format!("  {}", bytes(resident))).unwrap_or_default();
    format!("up {}{memory}  process {}", lasting(uptime), process.pid)
}

/// What it has to do.
pub(super) fn work(state: &State) -> String {
    let (jobs, callers) = (&state.jobs, &state.callers);
    let paused = match callers.hardserver_paused + callers.grpc_paused {
        0 => String::new(),
        paused => format!(", {paused} held back"),
    };
    format!(
        "in hand {}  waiting {}  in flight {}  failed/s {}  callers {} hardserver, {} gRPC{paused}",
        jobs.in_hand,
        jobs.queued,
        jobs.in_flight,
        rate(jobs.failed_per_second),
        callers.hardserver,
        callers.grpc
    )
}

fn percentile(of: Option<Percentiles>, which: impl Fn(Percentiles) -> f64) -> String {
    of.map_or_else(|| NONE.to_owned(), |of| seconds(which(of)))
}

/// p50, p99, p99.9.
pub(super) fn percentiles(of: Option<Percentiles>) -> [String; 3] {
    [percentile(of, |of| of.p50), percentile(of, |of| of.p99), percentile(of, |of| of.p999)]
}

/// A machine's tunnels by state, such as `2 ready, 1 backing off`.
pub(super) fn tunnels(machine: &Machine) -> String {
    let present = machine.tunnels.iter().filter(|(_, count)| **count > 0);
    let parts: Vec<_> = present.map(|(state, count)| format!("{count} {}", state.replace('_', " "))).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// Why a machine is not up.
pub(super) fn trouble(machine: &Machine) -> Option<String> {
    machine.trouble.as_ref().map(|trouble| match trouble.text.as_str() {
        "" => trouble.what.replace('_', " "),
        text => format!("{}: {text}", trouble.what.replace('_', " ")),
    })
}

/// All tables, in the order of the panes.
pub(super) fn tables(state: &State) -> [Table; 4] {
    [worlds(state), machines(state), callers(state), limits(state)]
}

fn worlds(state: &State) -> Table {
    let rows = state.worlds.iter().map(|world| {
        let (state, tone) = mark(if world.ready { "ready" } else { "not ready" });
        let [p50, p99, p999] = percentiles(world.seconds);
        let (jobs, failed) = (rate(world.jobs_per_second), rate(world.failed_per_second));
        let (queued, retries) = (world.queued.to_string(), world.retries.to_string());
        let machines = world.machines.len().to_string();
        let cells = [world.name.clone(), state.to_owned(), jobs, failed, queued, p50, p99, p999, retries, machines];
        Row { key: world.name.clone(), tone: Some(tone), cells: cells.into(), why: world.reason.clone() }
    });
    let columns = &[
        ("world", false),
        ("state", false),
        ("jobs/s", true),
        ("failed/s", true),
        ("waiting", true),
        ("p50", true),
        ("p99", true),
        ("p99.9", true),
        ("retries", true),
        ("machines", true),
    ];
    Table { title: "Worlds", columns, rows: rows.collect() }
}

fn machines(state: &State) -> Table {
    let rows = state.machines.iter().map(|machine| {
        let (state, tone) = mark(&machine.state);
        let [p50, p99, p999] = percentiles(machine.machine_seconds);
        let in_flight = format!("{}/{}", machine.in_flight, machine.max_in_flight);
        let keepalive = percentile(machine.keepalive_seconds, |of| of.p50);
        let cells = [
            machine.name.clone(),
            state.to_owned(),
            rate(machine.jobs_per_second),
            in_flight,
            p99,
            tunnels(machine),
            machine.channels.to_string(),
            p50,
            p999,
            keepalive,
            machine.address.clone(),
        ];
        Row { key: machine.name.clone(), tone: Some(tone), cells: cells.into(), why: trouble(machine) }
    });
    let columns = &[
        ("machine", false),
        ("state", false),
        ("jobs/s", true),
        ("in flight", true),
        ("p99", true),
        ("tunnels", false),
        ("channels", true),
        ("p50", true),
        ("p99.9", true),
        ("keepalive", true),
        ("address", false),
    ];
    Table { title: "Machines", columns, rows: rows.collect() }
}

fn callers(state: &State) -> Table {
    let rows = state.callers.busiest.iter().map(|caller| {
        let from = caller.from.clone().unwrap_or_else(|| NONE.to_owned());
        let cells = [
            caller.who.clone(),
            caller.listener.replace('_', " "),
            rate(caller.jobs_per_second),
            caller.jobs.to_string(),
            caller.queued.to_string(),
            bytes(caller.bytes as u64),
            from.clone(),
            caller.by.replace('_', " "),
        ];
        Row { key: format!("{} {} {from}", caller.listener, caller.who), tone: None, cells: cells.into(), why: None }
    });
    let columns = &[
        ("caller", false),
        ("listener", false),
        ("jobs/s", true),
        ("jobs", true),
        ("waiting", true),
        ("bytes", true),
        ("from", false),
        ("known by", false),
    ];
    Table { title: "Callers", columns, rows: rows.collect() }
}

/// The fullest first.
fn limits(state: &State) -> Table {
    let mut limits: Vec<_> = state.limits.iter().collect();
    limits.sort_by(|left, right| right.ratio.total_cmp(&left.ratio));
    let rows = limits.into_iter().map(|limit| {
        let of = limit.of.clone().unwrap_or_else(|| NONE.to_owned());
        let share = format!("{:.0} %", limit.ratio * 100.0);
        let (used, max) = (limit.used.to_string(), limit.max.to_string());
        Row {
            key: format!("{} {of}", limit.limit),
            tone: None,
            cells: vec![limit.limit.clone(), share, used, max, of],
            why: (limit.ratio >= 0.9).then(|| format!("{} is nearly reached", limit.limit)),
        }
    });
    let columns = &[("limit", false), ("full", true), ("used", true), ("most", true), ("of", false)];
    Table { title: "Limits", columns, rows: rows.collect() }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::super::seen::Seen;
    use super::*;

    #[test]
    fn every_row_has_a_cell_for_each_column_and_a_key_of_its_own() {
        let seen = Seen::read(sample::state(1.0)).expect("a state");
        for table in tables(&seen.state) {
            assert!(!table.rows.is_empty(), "{}", table.title);
            let keys: std::collections::BTreeSet<_> = table.rows.iter().map(|row| &row.key).collect();
            assert_eq!(keys.len(), table.rows.len(), "{}", table.title);
            for row in &table.rows {
                assert_eq!(row.cells.len(), table.columns.len(), "{}: {:?}", table.title, row.cells);
            }
        }
    }

    #[test]
    fn states_differ_in_shape_and_word() {
        let marks = ["ready", "starting", "draining", "down"].map(|state| mark(state).0);
        let shapes: std::collections::BTreeSet<_> = marks.iter().filter_map(|mark| mark.chars().next()).collect();
        assert_eq!(shapes.len(), marks.len());
        assert_eq!(mark("a state of a later version").1, Tone::Bad);
    }
}
