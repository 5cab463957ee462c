//! The standard health service: the gateway, the job service, and each world as `world/NAME`.

use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService};

use super::somebody::Somebody;
use crate::access::token::Tokens;
use crate::shard::Shard;

/// What stands before a world's name.
const WORLD: &str = "world/";

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
        self.set(&format!("{WORLD}{world}"), ready).await;
    }

    /// Whether at least one world can take a job.
    pub async fn set_any_world(&self, ready: bool) {
        self.set(JOB_SERVICE, ready).await;
    }

    /// The configuration has the world no more.
    pub async fn remove_world(&self, world: &str) {
        self.reporter.clone().clear_service_status(&format!("{WORLD}{world}")).await;
    }

    /// The service on a shard. A world that somebody may not see is not there for them.
    pub(super) fn service(&self, shard: &Shard, tokens: Tokens) -> HealthServer<OnShard> {
        let service = HealthService::from_health_reporter(self.reporter.clone());
        let service = OnShard { shard: shard.clone(), tokens, service };
        HealthServer::new(service).max_decoding_message_size(super::SMALL_MESSAGE)
    }

    async fn set(&self, service: &str, is_serving: bool) {
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(service, status).await;
    }
}

/// The health service as a shard's callers see it.
pub(super) struct OnShard {
    shard: Shard,
    tokens: Tokens,
    service: HealthService,
}

impl OnShard {
    fn check_is_seen(&self, request: &Request<HealthCheckRequest>) -> Result<(), Status> {
        let Some(world) = request.get_ref().service.strip_prefix(WORLD) else { return Ok(()) };
        let somebody = Somebody::of(&self.shard, &self.tokens, request.metadata().as_ref(), request.extensions())?;
        let is_seen = self.shard.with(|state, now| {
            let standing = somebody.standing(state, now);
            state.front.world(&standing, world).is_some()
        });
        // In the words of the service itself.
        if is_seen { Ok(()) } else { Err(Status::not_found("service not registered")) }
    }
}

#[tonic::async_trait]
impl HealthApi for OnShard {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.check_is_seen(&request)?;
        self.service.check(request).await
    }

    type WatchStream = <HealthService as HealthApi>::WatchStream;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.check_is_seen(&request)?;
        self.service.watch(request).await
    }
}
