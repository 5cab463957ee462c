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

/// How a namespace's links are impaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    Netem,
    FilterAndBucket,
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
    means: Means,
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
        let veth = Veth { number, holder, means: Means::Netem };
        let (near, far, id) = (veth.near(), veth.far(), veth.holder.id().to_string());
        here(&["ip", "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &id]);
        here(&["ip", "address", "add", &format!("10.77.{number}.1/30"), "dev", &near]);
        here(&["ip", "link", "set", &near, "up"]);
        veth.there(&["ip", "address", "add", &format!("10.77.{number}.2/30"), "dev", &far]);
        veth.there(&["ip", "link", "set", &far, "up"]);
        let means = veth.what_works();
        Self::Veth(Veth { means, ..veth })
    }

    /// A relay to `server`, carried by `runtime`.
    pub fn by_relay(server: SocketAddr, runtime: &Runtime) -> Self {
        Self::Relay(runtime.block_on(Network::to(server)))
    }

    /// What impairs it, in words.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Veth(Veth { means: Means::Netem, .. }) => "network namespaces; loss and delay by tc netem",
            Self::Veth(Veth { means: Means::FilterAndBucket, .. }) => {
                "network namespaces; this kernel has no netem (sch_netem), so loss is a tc filter that drops packets at random, \
                 and delay a tc token bucket (tbf)"
            }
            Self::Relay(_) => {
                "the tests' relay, for want of network namespaces: loss is bytes swallowed, delay is replies kept back, partition is resets"
            }
        }
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

    fn what_works(&self) -> Means {
        let near = self.near();
        let tried = command(&["tc", "qdisc", "add", "dev", &near, "root", "netem", "delay", "1ms"]).output();
        if tried.is_ok_and(|output| output.status.success()) {
            here(&["tc", "qdisc", "del", "dev", &near, "root"]);
            Means::Netem
        } else {
            Means::FilterAndBucket
        }
    }

    fn set(&self, weather: Weather) {
        let (near, far) = (self.near(), self.far());
        self.clear();
        match weather {
            Weather::Clear => {}
            Weather::Lossy(percent) => {
                here(&words(&self.loss(&near, percent)));
                self.there(&words(&self.loss(&far, percent)));
            }
            Weather::Slow => {
                here(&words(&self.delay(&near)));
                self.there(&words(&self.delay(&far)));
            }
            // The near end stays up, without a carrier: packets go nowhere, and nobody hears that the network is unreachable.
            Weather::Cut => self.there(&["ip", "link", "set", &far, "down"]),
            Weather::OneWay => self.there(&words(&self.loss(&far, 100))),
        }
        if weather == Weather::Clear {
            self.there(&["ip", "link", "set", &far, "up"]);
        }
    }

    fn loss(&self, device: &str, percent: u32) -> String {
        match self.means {
            Means::Netem => format!("tc qdisc add dev {device} root netem loss {percent}%"),
            Means::FilterAndBucket => {
                // Of the numbers that a random 32 bits can be, those from here on are lost. The program: load a random word; where it
                // is at least that, answer 2 (drop), else 0 (pass).
                let from = (1u64 << 32) * u64::from(100 - percent) / 100;
                let random = u32::MAX - 4095 + 56;
                let program = format!("4,32 0 0 {random},53 0 1 {from},6 0 0 2,6 0 0 0");
                format!(
                    "sh -ec 'tc qdisc add dev {device} clsact; tc filter add dev {device} egress bpf da bytecode \"{program}\"'"
                )
            }
        }
    }

    fn delay(&self, device: &str) -> String {
        match self.means {
            Means::Netem => format!("tc qdisc add dev {device} root netem delay 80ms 40ms"),
            Means::FilterAndBucket => {
                format!("tc qdisc add dev {device} root tbf rate 400kbit burst 3kb latency 400ms")
            }
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
