//! The files that a command which speaks TLS is given.

use std::path::PathBuf;

/// What TLS needs.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct TlsFiles {
    /// The file of the authorities that the gateway's certificate comes by, in PEM form (TLS)
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// The file of the certificate to show, in PEM form (TLS)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(super) certificate: Option<PathBuf>,
    /// The file of its private key, in PEM form (TLS)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub(super) key: Option<PathBuf>,
}
