//! Says in time that a certificate ends with which machines are logged in to.

use std::time::{Duration, SystemTime};

use crate::config::Config;

/// How long before a certificate's end it is said at each start and reload. Whoever wants to know earlier watches the metric.
const IN_TIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Warns of each certificate that ends soon. Called when a gateway starts and when it has read its configuration again.
pub fn warn_of_ends(config: &Config) {
    let soon = SystemTime::now() + IN_TIME;
    for machine in config.live_machines() {
        if machine.identity.valid_before().is_some_and(|end| end < soon)
            && let Some(certificate) = machine.identity.certificate_text()
        {
            tracing::warn!(
                machine = machine.name,
                certificate,
                "the certificate ends soon: no tunnel is made after that"
            );
        }
    }
}
