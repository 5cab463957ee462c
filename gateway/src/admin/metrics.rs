//! What the shards counted, as Prometheus has it. Nothing is summed up before somebody asks.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use seeway_proto::outcome::OutcomeKind;

use super::catalogue;
use super::control::ReloadCounts;
use super::histogram::HistogramText;
use super::process::ProcessFigures;
use super::seen::Reports;
use crate::access::token::TokenCounts;
use crate::audit;
use crate::config::{Config, Ends, Limits, NO_MACHINE};
use crate::handover;
use crate::listen::tls::TlsCounts;
use crate::schedule::{FrontEnd, Histogram, MachineId, MachineState, Outcomes};
use crate::shard::{Late, Passed, PoolCounts, Report, TunnelState, WorldReport};
use crate::trace::SpanCounts;

/// What of `[limits]` is a count or bytes, by the name of its key.
#[allow(clippy::type_complexity)] // A name, and how it is read.
pub(super) const LIMITS: [(&str, fn(&Limits) -> usize); 14] = [
    ("max_job_bytes", |limits| limits.max_job_bytes as usize),
    ("queue", |limits| limits.queue),
    ("queue_bytes", |limits| limits.queue_bytes),
    ("callers", |limits| limits.callers),
    ("peer_callers", |limits| limits.peer_callers),
    ("caller_jobs", |limits| limits.caller_jobs),
    ("caller_queued", |limits| limits.caller_queued),
    ("caller_in_flight", |limits| limits.caller_in_flight),
    ("caller_bytes", |limits| limits.caller_bytes),
    ("caller_buffer_bytes", |limits| limits.caller_buffer_bytes),
    ("connection_buffer_bytes", |limits| limits.connection_buffer_bytes),
    ("channel_buffer_bytes", |limits| limits.channel_buffer_bytes),
    ("pipes", |limits| limits.pipes),
    ("bulk_above", |limits| limits.bulk_above),
];

/// What a page of metrics is made of.
pub(super) struct Seen<'a> {
    /// The configuration that is in force.
    pub(super) config: &'a Config,
    /// What each shard has to say.
    pub(super) reports: &'a [Report],
    /// Pipes that are open.
    pub(super) pipes: usize,
    /// Connections that have a place among the callers.
    pub(super) callers: usize,
    /// How much of `peer_callers` the peer uses that has most connections.
    pub(super) fullest_peer: f64,
    /// Of the listeners with TLS the one with the most handshakes for what it may have: how much of that is used.
    pub(super) handshakes_used: f64,
    /// Connections closed at once because there were too many.
    pub(super) callers_refused: u64,
    /// Whether the gateway takes no new jobs.
    pub(super) is_draining: bool,
    /// How reloads ended.
    pub(super) reloads: &'a ReloadCounts,
    /// How the audit log is, where there is one.
    pub(super) audit: Option<audit::Status>,
    /// What became of spans; all zero where none are made.
    pub(super) spans: SpanCounts,
    /// By listener: how handshakes went.
    pub(super) tls: &'a [(&'static str, TlsCounts)],
    /// What became of tokens.
    pub(super) tokens: TokenCounts,
    /// How takings-over went.
    pub(super) handovers: &'a handover::Counts,
    /// What the system says of this process; nothing where it says nothing.
    pub(super) process: Option<ProcessFigures>,
}

/// The text that Prometheus reads. It is written into a recorder that is made for it, so that a world or a machine that is
/// gone leaves no series behind.
pub(super) fn render(seen: &Seen<'_>) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        catalogue::describe();
        seen.publish();
    });
    let mut page = recorder.handle().render();
    seen.write_histograms(&mut page);
    if let Some(process) = &seen.process {
        // The recorder's counters are whole numbers.
        let cpu = catalogue::named("process_cpu_seconds_total");
        // Writing to a String does not fail.
        let _ = write!(page, "{}{} {}\n\n", catalogue::head(cpu), cpu.name, process.cpu_seconds);
    }
    page
}

impl Reports for Seen<'_> {
    fn config(&self) -> &Config {
        self.config
    }

    fn reports(&self) -> impl Iterator<Item = &Report> {
        self.reports.iter()
    }
}

impl Seen<'_> {
    /// The recorder would keep a sample for each job; the shards have counted them into buckets already.
    fn write_histograms(&self, page: &mut String) {
        let mut job = HistogramText::begin("seeway_job_seconds");
        let mut queue = HistogramText::begin("seeway_queue_seconds");
        for index in self.worlds() {
            let name = self.config.worlds[index].name.as_str();
            for front_end in FrontEnd::ALL {
                let time = self.of_world(index).map(|world| &world.stats.time[front_end as usize]);
                job.write(&[name, front_end.label()], &merged(time));
            }
            queue.write(&[name], &merged(self.of_world(index).map(|world| &world.stats.queue_time)));
        }
        let mut machine_time = HistogramText::begin("seeway_machine_seconds");
        let mut keepalives = HistogramText::begin("seeway_keepalive_seconds");
        for index in self.machines() {
            let name = self.config.machines[index].name.as_str();
            machine_time.write(&[name], &merged(self.of_machine(index).map(|machine| &machine.machine_time)));
            keepalives.write(&[name], &merged(self.of_machine(index).map(|machine| &machine.keepalives)));
        }
        for text in [job, queue, machine_time, keepalives] {
            page.push_str(&text.end());
        }
    }

    fn publish(&self) {
        gauge!("seeway_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        gauge!("seeway_shards").set(number(self.reports.len()));
        let sum = |of: fn(&Report) -> usize| number(self.reports.iter().map(of).sum());
        gauge!("seeway_callers", "listener" => "hardserver").set(sum(|report| report.legacy_callers));
        gauge!("seeway_callers", "listener" => "grpc").set(sum(|report| report.grpc_callers));
        gauge!("seeway_callers_paused", "listener" => "hardserver").set(sum(|report| report.legacy_paused));
        gauge!("seeway_callers_paused", "listener" => "grpc").set(sum(|report| report.grpc_paused));
        gauge!("seeway_jobs").set(sum(|report| report.jobs));
        gauge!("seeway_tasks").set(sum(|report| report.tasks));
        gauge!("seeway_pipes").set(number(self.pipes));
        gauge!("seeway_draining").set(f64::from(u8::from(self.is_draining)));
        counter!("seeway_callers_refused_total").absolute(self.callers_refused);
        let late = |of: fn(&Late) -> u64| self.reports.iter().map(|report| of(&report.late)).sum();
        counter!("seeway_callers_late_total", "listener" => "hardserver").absolute(late(|late| late.legacy));
        counter!("seeway_callers_late_total", "listener" => "grpc").absolute(late(|late| late.grpc));
        counter!("seeway_callers_broken_total").absolute(self.reports.iter().map(|report| report.broken).sum());
        counter!("seeway_rejected_total").absolute(self.reports.iter().map(|report| report.rejected).sum());
        counter!("seeway_reloads_total", "result" => "ok").absolute(self.reloads.ok);
        counter!("seeway_reloads_total", "result" => "refused").absolute(self.reloads.refused);
        gauge!("seeway_config_loaded_timestamp_seconds").set(large(self.reloads.loaded));
        gauge!("seeway_upstream_hardserver_connections").set(sum(|report| report.hardserver_connections));
        self.publish_passed();
        publish_audit(self.audit);
        publish_spans(self.spans);
        self.publish_tls();
        publish_tokens(&self.tokens);
        self.publish_handovers();
        publish_process(self.process.as_ref());
        self.publish_limits();
        self.worlds().for_each(|index| self.publish_world(index));
        self.machines().for_each(|index| self.publish_machine(index));
    }

    fn publish_passed(&self) {
        let mut passed = Passed::default();
        for report in self.reports {
            passed += report.passed;
        }
        for (outcome, count) in
            [("replied", passed.replied), ("not_sent", passed.not_sent), ("unknown", passed.unknown)]
        {
            counter!("seeway_upstream_hardserver_commands_total", "outcome" => outcome).absolute(count);
        }
    }

    fn publish_tls(&self) {
        for (listener, counts) in self.tls {
            for (result, count) in
                [("ok", counts.done), ("failed", counts.failed), ("late", counts.late), ("refused", counts.refused)]
            {
                counter!("seeway_tls_handshakes_total", "listener" => *listener, "result" => result).absolute(count);
            }
            for (result, count) in [("ok", counts.reloaded), ("refused", counts.not_reloaded)] {
                counter!("seeway_tls_reloads_total", "listener" => *listener, "result" => result).absolute(count);
            }
            counter!("seeway_tls_withdrawn_total", "listener" => *listener).absolute(counts.withdrawn);
            let Ends { certificate, client_ca, crl } = counts.ends;
            for (file, end) in [("certificate", certificate), ("client_ca", client_ca), ("crl", crl)] {
                gauge!("seeway_tls_expires_timestamp_seconds", "listener" => *listener, "file" => file)
                    .set(certificate_end(end));
            }
        }
    }

    fn publish_handovers(&self) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = self.handovers;
        for (result, count) in [("ok", &counts.taken_over), ("failed", &counts.failed)] {
            counter!("seeway_handovers_total", "result" => result).absolute(read(count));
        }
        for (kind, count) in [("listener", &counts.listeners), ("caller", &counts.callers)] {
            counter!("seeway_handed_over_total", "kind" => kind).absolute(read(count));
        }
    }

    fn publish_limits(&self) {
        let limits = &self.config.limits;
        for (name, limit) in LIMITS {
            gauge!("seeway_limit", "limit" => name).set(number(limit(limits)));
        }
        gauge!("seeway_limit_seconds", "limit" => "hold").set(limits.hold.as_secs_f64());
        gauge!("seeway_limit_seconds", "limit" => "default_timeout").set(limits.default_timeout.as_secs_f64());
        gauge!("seeway_limit_seconds", "limit" => "message_timeout").set(limits.message_timeout.as_secs_f64());
        let worlds = |of: fn(&WorldReport) -> usize, limit| {
            let used = self.worlds().map(|index| self.of_world(index).map(of).sum());
            used.map(|used| ratio(used, limit)).fold(0.0, f64::max)
        };
        let in_flight = self.machines().map(|index| {
            let in_flight = self.of_machine(index).map(|machine| machine.in_flight).sum();
            ratio(in_flight, self.config.machines[index].max_in_flight)
        });
        for (name, used) in [
            ("callers", ratio(self.callers, limits.callers)),
            ("peer_callers", self.fullest_peer),
            ("pipes", ratio(self.pipes, limits.pipes)),
            ("queue", worlds(|world| world.queued, limits.queue)),
            ("queue_bytes", worlds(|world| world.queued_bytes, limits.queue_bytes)),
            ("max_in_flight", in_flight.fold(0.0, f64::max)),
            ("handshakes", self.handshakes_used),
        ] {
            gauge!("seeway_limit_used_ratio", "limit" => name).set(used);
        }
    }

    fn publish_world(&self, index: usize) {
        let name = self.config.worlds[index].name.clone();
        let of_world = || self.of_world(index);
        let ready = of_world().any(|world| world.is_ready);
        gauge!("seeway_world_ready", "world" => name.clone()).set(f64::from(u8::from(ready)));
        gauge!("seeway_jobs_queued", "world" => name.clone()).set(number(of_world().map(|world| world.queued).sum()));
        gauge!("seeway_queue_bytes", "world" => name.clone())
            .set(number(of_world().map(|world| world.queued_bytes).sum()));
        let bytes = |of: fn(&WorldReport) -> u64| of_world().map(of).sum();
        counter!("seeway_job_bytes_total", "world" => name.clone()).absolute(bytes(|world| world.stats.job_bytes));
        counter!("seeway_reply_bytes_total", "world" => name.clone()).absolute(bytes(|world| world.stats.reply_bytes));
        self.publish_outcomes(index, &name);
        counter!("seeway_retries_total", "world" => name.clone())
            .absolute(of_world().map(|world| world.stats.retries).sum());
        counter!("seeway_retries_refused_total", "world" => name)
            .absolute(of_world().map(|world| world.stats.retries_refused).sum());
    }

    /// What became of a world's jobs, by where they came in and went: at its machines, at such as it had once, and at none.
    fn publish_outcomes(&self, index: usize, name: &str) {
        let own = &self.config.worlds[index].machines;
        let machines = self.config.machines.iter().enumerate();
        let machines = machines.map(|(place, machine)| (Some(place), machine.name.as_str()));
        for (place, machine) in [(None, NO_MACHINE)].into_iter().chain(machines) {
            let outcomes = FrontEnd::ALL.map(|front_end| {
                let mut outcomes = Outcomes::default();
                for world in self.of_world(index) {
                    outcomes += world.stats.outcomes_at(front_end, place.map(MachineId));
                }
                (front_end, outcomes)
            });
            let is_own = place.is_none_or(|place| own.contains(&place));
            if !is_own && outcomes.iter().all(|(_, outcomes)| *outcomes == Outcomes::default()) {
                continue;
            }
            for (front_end, outcomes) in outcomes {
                for kind in OutcomeKind::ALL {
                    let labels = [
                        ("world", name.to_owned()),
                        ("machine", machine.to_owned()),
                        ("listener", front_end.label().to_owned()),
                        ("outcome", kind.label().to_owned()),
                    ];
                    counter!("seeway_jobs_total", &labels).absolute(outcomes.of(kind));
                }
            }
        }
    }

    fn publish_machine(&self, index: usize) {
        let name = self.config.machines[index].name.clone();
        let of_machine = || self.of_machine(index);
        gauge!("seeway_jobs_in_flight", "machine" => name.clone())
            .set(number(of_machine().map(|machine| machine.in_flight).sum()));
        gauge!("seeway_max_in_flight", "machine" => name.clone())
            .set(number(self.config.machines[index].max_in_flight));
        gauge!("seeway_channels", "machine" => name.clone())
            .set(number(of_machine().map(|machine| machine.channels).sum()));
        for state in MachineState::ALL {
            gauge!("seeway_machine_state", "machine" => name.clone(), "state" => state.label())
                .set(number(of_machine().filter(|machine| machine.state == state).count()));
        }
        for (place, state) in TunnelState::ALL.into_iter().enumerate() {
            gauge!("seeway_tunnels", "machine" => name.clone(), "state" => state.label())
                .set(number(of_machine().map(|machine| machine.tunnels[place]).sum()));
        }
        gauge!("seeway_certificate_expires_timestamp_seconds", "machine" => name.clone())
            .set(certificate_end(self.config.machines[index].identity.valid_before()));
        let counted = |of: fn(&PoolCounts) -> u64| of_machine().map(|machine| of(&machine.pool)).sum();
        counter!("seeway_tunnels_made_total", "machine" => name.clone()).absolute(counted(|pool| pool.made));
        counter!("seeway_tunnels_refused_total", "machine" => name.clone()).absolute(counted(|pool| pool.refused));
        counter!("seeway_channels_prohibited_total", "machine" => name.clone())
            .absolute(counted(|pool| pool.prohibited));
        counter!("seeway_rekeys_total", "machine" => name.clone()).absolute(counted(|pool| pool.rekeys));
        counter!("seeway_connects_failed_total", "machine" => name.clone())
            .absolute(counted(|pool| pool.failed_connects));
        counter!("seeway_ejections_total", "machine" => name.clone())
            .absolute(of_machine().map(|machine| machine.ejections).sum());
        counter!("seeway_late_replies_total", "machine" => name)
            .absolute(of_machine().map(|machine| machine.late_replies).sum());
    }
}

/// How the audit log is; all zero where there is none.
fn publish_audit(status: Option<audit::Status>) {
    let of = |read: fn(&audit::Status) -> u64| status.as_ref().map_or(0, read);
    counter!("seeway_audit_records_total", "result" => "written").absolute(of(|status| status.written));
    counter!("seeway_audit_records_total", "result" => "dropped").absolute(of(|status| status.dropped));
    counter!("seeway_audit_failures_total").absolute(of(|status| status.failures));
    counter!("seeway_audit_jobs_refused_total").absolute(of(|status| status.jobs_refused));
    gauge!("seeway_audit_sequence").set(large(of(|status| status.head.sequence)));
    gauge!("seeway_audit_waiting").set(large(of(|status| status.waiting as u64)));
    gauge!("seeway_audit_buffer").set(large(of(|status| status.limit as u64)));
    gauge!("seeway_audit_failing").set(large(of(|status| status.is_failing.into())));
}

fn publish_spans(spans: SpanCounts) {
    let SpanCounts { exported, dropped, failed } = spans;
    for (result, count) in [("exported", exported), ("dropped", dropped), ("failed", failed)] {
        counter!("seeway_spans_total", "result" => result).absolute(count);
    }
}

fn publish_tokens(counts: &TokenCounts) {
    counter!("seeway_tokens_total", "result" => "ok").absolute(counts.accepted);
    counter!("seeway_tokens_total", "result" => "refused").absolute(counts.refused);
    counter!("seeway_token_keys_reads_total", "result" => "ok").absolute(counts.reads);
    counter!("seeway_token_keys_reads_total", "result" => "failed").absolute(counts.failed_reads);
    gauge!("seeway_token_keys").set(number(counts.keys));
    gauge!("seeway_token_keys_age_seconds").set(counts.age.unwrap_or_default().as_secs_f64());
}

fn publish_process(process: Option<&ProcessFigures>) {
    let Some(process) = process else { return };
    gauge!("process_resident_memory_bytes").set(large(process.resident_bytes));
    gauge!("process_virtual_memory_bytes").set(large(process.virtual_bytes));
    gauge!("process_open_fds").set(large(process.open_descriptors));
    gauge!("process_max_fds").set(process.most_descriptors.map_or(f64::INFINITY, large));
    gauge!("process_threads").set(large(process.threads));
    gauge!("process_start_time_seconds").set(process.started);
}

/// What all shards have counted.
fn merged<'a>(shards: impl Iterator<Item = &'a Histogram>) -> Histogram {
    let mut all = Histogram::default();
    shards.for_each(|shard| all.merge(shard));
    all
}

/// How much of a limit is used, 0 to 1: more than that only after a reload has lowered it, and nothing of one that lets nobody in.
fn ratio(used: usize, limit: usize) -> f64 {
    if limit == 0 { 0.0 } else { (number(used) / number(limit)).min(1.0) }
}

/// Counts are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn number(count: usize) -> f64 {
    count as f64
}

/// Seconds since 1970 are below 2^52 for a hundred million years, and records at a million in a second for a hundred.
#[allow(clippy::cast_precision_loss)]
fn large(number: u64) -> f64 {
    number as f64
}

/// When a certificate expires, in seconds since 1970; infinite where there is none, or it never does.
fn certificate_end(end: Option<SystemTime>) -> f64 {
    end.map_or(f64::INFINITY, |end| end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())
}
