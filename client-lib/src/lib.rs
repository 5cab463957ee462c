//! Sends SEEJobs.
//!
//! | to | with | feature |
//! | --- | --- | --- |
//! | one machine, through its SSH server | `direct` | `direct` |
//! | a hardserver's socket | `hardserver` | `hardserver` |
//! | a Seeway gateway, over gRPC | `grpc` | `grpc` |
//!
//! The first two speak the same wire, which `stream` drives; `direct` reaches the machine through a `tunnel`, which is
//! also what the gateway's own pools are made of. Someone who only wants gRPC builds no SSH:
//! `default-features = false, features = ["grpc"]`.
//!
//! Whatever the way, a job comes to a [`Reply`] or a [`JobError`], and the error says whether the job may have run.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))] // In a test it is an assertion.

#[cfg(any(feature = "stream", feature = "grpc"))]
mod deadline;
#[cfg(feature = "direct")]
pub mod direct;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "hardserver")]
pub mod hardserver;
#[cfg(any(feature = "stream", feature = "grpc"))]
mod job;
#[cfg(feature = "stream")]
pub mod stream;
#[cfg(feature = "tunnel")]
pub mod tunnel;

#[cfg(any(feature = "stream", feature = "grpc"))]
pub use job::{JobError, JobErrorKind, Reply};
