//! The way to each machine, step by step, and what its SSH server is; `reach` goes it.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::net::lookup_host;

use super::super::reach::{self, BURST, Depth, Reached, Server, Stage};
use super::finding::Finding;
use crate::config::{Config, Machine};

/// The smallest packets that every IPv6 network carries, in bytes. A path with less is a mistake somewhere.
const LEAST_MTU: u32 = 1280;

/// How long a connection may take from which only the path's MTU is read.
const MTU_CONNECT: Duration = Duration::from_secs(2);

/// Tries every machine, all at once.
pub(super) async fn all(config: &Config) -> Vec<Finding> {
    let reached = reach::all(config, Depth::Burst).await;
    let mut findings = Vec::new();
    for (machine, reached) in config.machines.iter().zip(&reached) {
        findings.push(way(machine, reached));
        if let Some(server) = &reached.server {
            findings.push(algorithms(machine, server));
        }
        if let Some(burst) = &reached.burst {
            findings.push(full_packets(machine, burst, path_mtu(machine).await));
        }
    }
    findings
}

/// The first step that fails, or that all succeed.
fn way(machine: &Machine, reached: &Reached) -> Finding {
    let about = format!("{} {}", machine.name, machine.address);
    match &reached.failed {
        None => {
            let took = reached.took.as_millis();
            Finding::ok(
                "machine",
                about,
                format!("answers a NoOp; TCP, SSH, host key, login and port are right ({took} ms)"),
            )
        }
        Some((stage, why)) => Finding::failed(stage.name(), about, why, fix(*stage, machine, why)),
    }
}

/// What to do when a step fails.
fn fix(stage: Stage, machine: &Machine, why: &str) -> String {
    let Machine { address, user, seejobs_host, seejobs_port, .. } = machine;
    let (host, port) = (&address.host, address.port);
    match stage {
        Stage::Tcp if why.contains("resolve") => format!("see what `getent hosts {host}` says; correct the name, the name service or /etc/hosts"),
        Stage::Tcp if why.contains("refused") => {
            format!("on the server, see that it runs and at which port (ss -ltn); correct machine.address if that is not {port}")
        }
        Stage::Tcp if why.contains("no answer") => {
            format!("a firewall on the way drops it, or the host is off: have TCP port {port} to {host} opened")
        }
        Stage::Tcp => format!("see `ip route get {host}`; correct the address, or have a route made"),
        Stage::Ssh if why.contains("that the policy") => {
            "add one of the allowed to the server's sshd_config (KexAlgorithms, HostKeyAlgorithms, Ciphers, MACs); `seeway check --algorithms` \
             lists all"
                .to_owned()
        }
        Stage::Ssh if why.contains("longer than") => {
            "see that an SSH server listens there; if it does, large packets may be dropped on the way: compare the MTUs of both ends (ip link), \
             and try: sysctl net.ipv4.tcp_mtu_probing=1"
                .to_owned()
        }
        Stage::Ssh => "see that an SSH server listens there, and what its own log says".to_owned(),
        Stage::HostKey => {
            "on the server's console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub; only if that is what it showed, put that key into \
             machine.host_key and reload"
                .to_owned()
        }
        Stage::Login => format!(
            "on the server: put this line into the authorized keys of {user}, as `seeway keygen` printed it: \
             restrict,port-forwarding,permitopen=\"{seejobs_host}:{seejobs_port}\" {}",
            machine.identity.public_line()
        ),
        Stage::Port if why.contains("prohibits") => format!(
            "on the server, in sshd_config: AllowTcpForwarding local and PermitOpen {seejobs_host}:{seejobs_port}; in the authorized \
             keys: port-forwarding,permitopen=\"{seejobs_host}:{seejobs_port}\""
        ),
        Stage::Port => format!(
            "see that the machine is started, and at which port it takes SEEJobs; correct machine.seejobs_port if that is not {seejobs_port}"
        ),
        Stage::NoOp => format!(
            "something else than a machine listens at {seejobs_host} port {seejobs_port}, or the machine hangs: correct machine.seejobs_port, \
             or start the machine again"
        ),
    }
}

/// What both ends have in common, and whether it is the best of its kind.
fn algorithms(machine: &Machine, server: &Server) -> Finding {
    let about = format!("{} {}", machine.name, printable(&server.version));
    let Some(negotiated) = &server.negotiated else {
        return Finding::ok("algorithms", about, "agreed on");
    };
    let common = format!("{}, {}, {}", negotiated.key_exchange, negotiated.host_key, negotiated.cipher);
    if !negotiated.is_strict {
        let what = format!("{common}; the server knows no strict key exchange (CVE-2023-48795, Terrapin)");
        return Finding::warning(
            "algorithms",
            about,
            what,
            "update the SSH server: OpenSSH has it since 9.6, Dropbear since 2024.84",
        );
    }
    Finding::ok("algorithms", about, common)
}

/// Whether packets get through that are as large as they can be, both ways.
fn full_packets(machine: &Machine, burst: &Result<(), String>, mtu: Option<u32>) -> Finding {
    let about = format!("{} {}", machine.name, machine.address);
    let path = mtu.map_or_else(String::new, |mtu| format!("; this computer takes the path's MTU to be {mtu} bytes"));
    let fix = "compare the MTUs of both ends and of the tunnels between (ip link; ping -M do -s 1472 HOST), have ICMP \"fragmentation needed\" \
               let through, or try: sysctl net.ipv4.tcp_mtu_probing=1";
    match burst {
        Err(why) => {
            let what = format!(
                "one NoOp is answered, {BURST} in one go are not: {why}. Full packets seem to be lost on the way{path}"
            );
            Finding::failed("MTU", about, what, fix)
        }
        Ok(()) if mtu.is_some_and(|mtu| mtu < LEAST_MTU) => {
            let what = format!("{BURST} NoOps in one go are answered{path}, which is less than any IPv6 network has");
            Finding::warning("MTU", about, what, fix)
        }
        Ok(()) => Finding::ok("MTU", about, format!("{BURST} NoOps in one go are answered{path}")),
    }
}

/// What the kernel knows of the largest packet to the server; `None` where it does not say.
async fn path_mtu(machine: &Machine) -> Option<u32> {
    let endpoint = (machine.address.host.as_str(), machine.address.port);
    let address: SocketAddr = lookup_host(endpoint).await.ok()?.next()?;
    let ask = move || {
        let stream = TcpStream::connect_timeout(&address, MTU_CONNECT).ok()?;
        let mtu = if address.is_ipv4() {
            rustix::net::sockopt::ip_mtu(&stream)
        } else {
            rustix::net::sockopt::ipv6_mtu(&stream)
        };
        mtu.ok()
    };
    tokio::task::spawn_blocking(ask).await.ok().flatten()
}

/// What a server said, without what a terminal would obey.
fn printable(text: &str) -> String {
    text.escape_debug().to_string()
}
