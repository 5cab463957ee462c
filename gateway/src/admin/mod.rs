//! The operator's view: `/metrics`, `/healthz` and `/readyz`, on a listener and a thread of their own, so that no dashboard
//! ever delays a job.

mod histogram;
mod metrics;
mod server;

pub use metrics::Metrics;
#[cfg(test)]
pub(crate) use server::MAX_CONNECTIONS;
pub use server::{Readiness, serve};
