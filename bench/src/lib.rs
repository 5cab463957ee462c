//! Load for a gateway, a machine or a plain tunnel, and what compares them.
//!
//! The binary `seeway-bench` is for people: [`load`] is its load generator, [`compare`] what measures the gateway against
//! other ways to the same machine. The tests use [`Load`] too, and the callers of [`wire`] and [`grpc`] to send jobs of their
//! own making. Both callers are built on nothing but the wire codec and the gRPC schema of `seeway-proto`: what they see of
//! the gateway is what a foreign client sees.
#![forbid(unsafe_code)]

pub mod compare;
pub mod family;
pub mod grpc;
pub mod load;
pub mod micro;
pub mod peer;
pub mod report;
pub mod target;
pub mod wire;

pub use load::{Load, Pace, Sizes, Until, Way};
pub use report::Report;
pub use target::Target;

/// Why a caller could not go on. A job that failed is not an error here but an answer.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// The connection to the target failed or ended.
    #[error("{target}: {source}")]
    Connection {
        /// Where the connection went.
        target: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The other end does not keep to the wire.
    #[error("{target} does not keep to the wire: {what}")]
    Protocol {
        /// Where the connection went.
        target: String,
        /// What it did.
        what: String,
    },
    /// The world is not published there.
    #[error("{target} does not know the world {world:?} (status {status}); see `published_as` in its configuration")]
    NoSuchWorld {
        /// Where the connection went.
        target: String,
        /// The name that was asked for.
        world: String,
        /// The status that came instead of a handle.
        status: u32,
    },
    /// No answer came for as long as the load was told to wait.
    #[error("{target} answers none of at least {outstanding} outstanding jobs")]
    Silent {
        /// Where the jobs went.
        target: String,
        /// Jobs without an answer, at least.
        outstanding: usize,
    },
    /// The load asks for what the way in can not do.
    #[error("{what}")]
    Misused {
        /// What it can do.
        what: String,
    },
    /// gRPC refused the connection or the stream.
    #[error("{target}: {status}")]
    Grpc {
        /// Where the connection went.
        target: String,
        /// What the other end said.
        status: Box<tonic::Status>,
    },
}
