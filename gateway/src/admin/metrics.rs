//! What the shards counted, as Prometheus has it. Nothing is summed up before somebody asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};
use seeway_proto::outcome::OutcomeKind;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::listen::accept::Refused;
use crate::schedule::Histogram;
use crate::shard::{Report, TunnelState};

const QUEUE_SECONDS: &str = "seeway_queue_seconds";
const MACHINE_SECONDS: &str = "seeway_machine_seconds";

/// The gateway's metrics.
pub struct Metrics {
    config: Arc<Config>,
    recorder: PrometheusRecorder,
    refused: Arc<Refused>,
    pipes: Arc<Semaphore>,
    /// What has been handed to the recorder of each histogram, since it takes only what is new.
    recorded: Mutex<HashMap<String, [u64; Histogram::BUCKETS]>>,
}

impl Metrics {
    /// Metrics with nothing counted.
    pub fn new(config: Arc<Config>, refused: Arc<Refused>, pipes: Arc<Semaphore>) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(QUEUE_SECONDS.into()), &Histogram::bounds())?
            .set_buckets_for_metric(Matcher::Full(MACHINE_SECONDS.into()), &Histogram::bounds())?
            .build_recorder();
        let metrics = Self { config, recorder, refused, pipes, recorded: Mutex::default() };
        with_local_recorder(&metrics.recorder, describe);
        Ok(metrics)
    }

    /// The text that Prometheus reads, of what the shards report now.
    pub fn render(&self, reports: &[Report]) -> String {
        with_local_recorder(&self.recorder, || self.publish(reports));
        let handle = self.recorder.handle();
        handle.run_upkeep();
        handle.render()
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
        self.publish_limits();
        for index in 0..self.config.worlds.len() {
            self.publish_world(index, reports);
        }
        for index in 0..self.config.machines.len() {
            self.publish_machine(index, reports);
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
        let histogram = histogram!(QUEUE_SECONDS, "world" => name.clone());
        self.record(&histogram, format!("world {name}"), of_world().map(|world| &world.stats.queue_time));
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
        let histogram = histogram!(MACHINE_SECONDS, "machine" => name.clone());
        self.record(&histogram, format!("machine {name}"), of_machine().map(|machine| &machine.machine_time));
    }

    /// Records what is new, each bucket's durations as its upper bound, so that the recorder's buckets come out the same.
    fn record<'a>(&self, histogram: &metrics::Histogram, key: String, shards: impl IntoIterator<Item = &'a Histogram>) {
        let shards: Vec<_> = shards.into_iter().collect();
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded = recorded.entry(key).or_insert([0; Histogram::BUCKETS]);
        let bounds = Histogram::bounds();
        for (bucket, recorded) in recorded.iter_mut().enumerate() {
            let count: u64 = shards.iter().map(|shard| shard.counts()[bucket]).sum();
            let new = count.saturating_sub(*recorded);
            let value = bounds.get(bucket).copied().unwrap_or(bounds[bounds.len() - 1] * 2.0);
            histogram.record_many(value, usize::try_from(new).unwrap_or(usize::MAX));
            *recorded = count;
        }
    }
}

/// Counts are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn number(count: usize) -> f64 {
    count as f64
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("seeway_build_info", "Always 1; its label is the gateway's version");
    describe_gauge!("seeway_shards", "Threads of the data plane");
    describe_gauge!(
        "seeway_callers",
        "Callers: connections at the hardserver front end, connections and streams at gRPC's"
    );
    describe_gauge!("seeway_jobs", "Jobs in hand: queued, or sent and waited for");
    describe_gauge!("seeway_tasks", "Tasks on the shards");
    describe_gauge!("seeway_pipes", "Pipes that are open");
    describe_gauge!("seeway_limit", "What the configuration limits, by the name of its key in [limits]");
    describe_gauge!("seeway_world_ready", "Whether the world can take a job now");
    describe_gauge!("seeway_jobs_queued", "Jobs that wait");
    describe_gauge!("seeway_jobs_in_flight", "Jobs sent and unanswered, waited for or not");
    describe_gauge!("seeway_max_in_flight", "The machine's max_in_flight");
    describe_gauge!("seeway_channels", "SEEJob streams that are up");
    describe_gauge!("seeway_tunnels", "Tunnels, by what their keepers are doing");
    describe_counter!("seeway_callers_refused_total", "Connections closed at once because of limits.callers");
    describe_counter!("seeway_rejected_total", "Requests that never became a job: no such world, or they do not parse");
    describe_counter!("seeway_jobs_total", "Jobs that ended, by what became of them");
    describe_counter!("seeway_retries_total", "Idempotent jobs sent again after an unknown outcome");
    describe_counter!("seeway_connects_failed_total", "Tunnels that could not be made");
    describe_counter!("seeway_late_replies_total", "Replies that nobody waited for any more");
    describe_histogram!(QUEUE_SECONDS, "From a job's admission to when it was handed to a channel, or to its end");
    describe_histogram!(MACHINE_SECONDS, "From when a job was handed to a channel to its reply");
}
