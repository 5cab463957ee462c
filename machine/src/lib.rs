//! The CodeSafe side of Seeway: what runs inside a machine, and an HSM to run machines in where there is none.
//!
//! - [`runtime`] takes SEEJobs from byte streams, hands them to an [`Application`](runtime::Application), and sends the
//!   replies back, in whatever order they are ready. Developers of CodeSafe applications write against it.
//! - [`apps`] are small real applications: they sign, count, echo, are slow or fail, for demonstrations and tests.
//! - [`hsm`] is an emulated HSM: an SSH server in front of machines, as a CodeSafe 5 HSM has one.
//!
//! The gateway knows nothing of this crate but for its `demo` and `emulate` commands.
#![forbid(unsafe_code)]

mod accept;
pub mod apps;
pub mod hsm;
pub mod runtime;
