//! The hardserver front end: legacy callers, and what they say.
//!
//! One task serves all connections of a shard ([`Callers`]). It learns from the system which of them have something to read, and takes
//! what these have, decodes every whole command in it and hands that to the scheduler, in one call of the shard for all of them. What
//! is answered in one of the shard's calls is written at the end of that call, in one write for each caller; only where a
//! socket takes no more is the rest written when it does.
//!
//! Where `listen.upstream_hardserver` is set, commands that are not Seeway's are passed on to that, by a task of the
//! connection's own (`pass`).

mod caller;
mod callers;
mod chores;
mod connection;
mod pass;
mod socket;
mod unsealed;

pub use caller::Socket;
pub use callers::{Callers, Poller};
pub use unsealed::unsealed;
