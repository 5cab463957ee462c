//! The SSH-tunnelled SEEJob transport gateway for CodeSafe 5: the parts that the binary `seeway` is made of.

// The I/O-free parts deny these again; see `clippy.toml`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod access;
mod admin;
pub mod audit;
pub mod command;
pub mod config;
mod credentials;
mod forward;
pub mod gateway;
mod handover;
pub mod harden;
mod listen;
mod log_filter;
mod places;
pub mod schedule;
mod seldom;
// For the micro-benchmarks, which go the same way as a job does.
pub mod shard;
mod trace;
mod upstream;

// For the tests of the book and of the page of metrics.
pub use admin::catalogue;
