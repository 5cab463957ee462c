//! Sends SEEJobs.
//!
//! | to | with | feature |
//! | --- | --- | --- |
//! | one machine, through its SSH server | `direct` | `direct` |
//! | a hardserver's socket | `hardserver` | `hardserver` |
//! | a Seeway gateway, over gRPC | `grpc` | `grpc` |
//!
//! The first two speak the same wire, which [`stream`] drives; `direct` reaches the machine through a [`tunnel`], which is
//! also what the gateway's own pools are made of. Someone who only wants gRPC builds no SSH:
//! `default-features = false, features = ["grpc"]`.

#![forbid(unsafe_code)]

#[cfg(feature = "tunnel")]
pub mod tunnel;
