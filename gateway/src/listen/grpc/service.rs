//! The job service's methods that carry no jobs; [`super::direct`] has the others. Each is a few lines here.

use std::pin::Pin;
use std::sync::Arc;

use seeway_proto::v1::see_job_service_server::SeeJobService;
use seeway_proto::v1::{
    ListWorldsRequest, ListWorldsResponse, PipeRequest, PipeResponse, StreamRequest, StreamResponse, SubmitRequest,
    SubmitResponse, World,
};
use tokio_stream::{Empty, Stream};
use tonic::{Request, Response, Status, Streaming};

use super::limits::Pipes;
use super::pipe;
use super::somebody::Somebody;
use crate::access::token::Tokens;
use crate::schedule::WorldId;
use crate::shard::Shard;

/// The job service on one shard.
#[derive(Clone)]
pub(super) struct Service {
    shard: Shard,
    pipes: Arc<Pipes>,
    tokens: Tokens,
}

impl Service {
    pub(super) fn new(shard: Shard, pipes: Arc<Pipes>, tokens: Tokens) -> Self {
        Self { shard, pipes, tokens }
    }

    fn somebody<T>(&self, request: &Request<T>) -> Result<Somebody, Status> {
        Somebody::of(&self.shard, &self.tokens, request.metadata().as_ref(), request.extensions())
    }
}

#[tonic::async_trait]
impl SeeJobService for Service {
    async fn submit(&self, _: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        Err(answered_before())
    }

    type StreamStream = Empty<Result<StreamResponse, Status>>;

    async fn stream(&self, _: Request<Streaming<StreamRequest>>) -> Result<Response<Self::StreamStream>, Status> {
        Err(answered_before())
    }

    type PipeStream = Pin<Box<dyn Stream<Item = Result<PipeResponse, Status>> + Send>>;

    async fn pipe(&self, request: Request<Streaming<PipeRequest>>) -> Result<Response<Self::PipeStream>, Status> {
        let piped = {
            let somebody = self.somebody(&request)?;
            pipe::open(&self.shard, somebody, request.into_inner(), self.pipes.clone()).await?
        };
        Ok(Response::new(Box::pin(piped)))
    }

    async fn list_worlds(&self, request: Request<ListWorldsRequest>) -> Result<Response<ListWorldsResponse>, Status> {
        let config = self.shard.config();
        let somebody = self.somebody(&request)?;
        let mut worlds: Vec<World> = self.shard.with(|state, now| {
            let standing = somebody.standing(state, now);
            let world = |(index, world): (usize, &crate::config::World)| World {
                name: world.name.clone(),
                published_as: world.published_as.clone(),
                ready: state.scheduler.is_ready(WorldId(index)),
                machines: world.machines.iter().map(|machine| config.machines[*machine].name.clone()).collect(),
                max_job_bytes: config.limits.max_job_bytes,
            };
            let all = config.worlds.iter().enumerate();
            all.filter(|(index, world)| !world.is_retired && standing.may_see(WorldId(*index))).map(world).collect()
        });
        worlds.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Response::new(ListWorldsResponse { worlds }))
    }
}

/// What [`super::direct`] answers does not come here.
fn answered_before() -> Status {
    Status::internal("the call has missed its way")
}
