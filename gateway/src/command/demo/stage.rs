//! What the demonstration plays on: an emulated HSM with two machines, and a gateway in front.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use seeway_client::grpc::Credentials;
use seeway_machine::apps::App;
use seeway_machine::hsm::{Hsm, HsmConfig, MachinePort};
use seeway_machine::runtime::{Machine, MachineConfig};
use tempfile::TempDir;

use crate::command::{Failure, keygen};
use crate::config::Config;
use crate::gateway::{Addresses, Gateway};

/// The world that both machines serve.
pub(super) const WORLD: &str = "signer";

/// The machines, each with a world of its own besides, so that its public key can be asked for.
pub(super) const MACHINES: [&str; 2] = ["hsm-a", "hsm-b"];

/// The gRPC caller, as its certificate names it: `spiffe://seeway/demo`.
const CALLER: &str = "demo";

/// The machines' ports inside the HSM.
const PORTS: [u16; 2] = [8888, 8889];

/// How long the machines have to come up; it takes a few milliseconds.
const START: Duration = Duration::from_secs(15);

/// Everything that is up.
pub(super) struct Stage {
    folder: TempDir,
    hsm: Hsm,
    machines: Vec<Machine>,
    gateway: Gateway,
    ssh: std::net::SocketAddr,
}

impl Stage {
    /// Starts the HSM, then the gateway, and waits until each machine takes jobs.
    pub(super) async fn set() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("seeway-demo-")
            .tempdir()
            .map_err(|error| Failure::Failed(format!("no folder for the demonstration's keys: {error}")))?;
        let identity = keygen::make(folder.path(), "seeway demo")?;
        keygen::make_certificates(folder.path(), CALLER)?;
        let machines = MACHINES.iter().map(|name| signing_machine(name)).collect::<Result<Vec<_>, Failure>>()?;
        let ports = machines.iter().zip(PORTS);
        let ports =
            ports.map(|(machine, port)| MachinePort { port, ..MachinePort::machine(machine.clone()) }).collect();
        let any_port = ([127, 0, 0, 1], 0).into();
        let hsm = Hsm::start(HsmConfig::new(any_port, vec![identity.public], ports)).await.map_err(failed)?;
        let file = folder.path().join("seeway.toml");
        let text = configuration(folder.path(), &hsm);
        std::fs::write(&file, text).map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
        let config = Config::load(&file).map_err(|problems| Failure::Failed(problems.to_string()))?;
        let gateway = Gateway::start(Arc::new(config)).await.map_err(failed)?;
        if !gateway.worlds_ready(START).await {
            return Err(Failure::Failed(format!("the gateway did not reach the machines within {START:?}")));
        }
        let ssh = hsm.ssh_address();
        Ok(Self { folder, hsm, machines, gateway, ssh })
    }

    /// The machine of this place in [`MACHINES`].
    pub(super) fn machine(&self, place: usize) -> &Machine {
        &self.machines[place]
    }

    /// Waits until every machine takes jobs again; returns whether that came true soon enough.
    pub(super) async fn is_whole(&self) -> bool {
        self.gateway.worlds_ready(START).await
    }

    /// Jobs that the gateway sent again, so far.
    pub(super) async fn sent_again(&self) -> u64 {
        let series = format!("seeway_retries_total{{world=\"{WORLD}\"}} ");
        let page = self.gateway.metrics().await;
        page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
    }

    pub(super) fn addresses(&self) -> &Addresses {
        self.gateway.addresses()
    }

    /// A connection to the gRPC front end, over TLS.
    pub(super) async fn grpc(&self) -> Result<Option<seeway_client::grpc::Gateway>, Failure> {
        let Some(address) = self.addresses().grpc else { return Ok(None) };
        let file = |name: &str| self.folder.path().join(name);
        let (certificate, key) = (file(&format!("client-{CALLER}.pem")), file(&format!("client-{CALLER}.key")));
        let credentials = Credentials::none().trust(&file("ca.pem")).map_err(failed)?;
        let credentials = credentials.certificate(&certificate, &key).map_err(failed)?;
        let address = format!("grpcs://{address}");
        seeway_client::grpc::Gateway::connect_with(&address, credentials).await.map(Some).map_err(failed)
    }

    /// Says what is up.
    pub(super) fn describe(&self, out: &mut dyn Write) -> Result<(), Failure> {
        writeln!(out, "an emulated HSM: SSH server on {}, host key {}", self.ssh, self.hsm.host_key_fingerprint())?;
        writeln!(out, "in it two machines that sign: {}", MACHINES.join(" and "))?;
        let Addresses { grpc, hardserver, admin, .. } = self.addresses();
        writeln!(out, "the gateway: {}", hardserver.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))?;
        for (what, address) in [("grpcs://", grpc), ("http://", admin)] {
            if let Some(address) = address {
                let pages = if what == "http://" { "/metrics, /healthz, /readyz" } else { ", with certificates" };
                writeln!(out, "             {what}{address}{pages}")?;
            }
        }
        Ok(out.flush()?)
    }

    /// Says how to talk to what is up.
    pub(super) fn invite(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let folder = self.folder.path().display();
        let Addresses { grpc, admin, .. } = self.addresses();
        writeln!(out, "\nIt stays up until Ctrl-C. In another terminal (`seeway` is this program):\n")?;
        writeln!(out, "  seeway job unix:{folder}/nserver --world {WORLD} --data hello | xxd")?;
        if let Some(grpc) = grpc {
            let files = format!(
                "--ca {folder}/ca.pem --certificate {folder}/client-{CALLER}.pem --key {folder}/client-{CALLER}.key"
            );
            writeln!(out, "  seeway job grpcs://{grpc} {files} --world {WORLD} --data hello --json")?;
        }
        writeln!(
            out,
            "  seeway job ssh://codesafe@{} --identity {folder}/id_ed25519 --host-key '{}' --data pubkey | xxd",
            self.ssh,
            self.hsm.host_key()
        )?;
        writeln!(out, "  seeway check --config {folder}/seeway.toml --connect")?;
        writeln!(out, "  seeway check --config {folder}/seeway.toml --as certificate:spiffe://seeway/{CALLER}")?;
        if let Some(admin) = admin {
            writeln!(out, "  curl http://{admin}/metrics")?;
        }
        Ok(())
    }

    /// Takes everything down.
    pub(super) async fn clear(self) -> Result<(), Failure> {
        let drained = self.gateway.drain().await;
        self.hsm.stop().await;
        drained.map_err(failed)
    }
}

fn signing_machine(name: &str) -> Result<Machine, Failure> {
    let config = MachineConfig { name: name.to_owned(), ..App::Sign.config() };
    App::Sign.start(config).map_err(failed)
}

fn configuration(folder: &Path, hsm: &Hsm) -> String {
    let socket = folder.join("nserver");
    let mut text = format!(
        "[listen]\ngrpc = \"127.0.0.1:0\"\nhardserver = [\"unix:{}\", \"tcp:127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n",
        socket.display(),
    );
    for (name, port) in MACHINES.iter().zip(PORTS) {
        text.push_str(&machine_section(folder, hsm, name, port));
    }
    // Who may do what: gRPC callers show a certificate, legacy callers are known by their user, or not at all over TCP.
    let access = format!(
        "\n[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\n\n[[permission]]\nname = \"demo\"\n\
         who = [\"certificate:spiffe://seeway/{CALLER}\", \"user:*\", \"anonymous\"]\nmay = [\"submit\"]\nworlds = [\"signer\", \"hsm-*\"]\n"
    );
    text.push_str(&access);
    // A machine that comes back is seen soon.
    text.push_str("\n[ssh]\nretry_max = \"300ms\"\n");
    text.push_str(&world_section(WORLD, &MACHINES));
    for name in MACHINES {
        text.push_str(&world_section(name, &[name]));
    }
    text
}

fn machine_section(folder: &Path, hsm: &Hsm, name: &str, port: u16) -> String {
    let (identity, _) = keygen::paths(folder);
    format!(
        "\n[[machine]]\nname = \"{name}\"\naddress = \"{}\"\nidentity = \"{}\"\nhost_key = \"{}\"\nseejobs_port = {port}\n",
        hsm.ssh_address(),
        identity.display(),
        hsm.host_key(),
    )
}

fn world_section(name: &str, machines: &[&str]) -> String {
    format!("\n[[world]]\nname = \"{name}\"\nmachines = {machines:?}\n")
}

fn failed(error: impl std::error::Error) -> Failure {
    Failure::Failed(error.to_string())
}
