//! A thousand connections that break off leave nothing behind. Alone in its process, because it counts threads.

mod support {
    pub mod ssh;
    #[path = "mod.rs"]
    mod wire;
    pub use wire::*;
}

use std::num::NonZeroUsize;

use seeway_machine::apps::App;
use seeway_machine::hsm::{Hsm, HsmConfig, MachinePort, SEEJOBS_PORT};
use seeway_machine::runtime::{MachineConfig, Processors, SeejobsListener};
use support::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Threads of this process, and files that it has open.
fn held() -> (usize, usize) {
    let count = |folder| std::fs::read_dir(folder).expect("Linux has it").count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

#[tokio::test]
async fn nothing_is_left_of_connections_that_break_off() {
    let loopback = || "127.0.0.1:0".parse().expect("an address");
    let before = held();

    let two_threads = Processors::Threads(NonZeroUsize::new(2).expect("not zero"));
    let slow = App::Slow(std::time::Duration::from_millis(20));
    let machine = slow.start(MachineConfig { processors: two_threads, ..slow.config() }).expect("starts");
    let identity = ssh::identity();
    let ports = vec![MachinePort::machine(machine.clone())];
    let hsm = Hsm::start(HsmConfig::new(loopback(), vec![ssh::public_line(&identity)], ports)).await.expect("starts");
    let listener = SeejobsListener::start(machine.clone(), loopback()).await.expect("listens");

    // Over TCP: with jobs in the machine, within a message, having said nothing.
    for round in 0..1000 {
        let mut stream = TcpStream::connect(listener.address()).await.expect("connects");
        let jobs: Vec<u8> = (0..5).flat_map(|tag| job(tag, b"nobody waits for the reply")).collect();
        let sent = [&jobs[..], &jobs[..jobs.len() - 7], &[]][round % 3];
        stream.write_all(sent).await.expect("is taken");
    }
    // Over SSH: channels and whole connections.
    for round in 0..20 {
        let mut ssh = ssh::connect(hsm.ssh_address(), hsm.host_key()).await.expect("connects");
        assert!(ssh::log_in(&mut ssh, "codesafe", &identity).await.success());
        let mut callers = Vec::new();
        for _ in 0..5 {
            let mut caller = ssh::caller(&ssh, SEEJOBS_PORT).await;
            caller.send(&job(1, b"nobody waits for the reply")).await;
            callers.push(caller);
        }
        if round % 2 == 0 {
            drop(callers);
        }
    }
    until("no stream and no job is left", || machine.streams() == 0 && machine.jobs() == 0).await;
    let mut caller = Caller::new(TcpStream::connect(listener.address()).await.expect("connects"));
    assert_eq!(caller.run(1, b"still here").await.into_job(), b"still here");
    drop(caller);

    // Machines that die under load.
    for _ in 0..50 {
        let mut caller = Caller::new(TcpStream::connect(listener.address()).await.expect("connects"));
        caller.send(&job(1, b"is lost")).await;
        machine.restart().expect("starts again");
    }

    listener.stop().await;
    soon(hsm.stop()).await;
    drop(machine);
    until("threads and files are as before", || held() <= before).await;
}
