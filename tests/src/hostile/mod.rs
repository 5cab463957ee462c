//! Attackers, what they cost the gateway, and what its other callers notice. Used by `tests/tests/hostile`.
//!
//! An attack is a task that keeps to a rate: the machine that the tests run on has few cores, and an attacker without a rate would
//! only show that it can take them.

pub mod cost;
pub mod http2;
pub mod pace;
pub mod scene;
pub mod ssh;
pub mod victim;

pub use pace::Pace;
pub use scene::{Assault, Figures, Scene, Tally};
