//! Who a caller is, and what it may do: docs/design/access.md.
//!
//! The front ends find out who connected ([`Identity`]); what that identity may do is decided by the configuration's rules
//! ([`Rules`]), and looked up once for each caller ([`Standing`]).

pub mod certificate;
mod identity;
mod quota;
mod rules;
mod standing;
pub mod token;
mod users;
mod who;

pub use identity::{Identity, Means};
pub use quota::{Quota, QuotaSettings};
pub use rules::{Action, Allowed, Rule, Rules};
pub use standing::{Access, Standing, Standings, Submit};
pub use users::{Users, groups_of_user};
pub use who::Who;
