//! The service's two methods that carry jobs, answered before anything else of a call is looked at; all other methods go on to
//! what tonic makes of the schema.
//!
//! tonic's own way for a method takes two buffers of 8 KiB, four boxes and a walk through a router for each call, decodes
//! into types that own what they hold, and encodes out of such types. Here a job is read where it stands, and its reply is sent
//! from where the shard wrote it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Instant;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use seeway_proto::v1::see_job_service_server::SeeJobServiceServer;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Routes;

use super::connection::Caller;
use super::messages::Messages;
use super::somebody::Somebody;
use super::{call, deadline, stream};
use crate::access::token::Tokens;
use crate::shard::Shard;
use crate::trace::Context;

const SUBMIT: &str = "/seeway.v1.SeeJobService/Submit";
const STREAM: &str = "/seeway.v1.SeeJobService/Stream";
const PIPE: &str = "/seeway.v1.SeeJobService/Pipe";

/// All services of one shard.
#[derive(Clone)]
pub(super) struct Direct {
    shard: Shard,
    tokens: Tokens,
    /// The largest message.
    limit: usize,
    pipes: SeeJobServiceServer<super::Service>,
    others: Routes,
    /// Whether spans are made of sampled jobs.
    traces: bool,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Direct {
    pub(super) fn new(
        shard: Shard,
        tokens: Tokens,
        limit: usize,
        pipes: SeeJobServiceServer<super::Service>,
        others: Routes,
    ) -> Self {
        let traces = shard.config().trace.is_some();
        Self { shard, tokens, limit, pipes, others, traces }
    }

    fn somebody(&self, request: &Request<Body>) -> Result<Somebody, Status> {
        Somebody::of(&self.shard, &self.tokens, request.headers(), request.extensions())
    }

    /// The trace that a call belongs to, where spans are made and its caller names one.
    fn context(&self, request: &Request<Body>) -> Option<Context> {
        if self.traces { Context::of(request.headers()) } else { None }
    }

    fn messages(&self, request: Request<Body>, caller: &Caller, deadline: Option<Instant>) -> Messages {
        let config = self.shard.config();
        let (most_held, timeout) = (config.limits.connection_buffer_bytes, config.limits.message_timeout);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(timeout, |left| left.min(timeout));
        Messages::new(request.into_body(), self.limit, caller.holding().clone(), most_held, timeout)
    }

    fn submit(&self, request: Request<Body>) -> Answer {
        let deadline = deadline::of_call(Instant::now(), request.headers());
        let shard = self.shard.clone();
        let (asked, context) = (self.somebody(&request), self.context(&request));
        let asked = asked.map(|somebody| (self.messages(request, somebody.caller(), deadline), somebody));
        Box::pin(async move {
            let answer = match asked {
                Ok((messages, somebody)) => call::submit(&shard, somebody, messages, deadline, context).await,
                Err(status) => Err(status),
            };
            Ok(match answer {
                Ok(answer) => response(answer.into_body()),
                Err(status) => status.into_http(),
            })
        })
    }

    fn stream(&self, request: Request<Body>) -> Answer {
        let deadline = deadline::of_call(Instant::now(), request.headers());
        let context = self.context(&request);
        let response = match self.somebody(&request) {
            Ok(somebody) => {
                let messages = self.messages(request, somebody.caller(), None);
                response(Body::new(stream::Answering::start(&self.shard, messages, &somebody, deadline, context)))
            }
            Err(status) => status.into_http(),
        };
        Box::pin(std::future::ready(Ok(response)))
    }
}

impl Service<Request<Body>> for Direct {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.others, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let path = request.uri().path();
        if path == PIPE {
            return Box::pin(self.pipes.call(request));
        }
        if path != SUBMIT && path != STREAM {
            return Box::pin(self.others.call(request));
        }
        if let Some(status) = unknown_encoding(request.headers()) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        if path == SUBMIT { self.submit(request) } else { self.stream(request) }
    }
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Why a call's messages can not be read; `None` where they can.
fn unknown_encoding(headers: &HeaderMap) -> Option<Status> {
    let encoding = headers.get("grpc-encoding")?;
    let is_plain = encoding.as_bytes() == b"identity";
    (!is_plain).then(|| Status::unimplemented("messages are taken uncompressed only"))
}
