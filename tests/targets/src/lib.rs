//! What the fuzz targets do with bytes from outside.
//!
//! Each target is a function that takes any bytes and panics where something holds no more that must hold for all of them. A
//! fuzzer calls it through `tests/fuzz`; the test `corpus` calls it with every seed and with everything that a fuzzer ever found, so that
//! what was found stays found with an ordinary compiler. The seeds are made here too ([`seeds`]), from real messages wherever
//! there are any.
#![forbid(unsafe_code)]
// A model of a scheduler begins its clock somewhere.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod audit;
pub mod certificate;
pub mod configuration;
pub mod grpc;
pub mod mux;
pub mod permissions;
pub mod profile;
pub mod scheduler;
mod script;
pub mod seeds;
pub mod token;
pub mod wire;

pub use script::Script;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line, and the folder of its seeds.
    pub name: &'static str,
    /// Takes any bytes; panics where a promise is broken.
    pub run: fn(&[u8]),
    /// What a fuzzer begins with, by name.
    pub seeds: fn() -> seeds::Seeds,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "audit", run: audit::run, seeds: audit::seeds },
    Target { name: "certificate", run: certificate::run, seeds: certificate::seeds },
    Target { name: "configuration", run: configuration::run, seeds: configuration::seeds },
    Target { name: "grpc", run: grpc::run, seeds: grpc::seeds },
    Target { name: "mux", run: mux::run, seeds: mux::seeds },
    Target { name: "permissions", run: permissions::run, seeds: permissions::seeds },
    Target { name: "profile", run: profile::run, seeds: profile::seeds },
    Target { name: "scheduler", run: scheduler::run, seeds: scheduler::seeds },
    Target { name: "token", run: token::run, seeds: token::seeds },
    Target { name: "wire", run: wire::run, seeds: wire::seeds },
];
