//! The standard health service: the gateway, the job service, and each world as `world/NAME`.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// The name under which the job service's health stands.
const JOB_SERVICE: &str = "seeway.v1.SeeJobService";

/// What is told to whoever asks for health, on any shard.
#[derive(Clone, Debug, Default)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// A service that knows of nothing yet.
    pub fn new() -> Self {
        Self { reporter: HealthReporter::new() }
    }

    /// Whether the gateway takes jobs.
    pub async fn set_gateway(&self, ready: bool) {
        self.set("", ready).await;
    }

    /// Whether a world can take a job.
    pub async fn set_world(&self, world: &str, ready: bool) {
        self.set(&format!("world/{world}"), ready).await;
    }

    /// Whether at least one world can take a job.
    pub async fn set_any_world(&self, ready: bool) {
        self.set(JOB_SERVICE, ready).await;
    }

    /// The configuration has the world no more.
    pub async fn remove_world(&self, world: &str) {
        self.reporter.clone().clear_service_status(&format!("world/{world}")).await;
    }

    pub(super) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    async fn set(&self, service: &str, is_serving: bool) {
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(service, status).await;
    }
}
