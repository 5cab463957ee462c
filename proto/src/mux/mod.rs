//! Many jobs on one byte stream.
//!
//! [`Outgoing`] is the asking end: it gives out tags, keeps the table of what is in flight, and matches replies. The
//! gateway has one for each channel, the client library one for each connection. [`Incoming`] is the answering end: it
//! takes the other's tags, refuses duplicates and what does not parse, and writes the replies. The gateway has one for
//! each legacy caller, a machine's runtime one for each stream.
//!
//! Both are handed what was read and hand back what is to be written. Neither knows a socket or the time.

mod incoming;
mod outgoing;
mod tags;

pub use incoming::{Incoming, Received, UnknownCommands};
pub use outgoing::{Answer, Broken, Outgoing, Refused, Tag};
