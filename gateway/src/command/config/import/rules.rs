//! What is known of a hardserver's fields: what each becomes in `seeway.toml`, or why nothing. For `takeover`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::hardserver::{Field, File};

/// Where SSH servers listen mostly; the hardserver's file does not say where the machine's does.
const SSH_PORT: u16 = 22;

/// Where an HSM is, by `[nethsm_imports]`.
pub(super) struct Address {
    /// As `machine.address` has it.
    pub(super) written: String,
    /// The `remote_ip`.
    pub(super) field: Field,
}

/// The addresses of HSMs by their serial numbers, without hyphens and in capitals. What is no address is left out.
pub(super) fn addresses(file: &File) -> BTreeMap<String, Address> {
    let mut found = BTreeMap::new();
    for entry in file.entries("nethsm_imports") {
        let (Some(esn), Some(field)) = (entry.value("remote_esn"), entry.field("remote_ip")) else { continue };
        let written = match field.value.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => format!("{ip}:{SSH_PORT}"),
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{SSH_PORT}"),
            Err(_) => continue,
        };
        found.entry(plain(esn)).or_insert(Address { written, field: field.clone() });
    }
    found
}

/// A serial number as it is compared.
pub(super) fn plain(esn: &str) -> String {
    esn.chars().filter(|letter| *letter != '-').map(|letter| letter.to_ascii_uppercase()).collect()
}

/// Where the hardserver listens for its clients.
pub(super) fn hardserver_of(file: &File) -> String {
    let startup = file.entries("server_startup").first();
    let path = startup.and_then(|entry| entry.value("unix_socket_name")).filter(|path| path.starts_with('/'));
    format!("unix:{}", path.unwrap_or("/opt/nfast/sockets/nserver"))
}

/// Whether a letter may stand in the name of a world.
pub(super) fn is_for_names(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "._-/:@+".contains(letter)
}

/// A text as TOML's basic string. What comes from the hardserver's file is printable ASCII and tabs.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\t', "\\t"))
}

/// What a field of `[server_settings]` becomes: table, key, the least value, and what to know of it.
pub(super) fn setting(field: &str) -> Option<(&'static str, &'static str, u64, &'static str)> {
    Some(match field {
        "connect_retry" => (
            "ssh",
            "retry_max",
            1,
            "the longest wait between two tries: the first is ssh.connect_retry (200 ms), each next one twice as long",
        ),
        "connect_keepidle" => ("ssh", "keepalive_idle", 1, ""),
        "connect_keepalive" => ("ssh", "keepalive", 1, ""),
        "connect_broken" => ("ssh", "broken_after", 1, ""),
        "connect_command_block" => ("limits", "hold", 0, ""),
        "connect_maxqueue" => ("limits", "queue", 1, "for each world"),
        _ => return None,
    })
}

/// The same name, for as long as the program runs.
pub(super) fn setting_name(field: &str) -> &'static str {
    const NAMES: [&str; 6] = [
        "connect_retry",
        "connect_keepidle",
        "connect_keepalive",
        "connect_broken",
        "connect_command_block",
        "connect_maxqueue",
    ];
    NAMES.into_iter().find(|name| *name == field).unwrap_or_default()
}

/// Why a field of `[server_settings]` is not taken over.
pub(super) fn why_no_setting(field: &str) -> &'static str {
    match field {
        "loglevel" | "logdetail" => "Seeway's log lines are chosen with SEEWAY_LOG",
        "accept_keepidle" | "accept_keepalive" => "is about the hardserver's own clients",
        _ => "is the hardserver's own",
    }
}

/// Why nothing of a section is taken over.
pub(super) fn why_not(section: &str) -> &'static str {
    match section {
        "load_seemachine" => "is about HSMs before CodeSafe 5, which Seeway does not reach",
        "server_startup" => "is where the hardserver listens: it stays there, and Seeway listens elsewhere ([listen])",
        "server_remotecomms" | "server_remotecomms_ipv6" => "is where the hardserver takes connections from HSMs",
        "module_settings" => "is the hardserver's choice among modules; Seeway spreads jobs by load",
        "auditlog_settings" => "is the HSM's audit log; Seeway's own is [audit]",
        _ => "is the hardserver's own section",
    }
}
