//! The operator's view, and the operator's hand: `/metrics`, `/healthz`, `/readyz`, and reload, drain and resume; on a listener
//! and a thread of their own, so that no dashboard ever delays a job.

mod answer;
mod board;
pub mod catalogue;
mod console;
mod control;
mod events;
mod guard;
mod histogram;
mod log;
mod metrics;
mod percentiles;
mod process;
mod rates;
mod sampler;
mod seen;
mod server;
pub mod state;

pub use board::Board;
pub use control::{Control, DrainError, Draining, Parts, ReloadError};
pub use process::ProcessFiles;
#[cfg(test)]
pub(crate) use server::MAX_CONNECTIONS;
pub use server::{Listener, serve};
