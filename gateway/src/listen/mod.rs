//! The front ends. They turn bytes into jobs and outcomes into bytes; what becomes of a job is the scheduler's to decide.
//!
//! `accept` runs on the control plane and hands each connection to a shard; `hardserver` and `grpc` serve it there.

pub mod accept;
pub mod grpc;
pub mod hardserver;
pub mod inherited;
pub mod stream;
pub mod tls;
