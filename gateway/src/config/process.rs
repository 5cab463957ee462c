//! `[process]`: what the gateway's process takes away from itself.

use std::collections::BTreeSet;

use super::build::Build;
use super::document::Section;
use super::files;
use super::kind::Wrong;
use super::token::Token;
use super::value::{HardserverAddress, Listen, Machine};
use crate::access::token::KeySource;
use crate::trace;

/// `[process]`: what the process takes away from itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// `process.sandbox`: files, ports and system calls.
    pub sandbox: Policy,
    /// `process.lock_memory`: swap space.
    pub lock_memory: Policy,
    /// `process.user`: whom it becomes when it listens; `None`: it stays who it is.
    pub user: Option<User>,
    /// `process.connect_ports`: the only TCP ports that it connects to, besides that of name servers; `None`: any.
    pub connect_ports: Option<Vec<u16>>,
}

/// How much something is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The gateway does not start without it.
    Require,
    /// Where it can be had.
    Prefer,
    /// Not.
    Off,
}

/// A user of this computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As the configuration has it.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its own group.
    pub gid: u32,
}

fn policy(text: &str) -> Result<Policy, Wrong> {
    match text {
        "require" => Ok(Policy::Require),
        "prefer" => Ok(Policy::Prefer),
        "off" => Ok(Policy::Off),
        _ => Err(Wrong::new(format!("`{text}` is none of its values"), "write \"require\", \"prefer\" or \"off\"")),
    }
}

/// Parts of the configuration that connect somewhere, where they are there.
pub(super) struct PortsOf<'c> {
    pub(super) token: Option<&'c Token>,
    pub(super) trace: Option<&'c trace::Settings>,
}

impl Build<'_> {
    /// The other parts are looked at for the ports that they need; `None` where something is wrong with them.
    pub(super) fn process(
        &mut self,
        section: &Section,
        machines: Option<&[Machine]>,
        listen: Option<&Listen>,
        others: &PortsOf<'_>,
    ) -> Option<Process> {
        let sandbox = self.text(section, "sandbox", policy);
        let lock_memory = self.text(section, "lock_memory", policy);
        let user = match section.given("user") {
            Some(_) => self.text(section, "user", files::user).map(Some),
            None => Some(None),
        };
        let connect_ports = match section.given("connect_ports") {
            Some(_) => self.connect_ports(section, machines, listen, others).map(Some),
            None => Some(None),
        };
        Some(Process { sandbox: sandbox?, lock_memory: lock_memory?, user: user?, connect_ports: connect_ports? })
    }

    /// The ports; noted where one is missing that the configuration itself needs.
    fn connect_ports(
        &mut self,
        section: &Section,
        machines: Option<&[Machine]>,
        listen: Option<&Listen>,
        others: &PortsOf<'_>,
    ) -> Option<Vec<u16>> {
        let list = section.list("connect_ports")?;
        let mut ports = Vec::new();
        for text in list.value {
            let port = text.value.parse::<u16>().ok().filter(|port| *port != 0);
            let port = port.ok_or_else(|| {
                Wrong::new(format!("`{}` is not a port", text.value), "write ports from 1 to 65535, such as [\"22\"]")
            });
            ports.extend(self.noted(section, "connect_ports", &text.place, port));
        }
        if ports.len() < list.value.len() {
            return None;
        }
        let of_machines = machines.into_iter().flatten().map(|machine| machine.address.port);
        let of_hardserver = listen.and_then(|listen| match listen.upstream_hardserver.as_ref()? {
            HardserverAddress::Tcp(address) => Some(address.port()),
            HardserverAddress::Unix(_) | HardserverAddress::Tls(_) => None,
        });
        let of_keys = others.token.and_then(|token| match &token.keys {
            KeySource::Url(url) => {
                Some(url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 }))
            }
            KeySource::File(_) => None,
        });
        let of_trace = others.trace.map(|trace| trace.endpoint.port);
        let needed: BTreeSet<u16> = of_machines.chain(of_hardserver).chain(of_keys).chain(of_trace).collect();
        for port in needed.iter().filter(|port| !ports.contains(*port)) {
            let what = format!("lacks the port {port}, which this configuration connects to");
            self.gathered.add(&list.place, section.path("connect_ports"), what, format!("add \"{port}\""));
        }
        Some(ports)
    }
}
