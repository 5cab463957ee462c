//! The faults, and the order in which they strike: a deck with each of them, shuffled by the seed, dealt several times over.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    Dice,
    link::Weather,
    scene::{MACHINES, Manner, Scene},
};

/// Faults that are there at once, at most.
const AT_ONCE: usize = 3;
const TICK: Duration = Duration::from_millis(20);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL of an SSH server and all its connections.
    SshdKilled,
    /// SIGKILL of an SSH server's connections; the server stays.
    SshdConnectionsKilled,
    /// SIGKILL of an SSH server; its connections stay.
    SshdListenerKilled,
    /// SIGSTOP of an SSH server and all its connections.
    SshdHalted,
    /// SIGSTOP of an SSH server's connections; the server takes new ones.
    SshdConnectionsHalted,
    /// SIGKILL of a machine.
    MachineKilled,
    /// SIGSTOP of a machine.
    MachineHalted,
    /// Packets are lost.
    Loss,
    /// Packets are late.
    Delay,
    /// Nothing arrives, in both directions.
    Partition,
    /// Nothing arrives from the HSM, everything arrives there.
    RepliesLost,
    /// SIGKILL of a caller; another one takes its place.
    CallerKilled,
    /// SIGSTOP of a caller.
    CallerHalted,
    /// SIGTERM of the gateway, and a new one.
    GatewayTerminated,
    /// SIGKILL of the gateway, and a new one.
    GatewayKilled,
    /// Other limits, by SIGHUP.
    LimitsReloaded,
    /// A machine is removed, and later added, by SIGHUP.
    MachineRemoved,
}

impl Fault {
    const ALL: [Self; 17] = [
        Self::SshdKilled,
        Self::SshdConnectionsKilled,
        Self::SshdListenerKilled,
        Self::SshdHalted,
        Self::SshdConnectionsHalted,
        Self::MachineKilled,
        Self::MachineHalted,
        Self::Loss,
        Self::Delay,
        Self::Partition,
        Self::RepliesLost,
        Self::CallerKilled,
        Self::CallerHalted,
        Self::GatewayTerminated,
        Self::GatewayKilled,
        Self::LimitsReloaded,
        Self::MachineRemoved,
    ];

    fn describe(self) -> &'static str {
        match self {
            Self::SshdKilled => "sshd killed with its connections",
            Self::SshdConnectionsKilled => "sshd's connections killed",
            Self::SshdListenerKilled => "sshd killed, its connections stay",
            Self::SshdHalted => "sshd halted with its connections",
            Self::SshdConnectionsHalted => "sshd's connections halted",
            Self::MachineKilled => "machine killed",
            Self::MachineHalted => "machine halted",
            Self::Loss => "packets lost",
            Self::Delay => "packets late",
            Self::Partition => "partition",
            Self::RepliesLost => "partition, one way: replies lost",
            Self::CallerKilled => "caller killed",
            Self::CallerHalted => "caller halted",
            Self::GatewayTerminated => "gateway terminated, started again",
            Self::GatewayKilled => "gateway killed, started again",
            Self::LimitsReloaded => "reload: other limits",
            Self::MachineRemoved => "reload: machine removed, then added",
        }
    }

    fn strikes(self) -> Target {
        match self {
            Self::CallerKilled | Self::CallerHalted => Target::Caller,
            Self::GatewayTerminated | Self::GatewayKilled | Self::LimitsReloaded => Target::Gateway,
            _ => Target::Hsm,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Hsm,
    Caller,
    Gateway,
}

struct Active {
    fault: Fault,
    index: usize,
    until: Instant,
}

/// Deals the deck `rounds` times and breaks what it says. After each round all is mended, and everybody must get on.
pub fn strike(scene: &mut Scene, seed: u64, rounds: usize) {
    let mut dice = Dice::new(seed);
    let began = Instant::now();
    let mut counts: BTreeMap<Fault, usize> = BTreeMap::new();
    for round in 1..=rounds {
        let mut deck = Fault::ALL;
        dice.shuffle(&mut deck);
        let mut active: Vec<Active> = Vec::new();
        for fault in deck {
            let (hold, gap) =
                (Duration::from_millis(dice.within(200..4_000)), Duration::from_millis(dice.within(50..1_000)));
            let first = usize::try_from(dice.within(0..1_000_000)).expect("a small number");
            let index = room_for(scene, &mut active, fault, first);
            let whom = match fault.strikes() {
                Target::Hsm => MACHINES[index].to_owned(),
                Target::Caller => format!("caller {index}"),
                Target::Gateway => "the gateway".to_owned(),
            };
            println!("{:7.2} s  {}: {whom}", began.elapsed().as_secs_f64(), fault.describe());
            begin(scene, fault, index, &mut dice);
            *counts.entry(fault).or_default() += 1;
            active.push(Active { fault, index, until: Instant::now() + hold });
            let pause = Instant::now() + gap;
            while Instant::now() < pause {
                mend(scene, &mut active, Instant::now());
                std::thread::sleep(TICK);
            }
        }
        while !active.is_empty() {
            mend(scene, &mut active, Instant::now());
            std::thread::sleep(TICK);
        }
        let mended = Instant::now();
        scene.until_calm();
        let (at, calm) = (began.elapsed().as_secs_f64(), mended.elapsed().as_secs_f64());
        println!("{at:7.2} s  round {round} of {rounds}: mended, and everybody gets on after {calm:.2} s");
    }
    println!("\nfaults in {:.0} s:", began.elapsed().as_secs_f64());
    for (fault, count) in counts {
        println!("{count:5}  {}", fault.describe());
    }
}

/// Waits until another fault may begin, and gives what it strikes: the first from `first` on that nothing is wrong with.
fn room_for(scene: &mut Scene, active: &mut Vec<Active>, fault: Fault, first: usize) -> usize {
    let count = match fault.strikes() {
        Target::Hsm => scene.hsms.len(),
        Target::Caller => scene.callers.len(),
        Target::Gateway => return 0,
    };
    loop {
        mend(scene, active, Instant::now());
        let is_free = |index: &usize| {
            !active.iter().any(|active| active.fault.strikes() == fault.strikes() && active.index == *index)
        };
        if active.len() < AT_ONCE
            && let Some(index) = (0..count).map(|step| (first + step) % count).find(is_free)
        {
            return index;
        }
        std::thread::sleep(TICK);
    }
}

fn begin(scene: &mut Scene, fault: Fault, index: usize, dice: &mut Dice) {
    let drawn = dice.within(0..1_000);
    match fault {
        Fault::SshdKilled => scene.hsms[index].sshd.kill(),
        Fault::SshdConnectionsKilled => scene.hsms[index].sshd.signal_connections(Signal::KILL),
        Fault::SshdListenerKilled => scene.hsms[index].sshd.kill_listener(),
        Fault::SshdHalted => scene.hsms[index].sshd.signal_all(Signal::STOP),
        Fault::SshdConnectionsHalted => scene.hsms[index].sshd.signal_connections(Signal::STOP),
        Fault::MachineKilled => scene.hsms[index].machine.kill(),
        Fault::MachineHalted => scene.hsms[index].machine.signal(Signal::STOP),
        Fault::Loss => {
            let percent = 5 + u32::try_from(drawn % 36).expect("a small number");
            scene.hsms[index].link.set(Weather::Lossy(percent));
        }
        Fault::Delay => scene.hsms[index].link.set(Weather::Slow),
        Fault::Partition => scene.hsms[index].link.set(Weather::Cut),
        Fault::RepliesLost => scene.hsms[index].link.set(Weather::OneWay),
        Fault::CallerKilled => scene.replace_caller(index),
        Fault::CallerHalted => scene.callers[index].process.signal(Signal::STOP),
        Fault::GatewayTerminated => scene.restart_gateway(Manner::Terminated),
        Fault::GatewayKilled => scene.restart_gateway(Manner::Killed),
        Fault::LimitsReloaded => scene.reload_limits(usize::try_from(drawn).expect("a small number")),
        Fault::MachineRemoved => scene.reload_machines(Some(index)),
    }
}

/// Ends the faults whose time is over.
fn mend(scene: &mut Scene, active: &mut Vec<Active>, now: Instant) {
    for Active { fault, index, .. } in active.extract_if(.., |active| active.until <= now) {
        match fault {
            Fault::SshdKilled | Fault::SshdListenerKilled => scene.hsms[index].sshd.start_again(),
            Fault::SshdHalted | Fault::SshdConnectionsHalted => scene.hsms[index].sshd.signal_all(Signal::CONT),
            Fault::MachineKilled => {
                scene.hsms[index].machine.start_again();
                scene.hsms[index].starts += 1;
            }
            Fault::MachineHalted => scene.hsms[index].machine.signal(Signal::CONT),
            Fault::Loss | Fault::Delay | Fault::Partition | Fault::RepliesLost => {
                scene.hsms[index].link.set(Weather::Clear);
            }
            Fault::CallerHalted => scene.callers[index].process.signal(Signal::CONT),
            Fault::MachineRemoved => scene.reload_machines(None),
            Fault::SshdConnectionsKilled
            | Fault::CallerKilled
            | Fault::GatewayTerminated
            | Fault::GatewayKilled
            | Fault::LimitsReloaded => {}
        }
    }
}
