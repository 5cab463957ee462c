//! The operator's view: `/metrics`, `/healthz` and `/readyz`, on a listener and a thread of their own, so that no dashboard
//! ever delays a job.

mod metrics;
mod server;

pub use metrics::Metrics;
pub use server::{Readiness, serve};
