//! The ways to the machine that are compared, and the shapes of load that each of them gets.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::{
    Plan,
    process::{self, Process},
    scene::{Gateway, Scene, WORLD},
    statistics::Spread,
};
use crate::{Load, Report, Until, Way, load::Unwatched};

/// One of the ways, by the letter under which the report has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// (a) Plain TCP to the machine, no SSH.
    Plain,
    /// (b) `ssh -N -L`.
    Tunnel,
    /// (c) `ssh -L` with a session open and the fastest cipher.
    BestTunnel,
    /// (d) A thread for each connection, through (c).
    Blocking,
    /// (e) russh with a channel for each caller.
    Russh,
    /// (f) Seeway's legacy listener, on the same kind of socket as the tunnels.
    Legacy,
    /// (f) Seeway's legacy listener, over TCP.
    LegacyTcp,
    /// (g) Seeway's gRPC, a stream.
    GrpcStream,
    /// (g) Seeway's gRPC, a call for each job.
    GrpcUnary,
    /// (h) A bare tonic echo, a stream.
    TonicStream,
    /// (h) A bare tonic echo, a call for each job.
    TonicUnary,
    /// (i) A bare echo on a socket like the gateway's: the ceiling for whatever such callers are served by.
    BareEcho,
}

impl Peer {
    /// Those that speak the SEEJob wire.
    pub const ON_THE_WIRE: [Self; 7] =
        [Self::Plain, Self::Tunnel, Self::BestTunnel, Self::Russh, Self::Legacy, Self::LegacyTcp, Self::BareEcho];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "(a) plain TCP, no SSH",
            Self::Tunnel => "(b) ssh -N -L",
            Self::BestTunnel => "(c) best ssh -L",
            Self::Blocking => "(d) threads through (c)",
            Self::Russh => "(e) russh, a channel each",
            Self::Legacy => "(f) Seeway, legacy",
            Self::LegacyTcp => "(f) Seeway, legacy, TCP",
            Self::GrpcStream => "(g) Seeway, gRPC stream",
            Self::GrpcUnary => "(g) Seeway, gRPC unary",
            Self::TonicStream => "(h) bare tonic stream, no SSH",
            Self::TonicUnary => "(h) bare tonic unary, no SSH",
            Self::BareEcho => "(i) bare echo, no SSH",
        }
    }
}

/// Callers, and jobs that each keeps in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Shape {
    /// Connections.
    pub callers: usize,
    /// Jobs that each keeps in flight.
    pub in_flight: usize,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {}", self.callers, self.in_flight)
    }
}

/// `callers × in_flight`.
pub(crate) const fn shape(callers: usize, in_flight: usize) -> Shape {
    Shape { callers, in_flight }
}

/// A process of the SSH path, by what it is to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What callers connect to: the gateway, `ssh`, the forwarder, the echo server.
    Front,
    /// The SSH server.
    Sshd,
    /// The machine.
    Machine,
    /// The load generator, which stands for callers that would be elsewhere.
    Generator,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Front, Self::Sshd, Self::Machine, Self::Generator];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Front => "gateway or tunnel",
            Self::Sshd => "sshd",
            Self::Machine => "machine",
            Self::Generator => "load generator",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// What the callers saw.
    pub report: Report,
    /// Processor time for each job, in microseconds, by process.
    pub cpu_us: BTreeMap<Part, f64>,
}

/// The ways that a run needs, each of them running.
pub(crate) struct Ways {
    running: BTreeMap<Peer, Running>,
    /// The cipher that was the fastest.
    pub(crate) cipher: Option<&'static str>,
    /// Threads of the tonic echo that was the fastest, for streams and for calls.
    pub(crate) tonic_threads: BTreeMap<Peer, usize>,
}

struct Running {
    way: Way,
    world: Option<&'static str>,
    front: Option<Front>,
}

/// Whose processor time is the way's own.
enum Front {
    Own(Process),
    /// Another way has the process.
    Of(Peer),
    Gateway,
}

/// What OpenSSH offers that is fast somewhere: AES with instructions of its own, and one that needs none.
const CIPHERS: [&str; 3] = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"];

/// Rounds of a choice, and how long each measures.
const CHOICE_ROUNDS: usize = 3;
const CHOICE_TIME: Duration = Duration::from_millis(250);

impl Ways {
    /// Starts what `peers` need, and chooses the fastest where the peer is to be at its best.
    pub(crate) fn start(scene: &Scene, gateway: &Gateway, peers: &[Peer]) -> anyhow::Result<Self> {
        let mut ways = Self { running: BTreeMap::new(), cipher: None, tonic_threads: BTreeMap::new() };
        let mut peers = peers.to_vec();
        // Threads go through (c), so it has to be there first.
        if peers.contains(&Peer::Blocking) {
            peers.push(Peer::BestTunnel);
        }
        peers.sort_unstable();
        peers.dedup();
        for peer in peers {
            let running =
                ways.running(peer, scene, gateway).with_context(|| format!("{} does not start", peer.name()))?;
            ways.running.insert(peer, running);
        }
        Ok(ways)
    }

    fn running(&mut self, peer: Peer, scene: &Scene, gateway: &Gateway) -> anyhow::Result<Running> {
        let plain = |way, front| Running { way, world: None, front };
        let of_gateway = |way| Running { way, world: Some(WORLD), front: Some(Front::Gateway) };
        Ok(match peer {
            Peer::Plain => plain(scene.floor(), None),
            Peer::Tunnel => {
                let (process, way) = scene.ssh("ssh -N -L", &[], None)?;
                plain(way, Some(Front::Own(process)))
            }
            Peer::BestTunnel => {
                let (cipher, process, way) = fastest(
                    CIPHERS,
                    |cipher| {
                        let name = format!("ssh -L -c {cipher}");
                        // The session makes OpenSSH set TCP_NODELAY on both sides; `cat` waits for an input that stays open.
                        scene.ssh(&name, &["-c", cipher], Some("cat"))
                    },
                    None,
                )?;
                self.cipher = Some(cipher);
                plain(way, Some(Front::Own(process)))
            }
            Peer::Blocking => {
                let Some(Running { way: Way::Wire(target), .. }) = self.running.get(&Peer::BestTunnel) else {
                    anyhow::bail!("it goes through (c), which does not run");
                };
                plain(Way::Blocking(target.clone()), Some(Front::Of(Peer::BestTunnel)))
            }
            Peer::Russh => {
                let (process, way) = scene.russh()?;
                plain(way, Some(Front::Own(process)))
            }
            Peer::BareEcho => {
                let (process, way) = scene.bare_echo()?;
                plain(way, Some(Front::Own(process)))
            }
            Peer::Legacy => of_gateway(Way::Wire(gateway.legacy.clone())),
            Peer::LegacyTcp => of_gateway(Way::Wire(gateway.tcp.clone())),
            Peer::GrpcStream => of_gateway(Way::GrpcStream(gateway.grpc.clone())),
            Peer::GrpcUnary => of_gateway(Way::GrpcUnary(gateway.grpc.clone())),
            Peer::TonicStream | Peer::TonicUnary => {
                let way: fn(String) -> Way = if peer == Peer::TonicStream { Way::GrpcStream } else { Way::GrpcUnary };
                let (threads, process, way) = fastest(
                    [1, 2],
                    |threads| {
                        let arguments = ["tonic-echo".to_owned(), format!("--threads={threads}")];
                        let (process, address) = scene.peer(&format!("tonic echo {threads}"), &arguments)?;
                        Ok((process, way(address)))
                    },
                    Some(WORLD),
                )?;
                self.tonic_threads.insert(peer, threads);
                Running { way, world: Some(WORLD), front: Some(Front::Own(process)) }
            }
        })
    }

    /// How a peer is reached, and the world that its jobs name.
    pub(crate) fn load(&self, peer: Peer) -> Load {
        let running = &self.running[&peer];
        Load::new(running.way.clone(), running.world)
    }

    /// Measures a peer once.
    pub(crate) fn measure(
        &self,
        peer: Peer,
        shape: Shape,
        plan: &Plan,
        scene: &Scene,
        gateway: &Gateway,
    ) -> anyhow::Result<Sample> {
        let load = Load { callers: shape.callers, in_flight: shape.in_flight, ..plan.timed(self.load(peer)) };
        let mut callers = load.connect()?;
        let cpu = || -> anyhow::Result<BTreeMap<Part, Duration>> {
            let mut used = BTreeMap::from([(Part::Generator, process::own_cpu()?)]);
            if let Some(front) = self.front(peer, gateway) {
                used.insert(Part::Front, front.cpu()?);
            }
            if !matches!(peer, Peer::TonicStream | Peer::TonicUnary | Peer::BareEcho) {
                used.insert(Part::Machine, scene.machine.cpu()?);
                used.insert(Part::Sshd, scene.sshd.cpu_of_tree()?);
            }
            Ok(used)
        };
        let before = cpu()?;
        let mut report = callers.run(&load, &mut Unwatched)?;
        let after = cpu()?;
        anyhow::ensure!(report.failed() == 0, "{}: {report}", peer.name());
        // Sockets and ports are this run's alone.
        peer.name().clone_into(&mut report.way);
        let jobs = crate::report::count(report.jobs_in_all);
        let used = |part: &Part| after[part].saturating_sub(before[part]).as_secs_f64() * 1e6 / jobs;
        Ok(Sample { report, cpu_us: before.keys().map(|part| (*part, used(part))).collect() })
    }

    fn front<'a>(&'a self, peer: Peer, gateway: &'a Gateway) -> Option<&'a Process> {
        match self.running[&peer].front.as_ref()? {
            Front::Own(process) => Some(process),
            Front::Of(other) => self.front(*other, gateway),
            Front::Gateway => Some(&gateway.process),
        }
    }
}

/// Starts each of several variants and keeps the one with the most jobs per second at one connection with 64 in flight.
fn fastest<V: Copy, const N: usize>(
    variants: [V; N],
    mut start: impl FnMut(V) -> anyhow::Result<(Process, Way)>,
    world: Option<&str>,
) -> anyhow::Result<(V, Process, Way)> {
    let mut running = Vec::new();
    for variant in variants {
        let (process, way) = start(variant)?;
        running.push((variant, process, way, Vec::new()));
    }
    for _ in 0..CHOICE_ROUNDS {
        for (_, _, way, rates) in &mut running {
            let load = Load {
                in_flight: 64,
                warm_up: CHOICE_TIME / 4,
                until: Until::Elapsed(CHOICE_TIME),
                ..Load::new(way.clone(), world)
            };
            rates.push(load.run(&mut Unwatched)?.jobs_per_second);
        }
    }
    let median = |rates: &Vec<f64>| Spread::of(rates.iter().copied()).map_or(0.0, |spread| spread.median);
    let best = running.into_iter().max_by(|one, other| median(&one.3).total_cmp(&median(&other.3)));
    let (variant, process, way, _) = best.context("there is nothing to choose from")?;
    Ok((variant, process, way))
}
