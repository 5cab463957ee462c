//! Where TLS is spoken: one [`Terminator`] for each listener that speaks it.

use std::sync::Arc;

use crate::config::{Config, HardserverAddress, Tls, TlsFileError};
use crate::listen::tls::{Terminator, TlsCounts};

/// TLS, where it is spoken.
#[derive(Clone, Default)]
pub struct Terminators {
    /// For gRPC.
    pub grpc: Option<Arc<Terminator>>,
    /// For the hardserver wire.
    pub hardserver: Option<Arc<Terminator>>,
    /// For `listen.management`.
    pub management: Option<Arc<Terminator>>,
}

impl Terminators {
    pub(super) fn new(config: &Config) -> Result<Self, TlsFileError> {
        let new = |listener, tls: Option<&Tls>, protocols| {
            tls.map(|tls| Terminator::new(listener, tls, protocols)).transpose()
        };
        let is_tls = |address: &HardserverAddress| matches!(address, HardserverAddress::Tls(_));
        let of_hardserver = config.tls.as_ref().filter(|_| config.listen.hardserver.iter().any(is_tls));
        Ok(Self {
            grpc: new("grpc", config.tls.as_ref().filter(|_| config.listen.grpc.is_some()), &[b"h2"])?,
            hardserver: new("hardserver", of_hardserver, &[])?,
            management: new("management", config.management_tls.as_ref(), &[b"http/1.1"])?,
        })
    }

    /// Each that there is.
    pub fn all(&self) -> impl Iterator<Item = Arc<Terminator>> + use<> {
        [&self.grpc, &self.hardserver, &self.management].map(Clone::clone).into_iter().flatten()
    }

    /// How handshakes and reloads went, by listener; nothing where no TLS is spoken.
    pub fn counts(&self) -> [(&'static str, TlsCounts); 3] {
        let counts = |terminator: &Option<Arc<Terminator>>| {
            terminator.as_ref().map(|terminator| terminator.counts()).unwrap_or_default()
        };
        [
            ("grpc", counts(&self.grpc)),
            ("hardserver", counts(&self.hardserver)),
            ("management", counts(&self.management)),
        ]
    }

    /// How much of `handshakes` is used where most of it is, 0 to 1; 0 where no TLS is spoken.
    pub fn used(&self) -> f64 {
        self.all().map(|terminator| terminator.used()).fold(0.0, f64::max)
    }

    /// Goes by another configuration, which has TLS where this one has it.
    pub fn reload(&self, config: &Config) {
        for (terminator, tls) in
            [(&self.grpc, &config.tls), (&self.hardserver, &config.tls), (&self.management, &config.management_tls)]
        {
            if let (Some(terminator), Some(tls)) = (terminator, tls) {
                terminator.reload(tls);
            }
        }
    }
}
