//! The link between the gateway and one HSM, and its weather.
//!
//! Where there are network namespaces it is a pair of virtual Ethernet interfaces, and packets really are lost, late, or not carried at
//! all. Loss and delay are the kernel's `netem` where it has that; else a packet filter drops at random, and a token bucket makes a
//! queue in which packets wait and past whose end they are dropped. Without namespaces it is the tests' relay, which can cut, swallow
//! and keep back, but not lose single packets.

use std::{net::SocketAddr, process::Command};

use tokio::runtime::Runtime;

use super::namespace;
use crate::{keys, network::Network, process::Process, within::Within};

/// What becomes of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// They arrive.
    Clear,
    /// Of a hundred so many are lost, in both directions.
    Lossy(u32),
    /// They are late, in both directions.
    Slow,
    /// None arrives, and nobody is told.
    Cut,
    /// Those to the HSM arrive, those from it do not.
    OneWay,
}

/// How packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Netem,
    Filter,
    /// This kernel has neither: all are lost.
    All,
}

/// How packets are late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delay {
    Netem,
    Bucket,
    /// This kernel has neither: they are lost.
    Never,
}

/// One link. It is gone with this.
pub enum Link {
    /// Through a namespace.
    Veth(Veth),
    /// Through a relay.
    Relay(Network),
}

/// A pair of interfaces.
pub struct Veth {
    number: u8,
    holder: Process,
    loss: Loss,
    delay: Delay,
}

impl Link {
    /// A namespace with a link to this one. `number` is not that of any other link.
    pub fn to_namespace(number: u8) -> Self {
        let script = "ip link set lo up; echo holds; exec sleep infinity";
        let mut holder = Process::start(
            format!("the namespace of HSM {number}"),
            Command::new("unshare").args(["--net", "sh", "-ec", script]),
        );
        holder.line("holds");
        let mut veth = Veth { number, holder, loss: Loss::All, delay: Delay::Never };
        let (near, far, id) = (veth.near(), veth.far(), veth.holder.id().to_string());
        here(&["ip", "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &id]);
        here(&["ip", "address", "add", &format!("10.77.{number}.1/30"), "dev", &near]);
        here(&["ip", "link", "set", &near, "up"]);
        veth.there(&["ip", "address", "add", &format!("10.77.{number}.2/30"), "dev", &far]);
        veth.there(&["ip", "link", "set", &far, "up"]);
        veth.find_means();
        Self::Veth(veth)
    }

    /// A relay to `server`, carried by `runtime`.
    pub fn by_relay(server: SocketAddr, runtime: &Runtime) -> Self {
        Self::Relay(runtime.block_on(Network::to(server)))
    }

    /// What impairs it, in words.
    pub fn describe(&self) -> String {
        let Self::Veth(veth) = self else {
            return "the tests' relay, for want of network namespaces: loss is bytes swallowed, delay is replies kept back, partition is resets"
                .to_owned();
        };
        let loss = match veth.loss {
            Loss::Netem => "netem",
            Loss::Filter => "a tc filter that drops packets at random (this kernel has no netem)",
            Loss::All => "losing all (this kernel has neither netem nor classic BPF filters)",
        };
        let delay = match veth.delay {
            Delay::Netem => "netem",
            Delay::Bucket => "a tc token bucket (this kernel has no netem)",
            Delay::Never => "losing all (this kernel has neither netem nor tbf)",
        };
        format!("network namespaces; loss by {loss}; delay by {delay}")
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        match self {
            Self::Veth(veth) => veth.set(weather),
            Self::Relay(network) => match weather {
                Weather::Clear => network.mend(),
                Weather::Lossy(_) | Weather::OneWay => network.fall_silent(),
                Weather::Slow => network.hold_back(),
                Weather::Cut => network.cut(),
            },
        }
    }
}

impl Veth {
    /// The process whose namespace is the link's far end.
    pub fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// The far end's address.
    pub fn far_address(&self) -> [u8; 4] {
        [10, 77, self.number, 2]
    }

    fn near(&self) -> String {
        format!("near{}", self.number)
    }

    fn far(&self) -> String {
        format!("far{}", self.number)
    }

    fn there(&self, words: &[&str]) {
        keys::run(&mut self.command_there(words));
    }

    fn command_there(&self, words: &[&str]) -> Command {
        let mut command = namespace::of_program(self.holder.id()).command(words[0].as_ref());
        command.args(&words[1..]);
        command
    }

    /// Finds out what this kernel has, from the best to the worst.
    fn find_means(&mut self) {
        let near = self.near();
        let works = |line: &str| command(&words(line)).output().is_ok_and(|output| output.status.success());
        if let Some(loss) = [Loss::Netem, Loss::Filter].into_iter().find(|loss| works(&loss.line(&near, 50))) {
            self.loss = loss;
        }
        self.clear();
        if let Some(delay) = [Delay::Netem, Delay::Bucket].into_iter().find(|delay| works(delay.line(&near).as_str())) {
            self.delay = delay;
        }
        self.clear();
    }

    fn set(&self, weather: Weather) {
        let (near, far) = (self.near(), self.far());
        self.clear();
        match weather {
            Weather::Clear => {}
            Weather::Lossy(percent) if self.loss != Loss::All => {
                here(&words(&self.loss.line(&near, percent)));
                self.there(&words(&self.loss.line(&far, percent)));
            }
            Weather::Slow if self.delay != Delay::Never => {
                here(&words(&self.delay.line(&near)));
                self.there(&words(&self.delay.line(&far)));
            }
            Weather::OneWay if self.loss != Loss::All => self.there(&words(&self.loss.line(&far, 100))),
            // The near end stays up, without a carrier: packets go nowhere, and nobody hears that the network is unreachable.
            Weather::Cut | Weather::Lossy(_) | Weather::Slow | Weather::OneWay => {
                self.there(&["ip", "link", "set", &far, "down"]);
            }
        }
        if weather == Weather::Clear {
            self.there(&["ip", "link", "set", &far, "up"]);
        }
    }

    /// Removes every impairment but a link that is down.
    fn clear(&self) {
        // There may be none; that is an error to tc and none here. What remains in force shows when the next one is added.
        for kind in ["root", "clsact"] {
            let _ = command(&["tc", "qdisc", "del", "dev", &self.near(), kind]).output();
            let _ = self.command_there(&["tc", "qdisc", "del", "dev", &self.far(), kind]).output();
        }
    }
}

impl Loss {
    /// The command that has a device lose so many of a hundred packets that it sends.
    fn line(self, device: &str, percent: u32) -> String {
        if self == Self::Netem {
            return format!("tc qdisc add dev {device} root netem loss {percent}%");
        }
        // Of the numbers that a random 32 bits can be, those from here on are lost. The program: load a random word; where it is at
        // least that, answer 2 (drop), else 0 (pass).
        let from = (1u64 << 32) * u64::from(100 - percent) / 100;
        let random = u32::MAX - 4095 + 56;
        let program = format!("4,32 0 0 {random},53 0 1 {from},6 0 0 2,6 0 0 0");
        format!(
            "sh -ec 'tc qdisc add dev {device} clsact; tc filter add dev {device} egress bpf da bytecode \"{program}\"'"
        )
    }
}

impl Delay {
    /// The command that has a device send late.
    fn line(self, device: &str) -> String {
        match self {
            Self::Netem => format!("tc qdisc add dev {device} root netem delay 80ms 40ms"),
            Self::Bucket | Self::Never => {
                format!("tc qdisc add dev {device} root tbf rate 400kbit burst 3kb latency 400ms")
            }
        }
    }
}

fn here(words: &[&str]) {
    keys::run(&mut command(words));
}

fn command(words: &[&str]) -> Command {
    let mut command = Within::default().command(words[0].as_ref());
    command.args(&words[1..]);
    command
}

/// The words of a command line, of which the last may be quoted.
fn words(line: &str) -> Vec<&str> {
    match line.split_once('\'') {
        Some((front, quoted)) => front.split_whitespace().chain([quoted.trim_end_matches('\'')]).collect(),
        None => line.split_whitespace().collect(),
    }
}
