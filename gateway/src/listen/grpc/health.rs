//! The standard health service: the gateway, the job service, and each world as `world/NAME`.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// The name under which the job service's health stands.
const JOB_SERVICE: &str = "seeway.v1.SeeJobService";

/// What is told to whoever asks for health, on any shard.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// The gateway is up; no world can take a job yet.
    pub async fn new(worlds: impl IntoIterator<Item = &str>) -> Self {
        let health = Self { reporter: HealthReporter::new() };
        health.set("", true).await;
        health.set(JOB_SERVICE, false).await;
        for world in worlds {
            health.set_world(world, false).await;
        }
        health
    }

    /// Whether a world can take a job.
    pub async fn set_world(&self, world: &str, ready: bool) {
        self.set(&format!("world/{world}"), ready).await;
    }

    /// Whether at least one world can take a job.
    pub async fn set_any_world(&self, ready: bool) {
        self.set(JOB_SERVICE, ready).await;
    }

    /// The gateway takes no more jobs.
    pub async fn set_draining(&self) {
        self.set("", false).await;
    }

    pub(super) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    async fn set(&self, service: &str, is_serving: bool) {
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(service, status).await;
    }
}
