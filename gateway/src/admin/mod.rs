//! The operator's view, and the operator's hand: `/metrics`, `/healthz`, `/readyz`, and reload, drain and resume; on a listener
//! and a thread of their own, so that no dashboard ever delays a job.

mod board;
pub mod catalogue;
mod control;
mod histogram;
mod log;
mod metrics;
mod process;
mod server;

pub use board::Board;
pub use control::{Control, DrainError, Draining, Parts, ReloadError};
pub use process::ProcessFiles;
#[cfg(test)]
pub(crate) use server::MAX_CONNECTIONS;
pub use server::{Listener, serve};
