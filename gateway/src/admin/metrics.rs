//! What the shards counted, as Prometheus has it. Nothing is summed up before somebody asks.

use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use seeway_proto::outcome::OutcomeKind;

use super::control::ReloadCounts;
use super::histogram::HistogramText;
use crate::access::token::TokenCounts;
use crate::audit;
use crate::config::Config;
use crate::listen::tls::TlsCounts;
use crate::schedule::{Histogram, MachineState};
use crate::shard::{Late, MachineReport, Passed, PoolCounts, Report, TunnelState, WorldReport};
use crate::trace::SpanCounts;

const QUEUE_SECONDS: &str = "seeway_queue_seconds";
const MACHINE_SECONDS: &str = "seeway_machine_seconds";

/// What a page of metrics is made of.
pub(super) struct Seen<'a> {
    /// The configuration that is in force.
    pub(super) config: &'a Config,
    /// What each shard has to say.
    pub(super) reports: &'a [Report],
    /// Pipes that are open.
    pub(super) pipes: usize,
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
}

/// The text that Prometheus reads. It is written into a recorder that is made for it, so that a world or a machine that is
/// gone leaves no series behind.
pub(super) fn render(seen: &Seen<'_>) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        describe();
        seen.publish();
    });
    let mut page = recorder.handle().render();
    seen.write_histograms(&mut page);
    page
}

impl Seen<'_> {
    /// A world's part of each report. A shard that has not heard of the world yet has none.
    fn of_world(&self, index: usize) -> impl Iterator<Item = &WorldReport> {
        self.reports.iter().filter_map(move |report| report.worlds.get(index))
    }

    /// A machine's part of each report. A shard that has not heard of the machine yet has none.
    fn of_machine(&self, index: usize) -> impl Iterator<Item = &MachineReport> {
        self.reports.iter().filter_map(move |report| report.machines.get(index))
    }

    /// The worlds that are shown, by their positions: those that the configuration has.
    fn worlds(&self) -> impl Iterator<Item = (usize, &str)> {
        let worlds = self.config.worlds.iter().enumerate().filter(|(_, world)| !world.is_retired);
        worlds.map(|(index, world)| (index, world.name.as_str()))
    }

    /// The machines that are shown, by their positions: those that the configuration has, and those that still finish
    /// what they had when it lost them.
    fn machines(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_at_work = |index| self.of_machine(index).any(|machine| machine.in_flight > 0 || machine.channels > 0);
        let machines = self.config.machines.iter().enumerate();
        let shown = machines.filter(move |(index, machine)| !machine.is_retired || is_at_work(*index));
        shown.map(|(index, machine)| (index, machine.name.as_str()))
    }

    /// The recorder would keep a sample for each job; the shards have counted them into buckets already.
    fn write_histograms(&self, page: &mut String) {
        let mut queue = HistogramText::begin(
            QUEUE_SECONDS,
            "world",
            "From a job's admission to when it was last handed to a channel, or to its end where it never was",
        );
        for (index, name) in self.worlds() {
            queue.write(name, &merged(self.of_world(index).map(|world| &world.stats.queue_time)));
        }
        let mut machine_time =
            HistogramText::begin(MACHINE_SECONDS, "machine", "From when a job was handed to a channel to its reply");
        for (index, name) in self.machines() {
            machine_time.write(name, &merged(self.of_machine(index).map(|machine| &machine.machine_time)));
        }
        page.push_str(&queue.end());
        page.push_str(&machine_time.end());
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
        self.publish_limits();
        self.worlds().for_each(|(index, name)| self.publish_world(index, name));
        self.machines().for_each(|(index, name)| self.publish_machine(index, name));
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
        }
    }

    fn publish_limits(&self) {
        let limits = &self.config.limits;
        for (name, limit) in [
            ("max_job_bytes", limits.max_job_bytes as usize),
            ("queue", limits.queue),
            ("queue_bytes", limits.queue_bytes),
            ("callers", limits.callers),
            ("peer_callers", limits.peer_callers),
            ("caller_jobs", limits.caller_jobs),
            ("caller_queued", limits.caller_queued),
            ("caller_in_flight", limits.caller_in_flight),
            ("caller_bytes", limits.caller_bytes),
            ("caller_buffer_bytes", limits.caller_buffer_bytes),
            ("connection_buffer_bytes", limits.connection_buffer_bytes),
            ("channel_buffer_bytes", limits.channel_buffer_bytes),
            ("pipes", limits.pipes),
            ("bulk_above", limits.bulk_above),
        ] {
            gauge!("seeway_limit", "limit" => name).set(number(limit));
        }
        gauge!("seeway_limit_seconds", "limit" => "hold").set(limits.hold.as_secs_f64());
        gauge!("seeway_limit_seconds", "limit" => "default_timeout").set(limits.default_timeout.as_secs_f64());
        gauge!("seeway_limit_seconds", "limit" => "message_timeout").set(limits.message_timeout.as_secs_f64());
    }

    fn publish_world(&self, index: usize, name: &str) {
        let name = name.to_owned();
        let of_world = || self.of_world(index);
        let ready = of_world().any(|world| world.is_ready);
        gauge!("seeway_world_ready", "world" => name.clone()).set(f64::from(u8::from(ready)));
        gauge!("seeway_jobs_queued", "world" => name.clone()).set(number(of_world().map(|world| world.queued).sum()));
        gauge!("seeway_queue_bytes", "world" => name.clone())
            .set(number(of_world().map(|world| world.queued_bytes).sum()));
        for kind in OutcomeKind::ALL {
            counter!("seeway_jobs_total", "world" => name.clone(), "outcome" => kind.label())
                .absolute(of_world().map(|world| world.stats.outcomes(kind)).sum());
        }
        counter!("seeway_retries_total", "world" => name.clone())
            .absolute(of_world().map(|world| world.stats.retries).sum());
        counter!("seeway_retries_refused_total", "world" => name)
            .absolute(of_world().map(|world| world.stats.retries_refused).sum());
    }

    fn publish_machine(&self, index: usize, name: &str) {
        let name = name.to_owned();
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

/// What all shards have counted.
fn merged<'a>(shards: impl Iterator<Item = &'a Histogram>) -> Histogram {
    let mut all = Histogram::default();
    shards.for_each(|shard| all.merge(shard));
    all
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

/// When an identity's certificate expires, in seconds since 1970; infinite where it has none, or one that never does.
fn certificate_end(end: Option<SystemTime>) -> f64 {
    end.map_or(f64::INFINITY, |end| end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())
}

fn describe() {
    use metrics::{describe_counter, describe_gauge};
    describe_gauge!("seeway_build_info", "Always 1; its label is the gateway's version");
    describe_gauge!("seeway_shards", "Threads of the data plane");
    describe_gauge!(
        "seeway_callers",
        "Callers: connections at the hardserver front end, connections and streams at gRPC's"
    );
    describe_gauge!(
        "seeway_callers_paused",
        "Connections and streams that are not read from now, because one of their caller's limits is reached"
    );
    describe_gauge!("seeway_draining", "Whether the gateway takes no new jobs");
    describe_counter!("seeway_reloads_total", "Reloads, by whether the file was taken or refused");
    describe_gauge!("seeway_config_loaded_timestamp_seconds", "When the configuration that is in force was read");
    describe_counter!(
        "seeway_audit_records_total",
        "Records of the audit log, by whether they were written or dropped"
    );
    describe_counter!("seeway_audit_failures_total", "How often the audit log's target took no records");
    describe_counter!("seeway_audit_jobs_refused_total", "Jobs refused because nobody could record them");
    describe_gauge!("seeway_audit_sequence", "The number of the last record that was written");
    describe_gauge!("seeway_audit_waiting", "Records that wait or are being written");
    describe_gauge!("seeway_audit_buffer", "How many records may wait: audit.buffer");
    describe_gauge!("seeway_audit_failing", "Whether the audit log's target takes no records now");
    describe_counter!("seeway_spans_total", "Spans of sampled jobs, by what became of them");
    describe_gauge!("seeway_jobs", "Jobs in hand: queued, or sent and waited for");
    describe_gauge!("seeway_tasks", "Tasks on the shards");
    describe_gauge!("seeway_pipes", "Pipes that are open");
    describe_gauge!("seeway_upstream_hardserver_connections", "Connections to the hardserver behind this one");
    describe_gauge!("seeway_limit", "What the configuration limits, by the name of its key in [limits]");
    describe_gauge!(
        "seeway_limit_seconds",
        "How long the configuration has jobs wait, by the name of its key in [limits]"
    );
    describe_gauge!("seeway_queue_bytes", "Bytes of the jobs that wait");
    describe_gauge!(
        "seeway_machine_state",
        "Shards by what the machine is to them: whether it takes jobs, and why not"
    );
    describe_counter!(
        "seeway_ejections_total",
        "How often the machine was ejected, because it failed jobs or was silent"
    );
    describe_counter!("seeway_retries_refused_total", "Idempotent jobs not sent again because of the retry budget");
    describe_gauge!("seeway_world_ready", "Whether the world can take a job now");
    describe_gauge!("seeway_jobs_queued", "Jobs that wait");
    describe_gauge!("seeway_jobs_in_flight", "Jobs sent and unanswered, waited for or not");
    describe_gauge!("seeway_max_in_flight", "The machine's max_in_flight");
    describe_gauge!("seeway_channels", "SEEJob streams that are up");
    describe_gauge!("seeway_tunnels", "Tunnels, by what they are doing");
    describe_counter!(
        "seeway_callers_refused_total",
        "Connections closed at once because of limits.callers or limits.peer_callers"
    );
    describe_counter!(
        "seeway_callers_late_total",
        "Connections closed, and calls failed, because a message had not come within limits.message_timeout"
    );
    describe_counter!("seeway_callers_broken_total", "Legacy connections closed because what they sent was no message");
    describe_counter!(
        "seeway_rejected_total",
        "Requests that never became a job: no such world, or something is wrong with them"
    );
    describe_counter!(
        "seeway_upstream_hardserver_commands_total",
        "Commands that were passed on to the hardserver and ended, by what became of them"
    );
    describe_counter!(
        "seeway_tls_handshakes_total",
        "Connections that wanted TLS: agreed on, failed, too late, or closed at once because there were too many"
    );
    describe_counter!("seeway_tokens_total", "Tokens that came with calls, by whether they were good");
    describe_counter!(
        "seeway_token_keys_reads_total",
        "How often the provider's keys were read, by whether they could be"
    );
    describe_gauge!("seeway_token_keys", "The provider's keys that are in use");
    describe_gauge!(
        "seeway_token_keys_age_seconds",
        "How long ago the provider's keys were read; 0 where there are none"
    );
    describe_counter!("seeway_tls_reloads_total", "Certificates read again, by whether they could be used");
    describe_counter!(
        "seeway_tls_withdrawn_total",
        "Connections that were closed because their certificates were withdrawn"
    );
    describe_counter!("seeway_jobs_total", "Jobs that ended, by what became of them");
    describe_counter!("seeway_retries_total", "Idempotent jobs sent again after an unknown outcome");
    describe_gauge!(
        "seeway_certificate_expires_timestamp_seconds",
        "When the certificate expires that the machine is logged in to with; +Inf where there is none, or it never does"
    );
    describe_counter!("seeway_tunnels_made_total", "Tunnels that were made");
    describe_counter!("seeway_tunnels_refused_total", "Connects that failed for algorithms, the host key or the login");
    describe_counter!("seeway_channels_prohibited_total", "Channels that the SSH server's policy forbade");
    describe_counter!("seeway_rekeys_total", "Key exchanges on tunnels that stood already");
    describe_counter!("seeway_connects_failed_total", "Connects that failed, for whatever reason");
    describe_counter!("seeway_late_replies_total", "Replies that nobody waited for any more");
}
