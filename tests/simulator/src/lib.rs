//! The gateway's real `wire`, `mux` and `schedule` code against simulated callers, networks, SSH servers and machines: one
//! thread, one seed, a clock of its own; no sockets, no sleeping.
//!
//! A seed draws a [`Setup`](setup::Setup) (topology, limits) and a [`Story`](story::Story) (load, faults). [`run()`] tells the
//! story and checks after every step that every [`Promise`](promise::Promise) holds. What breaks one can be told again by its
//! seed, and [`shrink`](shrink::shrink) makes it short. `docs/simulator.md` says how to use the program `simulate`.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc)]

mod act;
mod callers;
mod checks;
pub mod draw;
mod fairness;
pub mod ledger;
mod legacy;
pub mod log;
mod machines;
pub mod notes;
pub mod pipe;
pub mod promise;
mod rest;
pub mod run;
pub mod setup;
pub mod shrink;
pub mod simulation;
pub mod story;
mod upstream;

pub use run::{Options, run, run_story, try_seeds};
