//! What Seeway speaks: SEEJob messages and their framing ([`wire`]), many jobs on one byte stream ([`mux`]), what can
//! become of a job ([`outcome`]), and the gRPC schema ([`v1`], with the feature `grpc`; [`grpc`] for the path of a job).
//!
//! There is no I/O here, no task and no clock: callers hand in bytes and get bytes back. So the same code runs in the
//! gateway, in the client library, in the emulated HSM, and in tests that never open a socket.
#![forbid(unsafe_code)]
// A job's way is inlined where it is gone, though the compiler finds its pieces too large: each has one caller that counts, and the
// instructions of all together are held on to (`bench/instructions.json`).
#![allow(clippy::inline_always)]

pub mod bug;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod mux;
pub mod outcome;
#[cfg(feature = "grpc")]
pub mod v1;
pub mod wiped;
pub mod wire;
