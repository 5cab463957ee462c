//! A gateway's configuration file, put together piece by piece.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr};

use crate::{Door, Identity, Machine, Sshd};

/// One `seeway.toml`. It listens everywhere it can: gRPC, a Unix socket, TCP over IPv4 and IPv6, each on a port that the kernel chooses.
#[derive(Clone, Default)]
pub struct Config {
    machines: String,
    names: Vec<String>,
    worlds: String,
    permissions: String,
    has_tls_listener: bool,
    sections: BTreeMap<&'static str, Vec<String>>,
}

impl Config {
    /// Without machines or worlds yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The machines `hsm-a` and `hsm-b` of a [pair](Machine::pair), connected to anew soon when they are lost, and the world `payments` on
    /// both.
    pub fn of_pair([first, second]: &[Machine; 2], identity: &Identity) -> Self {
        Self::new()
            .machine("hsm-a", first.door(), first.seejobs(), identity, "")
            .machine("hsm-b", second.door(), second.seejobs(), identity, "")
            .world("payments", &["hsm-a", "hsm-b"], "")
            .line("ssh", "connect_retry = \"50ms\"\nretry_max = \"200ms\"")
    }

    /// One machine, `hsm`, behind an OpenSSH server, and a world on it.
    pub fn of_one(sshd: &Sshd, machine: &Machine, identity: &Identity, world: &str) -> Self {
        Self::new().machine("hsm", sshd.door(), machine.seejobs(), identity, "").world(world, &["hsm"], "")
    }

    /// A machine behind `door` that takes SEEJobs at `seejobs`, with further lines for its section.
    #[must_use]
    pub fn machine(self, name: &str, door: &Door, seejobs: SocketAddr, identity: &Identity, further: &str) -> Self {
        let host_key = &door.host_key;
        let further = format!("identity = \"{}\"\nhost_key = {host_key:?}\n{further}", identity.private().display());
        self.machine_with(name, door, seejobs, &further)
    }

    /// A machine of which all lines about keys, ours and the server's, are in `keys`.
    #[must_use]
    pub fn machine_with(mut self, name: &str, door: &Door, seejobs: SocketAddr, keys: &str) -> Self {
        let Door { address, user, .. } = door;
        let (host, port) = (seejobs.ip(), seejobs.port());
        write!(
            self.machines,
            "[[machine]]\nname = {name:?}\naddress = \"{address}\"\nuser = {user:?}\nseejobs_host = \"{host}\"\n\
             seejobs_port = {port}\n{keys}\n\n"
        )
        .expect("writing to a string can't fail");
        self.names.push(name.to_owned());
        self
    }

    /// The names of its machines.
    pub fn machines(&self) -> &[String] {
        &self.names
    }

    /// A world on these machines, with further lines for its section.
    #[must_use]
    pub fn world(mut self, name: &str, machines: &[&str], further: &str) -> Self {
        writeln!(self.worlds, "[[world]]\nname = {name:?}\nmachines = {machines:?}\n{further}\n")
            .expect("writing to a string can't fail");
        self
    }

    /// It listens for legacy callers over TLS as well; `[tls]` says with what certificate.
    #[must_use]
    pub fn tls_listener(mut self) -> Self {
        self.has_tls_listener = true;
        self
    }

    /// A rule with these lines.
    #[must_use]
    pub fn permission(mut self, lines: &str) -> Self {
        writeln!(self.permissions, "[[permission]]\n{lines}\n").expect("writing to a string can't fail");
        self
    }

    /// A line in one of the plain sections: `("limits", "hold = \"2s\"")`.
    #[must_use]
    pub fn line(mut self, section: &'static str, line: &str) -> Self {
        self.sections.entry(section).or_default().push(line.to_owned());
        self
    }

    /// The file's text. `socket` is the Unix socket's path.
    pub fn text(&self, socket: &str) -> String {
        let tls = if self.has_tls_listener { ", \"tls:127.0.0.1:0\"" } else { "" };
        let mut text = format!(
            "[listen]\ngrpc = \"127.0.0.1:0\"\nhardserver = [\"unix:{socket}\", \"tcp:127.0.0.1:0\", \"tcp:[::1]:0\"{tls}]\nadmin = \"127.0.0.1:0\"\n"
        );
        let listen = self.sections.get("listen").map(|lines| lines.join("\n")).unwrap_or_default();
        writeln!(text, "{listen}\n\n{}{}{}", self.machines, self.worlds, self.permissions)
            .expect("writing to a string can't fail");
        for (section, lines) in self.sections.iter().filter(|(section, _)| **section != "listen") {
            writeln!(text, "[{section}]\n{}\n", lines.join("\n")).expect("writing to a string can't fail");
        }
        text
    }
}
