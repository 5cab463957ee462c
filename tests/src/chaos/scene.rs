//! Everything that the chaos test breaks: three HSMs, the gateway, forty callers.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use seeway_bench::Target;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    Dice,
    audit::{Account, Truth},
    caller::{Kind, WORLDS},
    ledger::{self, Millis},
    link::Link,
    namespace,
};
use crate::{Config, Door, Gateway, Identity, Machine, Sshd, process::Process, wait};

/// The machines' names.
pub const MACHINES: [&str; 3] = ["hsm-a", "hsm-b", "hsm-c"];
/// The SSH servers' port in their namespaces.
const SSH_PORT: u16 = 2222;
/// How often an idempotent job may be sent.
pub const MAX_ATTEMPTS: usize = 3;
/// How long it may take, after everything is mended, until every machine and every caller gets on.
const CALM: Duration = Duration::from_secs(45);
/// How long a gateway that was told to end may take: its `drain_timeout`, and some time to spare.
const DRAIN: Duration = Duration::from_secs(30);
/// Limits that a reload changes between.
const LIMITS: [[&str; 3]; 3] = [
    ["hold = \"2s\"", "queue = 4096", "caller_in_flight = 1024"],
    ["hold = \"300ms\"", "queue = 64", "caller_in_flight = 1024"],
    ["hold = \"5s\"", "queue = 256", "caller_in_flight = 2"],
];

/// An emulated HSM: a machine behind a real SSH server behind a link.
pub struct Hsm {
    /// What lies between it and the gateway.
    pub link: Link,
    /// Its SSH server.
    pub sshd: Sshd,
    /// Its machine.
    pub machine: Machine,
    /// Processes that the machine was so far; each counts from 1.
    pub starts: usize,
    door: Door,
}

/// One of the callers; when it is killed, another one takes its place.
pub struct Caller {
    /// Its process.
    pub process: Process,
    label: &'static str,
    kind: Kind,
    target: Target,
    number: usize,
    ledgers: Vec<PathBuf>,
    was_killed: Vec<bool>,
}

/// How a gateway's process came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// SIGTERM.
    Terminated,
    /// SIGKILL.
    Killed,
}

/// A time without a gateway.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// How it began.
    pub manner: Manner,
    /// When the signal was sent.
    pub from: Millis,
    /// When the next process was started.
    pub until: Millis,
    /// When that was ready.
    pub ready: Millis,
}

/// All of it.
pub struct Scene {
    /// The gateway.
    pub gateway: Gateway,
    /// The HSMs.
    pub hsms: Vec<Hsm>,
    /// The callers.
    pub callers: Vec<Caller>,
    gaps: Vec<Gap>,
    limits: usize,
    removed: Option<usize>,
    identity: Identity,
    folder: TempDir,
    dice: Dice,
    /// Carries relays, where there are any.
    _runtime: Runtime,
}

impl Scene {
    /// Sets it, with nothing broken.
    pub fn new(seed: u64) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let identity = Identity::generate();
        let hsms: Vec<Hsm> = (0..MACHINES.len()).map(|index| Hsm::new(index, &identity, &runtime)).collect();
        let gateway = Gateway::start_on_fixed_ports(&config(&hsms, &identity, 0, None), None);
        gateway.until_up(&MACHINES);
        println!("impaired by {}", hsms[0].link.describe());
        let folder = TempDir::new().expect("the temporary folder can be written");
        let mut scene = Self {
            gateway,
            hsms,
            callers: Vec::new(),
            gaps: Vec::new(),
            limits: 0,
            removed: None,
            identity,
            folder,
            dice: Dice::new(seed ^ 0xca11),
            _runtime: runtime,
        };
        scene.invite();
        scene
    }

    fn invite(&mut self) {
        let gateway = &self.gateway;
        let ways = [
            ("legacy, Unix", Kind::Wire, gateway.unix(), 12),
            ("legacy, TCP", Kind::Wire, gateway.tcp4(), 8),
            ("gRPC, Submit", Kind::Unary, gateway.grpc(), 10),
            ("gRPC, Stream", Kind::Stream, gateway.grpc(), 10),
        ];
        for (label, kind, target, count) in ways {
            for _ in 0..count {
                let number = self.callers.len();
                let ledger = self.folder.path().join(format!("{number}.1"));
                let process = call(number, 1, kind, &target, &ledger, self.dice.bits());
                let (ledgers, was_killed) = (vec![ledger], vec![false]);
                self.callers.push(Caller { process, label, kind, target: target.clone(), number, ledgers, was_killed });
            }
        }
    }

    /// Kills a caller; another one of its kind takes its place.
    pub fn replace_caller(&mut self, index: usize) {
        let caller = &mut self.callers[index];
        caller.process.kill();
        *caller.was_killed.last_mut().expect("there is at least one") = true;
        let life = caller.ledgers.len() + 1;
        let ledger = self.folder.path().join(format!("{}.{life}", caller.number));
        caller.process = call(caller.number, life, caller.kind, &caller.target, &ledger, self.dice.bits());
        caller.ledgers.push(ledger);
        caller.was_killed.push(false);
    }

    /// Ends the gateway and starts it again.
    pub fn restart_gateway(&mut self, manner: Manner) {
        let from = ledger::now();
        match manner {
            Manner::Terminated => {
                self.gateway.terminate();
                let status = self.gateway.exit(DRAIN);
                assert!(status.success(), "a gateway that was told to end ended with {status}");
            }
            Manner::Killed => self.gateway.kill(),
        }
        let until = ledger::now();
        self.gateway.start_again();
        self.gaps.push(Gap { manner, from, until, ready: ledger::now() });
    }

    /// Has the gateway read a configuration with other limits.
    pub fn reload_limits(&mut self, limits: usize) {
        self.limits = limits % LIMITS.len();
        self.reload();
    }

    /// Has the gateway read a configuration without this machine, or with all of them.
    pub fn reload_machines(&mut self, removed: Option<usize>) {
        self.removed = removed;
        self.reload();
    }

    fn reload(&mut self) {
        self.gateway.rewrite(&config(&self.hsms, &self.identity, self.limits, self.removed));
        let reloads = |gateway: &Gateway| gateway.metrics().sum_where("seeway_reloads_total", "result=\"ok\"");
        let before = reloads(&self.gateway);
        self.gateway.hang_up();
        wait::until("the gateway has read its configuration again", wait::BOUND, || {
            (reloads(&self.gateway) > before + 0.5).then_some(())
        });
    }

    /// Waits until every machine runs jobs and every caller gets replies, with nothing broken any more.
    pub fn until_calm(&mut self) {
        let began = Instant::now();
        let ran: Vec<u64> = self.hsms.iter().map(Hsm::journal_bytes).collect();
        let told: Vec<usize> = self.callers.iter().map(Caller::replies).collect();
        for (hsm, (ran, name)) in self.hsms.iter().zip(ran.into_iter().zip(MACHINES)) {
            wait::until(&format!("{name} runs jobs again"), CALM.saturating_sub(began.elapsed()), || {
                (hsm.journal_bytes() > ran).then_some(())
            });
        }
        for (caller, told) in self.callers.iter_mut().zip(told) {
            let what = format!("caller {} ({}) gets replies again", caller.number, caller.label);
            wait::until(&what, CALM.saturating_sub(began.elapsed()), || {
                caller.must_live();
                (caller.replies() > told).then_some(())
            });
        }
    }

    /// Has the callers wait for what is out, ends them and the gateway, and gives all that is known.
    pub fn end(mut self) -> Truth {
        for caller in &mut self.callers {
            caller.must_live();
            caller.process.signal(Signal::TERM);
        }
        for caller in &mut self.callers {
            let status = caller.process.exit(Duration::from_secs(60));
            assert!(status.success(), "caller {} ended with {status}:\n{}", caller.number, caller.process.log());
        }
        self.gateway.until_idle(wait::BOUND);
        self.gateway.terminate();
        let status = self.gateway.exit(DRAIN);
        assert!(status.success(), "a gateway that was told to end ended with {status}");
        let accounts = self.callers.iter().flat_map(|caller| {
            caller.ledgers.iter().zip(&caller.was_killed).map(|(path, was_killed)| Account {
                label: caller.label,
                kind: caller.kind,
                events: ledger::read(path),
                was_killed: *was_killed,
            })
        });
        Truth {
            accounts: accounts.collect(),
            journals: self.hsms.iter().map(|hsm| hsm.machine.journal().runs()).collect(),
            starts: self.hsms.iter().map(|hsm| hsm.starts).collect(),
            gaps: self.gaps,
            log: self.gateway.log(),
        }
    }
}

impl Hsm {
    fn new(index: usize, identity: &Identity, runtime: &Runtime) -> Self {
        if !namespace::is_inside() {
            let (sshd, machine) = (Sshd::start(identity), Machine::start("counter"));
            let link = Link::by_relay(sshd.door().address, runtime);
            let Link::Relay(network) = &link else { unreachable!("it was just made") };
            let door = Door { address: network.address(), ..sshd.door().clone() };
            return Self { link, sshd, machine, starts: 1, door };
        }
        let link = Link::to_namespace(u8::try_from(index + 1).expect("three"));
        let Link::Veth(veth) = &link else { unreachable!("it was just made") };
        let address = SocketAddr::from((Ipv4Addr::from(veth.far_address()), SSH_PORT));
        let sshd = Sshd::start_within(identity, address, namespace::of_server(veth.holder()));
        let machine = Machine::start_within("counter", namespace::of_program(veth.holder()));
        let door = sshd.door().clone();
        Self { link, sshd, machine, starts: 1, door }
    }

    fn journal_bytes(&self) -> u64 {
        fs::metadata(self.machine.journal().path()).map_or(0, |file| file.len())
    }
}

impl Caller {
    fn replies(&self) -> usize {
        let ledger = self.ledgers.last().expect("there is at least one");
        fs::read_to_string(ledger).map_or(0, |text| text.matches(" replied ").count())
    }

    fn must_live(&mut self) {
        let status = self.process.try_exit();
        assert!(status.is_none(), "caller {} ended with {status:?}:\n{}", self.number, self.process.log());
    }
}

fn call(number: usize, life: usize, kind: Kind, target: &Target, ledger: &Path, seed: u64) -> Process {
    let mut command = Command::new(program());
    command
        .arg(format!("caller-{number}.{life}"))
        .arg(kind.name())
        .arg(target.to_string())
        .arg(ledger)
        .arg(seed.to_string());
    Process::start(format!("caller {number}"), &mut command)
}

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    // target/PROFILE/deps/TEST
    let path = test.ancestors().nth(2).expect("Cargo puts tests three folders deep").join("seeway-chaos-caller");
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build -p seeway-tests`, or tests/run, which does",
        path.display()
    );
    path
}

fn config(hsms: &[Hsm], identity: &Identity, limits: usize, removed: Option<usize>) -> Config {
    let present = || (0..hsms.len()).filter(|index| Some(*index) != removed);
    let names: Vec<&str> = present().map(|index| MACHINES[index]).collect();
    let config = present().fold(Config::new(), |config, index| {
        config.machine(MACHINES[index], &hsms[index].door, hsms[index].machine.seejobs(), identity, "")
    });
    let config = config
        .world(WORLDS[0], &names, "")
        .world(WORLDS[1], &names, "idempotent = true")
        .line("runtime", "drain_timeout = \"10s\"")
        .line("limits", "default_timeout = \"4s\"")
        .line("retry", &format!("max_attempts = {MAX_ATTEMPTS}"))
        .line("balance", "slow_start = \"1s\"")
        .line("circuit", "silent_after = \"2s\"\nprobe_after = \"500ms\"\nprobe_max = \"2s\"")
        .line("ssh", "retry_max = \"500ms\"\nconnect_timeout = \"3s\"")
        .line("ssh", "keepalive_idle = \"500ms\"\nkeepalive = \"500ms\"\nbroken_after = \"2s\"");
    LIMITS[limits].iter().fold(config, |config, line| config.line("limits", line))
}
