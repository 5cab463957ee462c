//! Who a caller is, and how it showed that.

use std::fmt;
use std::sync::Arc;

/// Who a caller is. Cheap to clone; made once for a connection, or for a token that is sent with a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    name: Arc<str>,
    groups: Arc<[String]>,
    means: Means,
}

/// How a caller showed who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Means {
    /// Not at all.
    Anonymous,
    /// By a TLS client certificate: its SPIFFE ID, else its first DNS or URI name, else its common name.
    Certificate,
    /// By a signed token: its subject.
    Token,
    /// The kernel said which user has the other end of a Unix socket: the user's name, or its number where it has none.
    UnixUser,
}

impl Identity {
    /// The name of a caller that did not show who it is.
    pub const ANONYMOUS: &str = "anonymous";

    /// A caller that showed who it is by `means`, and the groups that it is in.
    pub fn new(name: &str, groups: Vec<String>, means: Means) -> Self {
        Self { name: name.into(), groups: groups.into(), means }
    }

    /// A caller that did not show who it is.
    pub fn anonymous() -> Self {
        Self::new(Self::ANONYMOUS, Vec::new(), Means::Anonymous)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The groups that it is in: a Unix user's, or those that a token names.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// How it showed who it is.
    pub fn means(&self) -> Means {
        self.means
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}
