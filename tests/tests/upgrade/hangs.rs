//! One of the two gateways hangs in the middle of an upgrade: it is there, and says nothing more. The other one is not taken along.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    process,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use seeway_bench::family::send as signal;
use seeway_tests::{Gateway, process::Process, turn::Turn, wait};
use serde_json::{Value, json};

use crate::estate::{BOUND, Estate, caller, is_served, next_of, reply, see_job, send, send_to, succeeded};

/// More than a socket holds of what was not read. Each message takes 700 bytes and more of the system's memory.
fn more_than_a_socket_holds() -> usize {
    let size = fs::read_to_string("/proc/sys/net/core/wmem_default").expect("the system says it");
    let size: usize = size.trim().parse().expect("a number");
    size / 512
}

/// A gateway that takes over as far as a test wants, and then hangs. It speaks what `handover/message.rs` does; the sockets that come along
/// are dropped by the system, which has nowhere to put them.
struct Hanging {
    stream: UnixStream,
}

impl Hanging {
    /// One that has said that it can take jobs, and that the running one wants to accept.
    fn at_yours(gateway: &Gateway) -> Self {
        let stream = UnixStream::connect(gateway.folder().join("handover")).expect("it listens");
        stream.set_read_timeout(Some(BOUND)).expect("set");
        let mut hanging = Self { stream };
        let running = json!({ "version": "0.0.0", "pid": process::id(), "binary": [0, 0] });
        hanging.say(&json!({ "say": "hello", "protocol": 2, "running": running })).expect("sent");
        hanging.hears("welcome");
        hanging.say(&json!({ "say": "ready" })).expect("sent");
        hanging.hears("yours");
        hanging
    }

    fn say(&mut self, said: &Value) -> io::Result<()> {
        let text = said.to_string();
        let length = u32::try_from(text.len()).expect("short");
        self.stream.write_all(&[&length.to_be_bytes()[..], &[0; 4], text.as_bytes()].concat())
    }

    /// Reads up to the first thing of this kind.
    fn hears(&mut self, wanted: &str) {
        loop {
            let mut lengths = [0; 8];
            self.stream.read_exact(&mut lengths).expect("something is said");
            let [text, bytes] = [&lengths[..4], &lengths[4..]]
                .map(|length| u32::from_be_bytes(length.try_into().expect("four bytes")) as usize);
            let mut said = vec![0; text + bytes];
            self.stream.read_exact(&mut said).expect("the rest of it");
            let said: Value = serde_json::from_slice(&said[..text]).expect("JSON");
            match said["say"].as_str() {
                Some(said) if said == wanted => return,
                Some("listener") => {}
                _ => panic!("{said}"),
            }
        }
    }
}

fn failures(gateway: &Gateway) -> f64 {
    gateway.metrics().sum_where("seeway_handovers_total", "failed")
}

/// It can take jobs, and hangs when it is to accept callers: the running one serves everybody meanwhile and afterwards.
#[test]
fn a_new_gateway_that_never_accepts_changes_nothing() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let mut gateway = Gateway::ready(&estate.config);
    let (mut stays, handle) = caller(&gateway);
    let mut hanging = Hanging::at_yours(&gateway);
    let begun = Instant::now();
    let is_over = || gateway.log().contains("this one goes on");
    is_served(&mut stays, 2, handle);
    send(&gateway, "meanwhile");
    send_to(&gateway.grpc(), "by gRPC");
    if begun.elapsed() < Duration::from_secs(10) {
        assert!(!is_over(), "it is waited for: {}", gateway.log());
    }
    wait::until("the running one waits no more", BOUND, || is_over().then_some(()));
    assert!((failures(&gateway) - 1.0).abs() < 0.5);
    is_served(&mut stays, 3, handle);
    // What it says too late is not heard; nobody may be there to hear it.
    let _ = hanging.say(&json!({ "say": "opened" }));
    is_served(&mut stays, 4, handle);
    drop(hanging);
    succeeded(gateway.upgrade());
    is_served(&mut stays, 5, handle);
}

/// It accepts, and hangs when callers come: those that it has not been given stay with the running one, and are served there. When it ends
/// only those are lost that it had.
#[test]
fn callers_that_a_hanging_gateway_does_not_take_stay() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let mut gateway = Gateway::ready(&estate.config);
    let mut callers: Vec<_> = (0..more_than_a_socket_holds()).map(|_| caller(&gateway)).collect();
    let mut hanging = Hanging::at_yours(&gateway);
    hanging.say(&json!({ "say": "opened" })).expect("sent");
    hanging.hears("alone");
    wait::until("the running one gives no more", BOUND, || {
        gateway.log().contains("takes no more callers").then_some(())
    });
    // It has none of the sockets any more that it was given and did not take.
    drop(hanging);
    wait::until("the running one goes on", BOUND, || gateway.log().contains("goes on in its place").then_some(()));
    let mut lost = 0;
    for (stream, handle) in &mut callers {
        let is_lost = stream.write_all(&see_job(2, *handle, b"still")).is_err() || {
            let mut first = [0; 1];
            // Looked at, and left to be read.
            rustix::net::recv(&*stream, &mut first[..], rustix::net::RecvFlags::PEEK).is_ok_and(|(count, _)| count == 0)
        };
        if is_lost {
            lost += 1;
        } else {
            assert_eq!(reply(stream, 2), b"still");
        }
    }
    assert!(lost > 0 && lost < callers.len(), "{lost} of {} had been given", callers.len());
    send(&gateway, "new callers come in");
    callers.clear();
    succeeded(gateway.upgrade());
    send(&gateway, "at the next one");
}

/// The running one says nothing, and somebody stops the new one that waits for it.
#[test]
fn a_new_gateway_hears_a_stop_while_the_running_one_hangs() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let gateway = Gateway::ready(&estate.config);
    let (mut stays, handle) = caller(&gateway);
    signal(gateway.id(), Signal::STOP);
    let mut new = Process::start("the next gateway", &mut next_of(&gateway));
    wait::until("it asks", BOUND, || new.log().contains("asking the running gateway").then_some(()));
    new.signal(Signal::TERM);
    // Less than the running one would have to answer in.
    assert_eq!(new.exit(BOUND).code(), Some(1), "{}", new.log());
    assert!(new.log().contains("told to stop") && new.log().contains("nothing was taken over"), "{}", new.log());
    signal(gateway.id(), Signal::CONT);
    is_served(&mut stays, 2, handle);
    send(&gateway, "still");
}
