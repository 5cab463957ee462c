//! What the shards counted, as Prometheus has it. Nothing is summed up before somebody asks.

use std::sync::Arc;

use metrics::{counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use seeway_proto::outcome::OutcomeKind;
use tokio::sync::Semaphore;

use super::histogram::HistogramText;
use crate::config::Config;
use crate::listen::accept::Refused;
use crate::schedule::Histogram;
use crate::shard::{Passed, Report, TunnelState};

const QUEUE_SECONDS: &str = "seeway_queue_seconds";
const MACHINE_SECONDS: &str = "seeway_machine_seconds";

/// The gateway's metrics.
pub struct Metrics {
    config: Arc<Config>,
    recorder: PrometheusRecorder,
    refused: Arc<Refused>,
    pipes: Arc<Semaphore>,
}

impl Metrics {
    /// Metrics with nothing counted.
    pub fn new(config: Arc<Config>, refused: Arc<Refused>, pipes: Arc<Semaphore>) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&recorder, describe);
        Self { config, recorder, refused, pipes }
    }

    /// The text that Prometheus reads, of what the shards report now.
    pub fn render(&self, reports: &[Report]) -> String {
        with_local_recorder(&self.recorder, || self.publish(reports));
        let mut page = self.recorder.handle().render();
        self.write_histograms(&mut page, reports);
        page
    }

    /// The recorder would keep a sample for each job; the shards have counted them into buckets already.
    fn write_histograms(&self, page: &mut String, reports: &[Report]) {
        let mut queue = HistogramText::begin(
            QUEUE_SECONDS,
            "world",
            "From a job's admission to when it was last handed to a channel, or to its end where it never was",
        );
        for (index, world) in self.config.worlds.iter().enumerate() {
            queue.write(&world.name, &merged(reports.iter().map(|report| &report.worlds[index].stats.queue_time)));
        }
        let mut machine_time =
            HistogramText::begin(MACHINE_SECONDS, "machine", "From when a job was handed to a channel to its reply");
        for (index, machine) in self.config.machines.iter().enumerate() {
            let of_machine = reports.iter().map(|report| &report.machines[index].machine_time);
            machine_time.write(&machine.name, &merged(of_machine));
        }
        page.push_str(&queue.end());
        page.push_str(&machine_time.end());
    }

    fn publish(&self, reports: &[Report]) {
        gauge!("seeway_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        gauge!("seeway_shards").set(number(reports.len()));
        let sum = |of: fn(&Report) -> usize| number(reports.iter().map(of).sum());
        gauge!("seeway_callers", "listener" => "hardserver").set(sum(|report| report.legacy_callers));
        gauge!("seeway_callers", "listener" => "grpc").set(sum(|report| report.grpc_callers));
        gauge!("seeway_jobs").set(sum(|report| report.jobs));
        gauge!("seeway_tasks").set(sum(|report| report.tasks));
        gauge!("seeway_pipes").set(number(self.config.limits.pipes - self.pipes.available_permits()));
        counter!("seeway_callers_refused_total").absolute(self.refused.count());
        counter!("seeway_rejected_total").absolute(reports.iter().map(|report| report.rejected).sum());
        gauge!("seeway_upstream_hardserver_connections").set(sum(|report| report.hardserver_connections));
        Self::publish_passed(reports);
        self.publish_limits();
        for index in 0..self.config.worlds.len() {
            self.publish_world(index, reports);
        }
        for index in 0..self.config.machines.len() {
            self.publish_machine(index, reports);
        }
    }

    fn publish_passed(reports: &[Report]) {
        let mut passed = Passed::default();
        for report in reports {
            passed += report.passed;
        }
        for (outcome, count) in
            [("replied", passed.replied), ("not_sent", passed.not_sent), ("unknown", passed.unknown)]
        {
            counter!("seeway_upstream_hardserver_commands_total", "outcome" => outcome).absolute(count);
        }
    }

    fn publish_limits(&self) {
        let limits = &self.config.limits;
        for (name, limit) in [
            ("max_job_bytes", limits.max_job_bytes as usize),
            ("queue", limits.queue),
            ("callers", limits.callers),
            ("caller_jobs", limits.caller_jobs),
            ("caller_buffer_bytes", limits.caller_buffer_bytes),
            ("channel_buffer_bytes", limits.channel_buffer_bytes),
            ("pipes", limits.pipes),
        ] {
            gauge!("seeway_limit", "limit" => name).set(number(limit));
        }
    }

    fn publish_world(&self, index: usize, reports: &[Report]) {
        let name = self.config.worlds[index].name.clone();
        let of_world = || reports.iter().map(|report| &report.worlds[index]);
        let ready = of_world().any(|world| world.is_ready);
        gauge!("seeway_world_ready", "world" => name.clone()).set(f64::from(u8::from(ready)));
        gauge!("seeway_jobs_queued", "world" => name.clone()).set(number(of_world().map(|world| world.queued).sum()));
        for kind in OutcomeKind::ALL {
            counter!("seeway_jobs_total", "world" => name.clone(), "outcome" => kind.label())
                .absolute(of_world().map(|world| world.stats.outcomes(kind)).sum());
        }
        counter!("seeway_retries_total", "world" => name.clone())
            .absolute(of_world().map(|world| world.stats.retries).sum());
    }

    fn publish_machine(&self, index: usize, reports: &[Report]) {
        let machine = &self.config.machines[index];
        let name = machine.name.clone();
        let of_machine = || reports.iter().map(|report| &report.machines[index]);
        gauge!("seeway_jobs_in_flight", "machine" => name.clone())
            .set(number(of_machine().map(|machine| machine.in_flight).sum()));
        gauge!("seeway_max_in_flight", "machine" => name.clone()).set(number(machine.max_in_flight));
        gauge!("seeway_channels", "machine" => name.clone())
            .set(number(of_machine().map(|machine| machine.channels).sum()));
        for (place, state) in TunnelState::ALL.into_iter().enumerate() {
            gauge!("seeway_tunnels", "machine" => name.clone(), "state" => state.label())
                .set(number(of_machine().map(|machine| machine.tunnels[place]).sum()));
        }
        counter!("seeway_connects_failed_total", "machine" => name.clone())
            .absolute(of_machine().map(|machine| machine.failed_connects).sum());
        counter!("seeway_late_replies_total", "machine" => name.clone())
            .absolute(of_machine().map(|machine| machine.late_replies).sum());
    }
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

fn describe() {
    use metrics::{describe_counter, describe_gauge};
    describe_gauge!("seeway_build_info", "Always 1; its label is the gateway's version");
    describe_gauge!("seeway_shards", "Threads of the data plane");
    describe_gauge!(
        "seeway_callers",
        "Callers: connections at the hardserver front end, connections and streams at gRPC's"
    );
    describe_gauge!("seeway_jobs", "Jobs in hand: queued, or sent and waited for");
    describe_gauge!("seeway_tasks", "Tasks on the shards");
    describe_gauge!("seeway_pipes", "Pipes that are open");
    describe_gauge!("seeway_upstream_hardserver_connections", "Connections to the hardserver behind this one");
    describe_gauge!("seeway_limit", "What the configuration limits, by the name of its key in [limits]");
    describe_gauge!("seeway_world_ready", "Whether the world can take a job now");
    describe_gauge!("seeway_jobs_queued", "Jobs that wait");
    describe_gauge!("seeway_jobs_in_flight", "Jobs sent and unanswered, waited for or not");
    describe_gauge!("seeway_max_in_flight", "The machine's max_in_flight");
    describe_gauge!("seeway_channels", "SEEJob streams that are up");
    describe_gauge!("seeway_tunnels", "Tunnels, by what their keepers are doing");
    describe_counter!("seeway_callers_refused_total", "Connections closed at once because of limits.callers");
    describe_counter!("seeway_rejected_total", "Requests that never became a job: no such world, or they do not parse");
    describe_counter!(
        "seeway_upstream_hardserver_commands_total",
        "Commands that were passed on to the hardserver and ended, by what became of them"
    );
    describe_counter!("seeway_jobs_total", "Jobs that ended, by what became of them");
    describe_counter!("seeway_retries_total", "Idempotent jobs sent again after an unknown outcome");
    describe_counter!("seeway_connects_failed_total", "Tunnels that could not be made");
    describe_counter!("seeway_late_replies_total", "Replies that nobody waited for any more");
}
