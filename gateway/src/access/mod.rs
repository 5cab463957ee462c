//! Who a caller is, and what it may do.
//!
//! The front ends find out who connected ([`Identity`]); what that identity may do is decided by the configuration's rules.

mod identity;
pub mod token;

pub use identity::{Identity, Means};
