//! One of the two gateways ends, or is stopped, in the middle of an upgrade, or something else is not as it should be: no job is lost for
//! it, and none is said not to have run that may have.

use std::{
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use seeway_bench::family::send as signal;
use seeway_tests::{Gateway, Identity, audit::AuditLog, machine::seeway, process::Process, turn::Turn, wait};
use tempfile::TempDir;

use crate::estate::{BOUND, Estate, caller, is_served, next_of, reply, see_job, send, send_to, stopped, succeeded};

/// Sends a job, and waits until it is in flight, with no other at this gateway.
fn send_slow(gateway: &Gateway, stream: &mut UnixStream, tag: u32, handle: u32, job: &[u8]) {
    stream.write_all(&see_job(tag, handle, job)).expect("sent");
    let in_flight = || (gateway.metrics().sum("seeway_jobs_in_flight") > 0.5).then_some(());
    wait::until("the job is in flight", BOUND, in_flight);
}

/// A legacy connection that waits for the reply to its job 2, `slow`.
fn busy_caller(gateway: &Gateway) -> (UnixStream, u32) {
    let (mut stream, handle) = caller(gateway);
    send_slow(gateway, &mut stream, 2, handle, b"slow");
    (stream, handle)
}

/// The new gateway is killed while the old one still has a job: the old one accepts callers again, its connections stay, and another
/// upgrade succeeds.
#[test]
fn a_new_gateway_that_is_killed_leaves_the_old_one_at_work() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("slow:5000");
    let mut gateway = Gateway::ready(&estate.config);
    let (mut busy, handle) = busy_caller(&gateway);
    let old = gateway.upgrade();
    gateway.kill();
    wait::until("the old one notices it", BOUND, || old.log().contains("goes on in its place").then_some(()));
    assert_eq!(reply(&mut busy, 2), b"slow", "the job that it had");
    is_served(&mut busy, 3, handle);
    send(&gateway, "new callers come in");
    let (status, body) = gateway.get("/readyz");
    assert_eq!(status, 200, "operators, too: {body}");
    assert!(gateway.metrics().sum_where("seeway_handovers_total", "failed") > 0.5);
    send_to(&gateway.grpc(), "by gRPC");

    let _new = gateway.upgrade();
    is_served(&mut busy, 4, handle);
    succeeded(old);
}

/// Whoever has started the new gateway is gone when it is ready, as one is who presses Ctrl-C.
#[test]
fn a_new_gateway_outlives_whoever_has_started_it() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let mut gateway = Gateway::ready(&estate.config);
    let errors = gateway.folder().join("errors");
    let mut command = next_of(&gateway);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(fs::File::create(&errors).expect("the temporary folder can be written"));
    let mut new = command.spawn().expect("it starts");
    drop(new.stdout.take());
    assert_eq!(gateway.exit(BOUND).code(), Some(0), "{}", gateway.log());
    send(&gateway, "still");
    let ended = new.try_wait().expect("it can be asked");
    assert!(ended.is_none(), "{ended:?}: {}", fs::read_to_string(&errors).unwrap_or_default());
    signal(new.id(), Signal::TERM);
    assert!(new.wait().expect("it ends").success());
}

/// A third one comes while the second still takes callers over from the first: it has to wait, and nobody's connection is lost.
#[test]
fn an_upgrade_waits_for_the_one_before() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("slow:5000");
    let mut gateway = Gateway::ready(&estate.config);
    let (mut busy, handle) = busy_caller(&gateway);
    let old = gateway.upgrade();
    let mut third = Process::start("a third gateway", &mut next_of(&gateway));
    let status = third.exit(BOUND);
    let said = third.log();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("still takes callers over") && said.contains("try again"), "{said}");
    assert_eq!(reply(&mut busy, 2), b"slow");
    succeeded(old);
    send_slow(&gateway, &mut busy, 3, handle, b"moved");
    let old = gateway.upgrade();
    assert_eq!(reply(&mut busy, 3), b"moved");
    succeeded(old);
}

/// The first of three still finishes a job when the third takes over from the second, and ends before that one. The sockets are the third
/// one's then, whatever the other two do with their ends.
#[test]
fn the_names_are_the_last_ones_of_three() {
    let _turn = Turn::beside_others();
    let estate = Estate::with_timeout("slow:5000", "1s");
    let mut gateway = Gateway::ready(&estate.config);
    let (mut busy, _) = busy_caller(&gateway);
    let mut first = gateway.upgrade();
    wait::until("it gives no more", BOUND, || first.log().contains("served no longer").then_some(()));
    let mut second = gateway.upgrade();
    assert_eq!(reply(&mut busy, 2), b"slow", "the first one drains");
    for old in [&mut first, &mut second] {
        assert_eq!(old.exit(BOUND).code(), Some(0), "{}", old.log());
    }
    for name in ["nserver", "handover"] {
        assert!(gateway.folder().join(name).exists(), "{name} is gone");
    }
    send(&gateway, "still");
    stopped(gateway);
}

/// Somebody has removed a socket's file: nothing is taken over, and nobody who is there loses anything.
#[test]
fn where_a_sockets_file_is_gone_nothing_is_taken_over() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let gateway = Gateway::ready(&estate.config);
    let (mut stays, handle) = caller(&gateway);
    fs::remove_file(gateway.folder().join("nserver")).expect("it is there");
    let mut new = Process::start("the next gateway", &mut next_of(&gateway));
    assert_eq!(new.exit(BOUND).code(), Some(1), "{}", new.log());
    assert!(new.log().contains("nserver is gone") && new.log().contains("nothing was taken over"), "{}", new.log());
    is_served(&mut stays, 2, handle);
    wait::until("the running one has noticed", BOUND, || gateway.log().contains("this one goes on").then_some(()));
    send_to(&gateway.grpc(), "by gRPC");
}

/// A command is half read when the upgrade begins, and a job of the same connection takes longer than a message may.
#[test]
fn half_a_command_that_waits_for_a_slow_job_is_not_late() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("slow:5000");
    let mut gateway = Gateway::ready(&estate.config.line("limits", "message_timeout = \"3s\""));
    let (mut busy, handle) = busy_caller(&gateway);
    let second = see_job(3, handle, b"in two");
    busy.write_all(&second[..11]).expect("sent");
    let old = gateway.upgrade();
    assert_eq!(reply(&mut busy, 2), b"slow", "the connection is the gateway's to hold, not late");
    busy.write_all(&second[11..]).expect("sent");
    assert_eq!(reply(&mut busy, 3), b"in two");
    succeeded(old);
}

/// Whoever stops the service stops both, and each finishes the jobs that it has. The new one ends last: a service manager kills what is
/// left when that has ended.
#[test]
fn a_stop_in_the_middle_of_an_upgrade_finishes_the_jobs_of_both() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("slow:5000");
    let mut gateway = Gateway::ready(&estate.config);
    let (mut first, _) = busy_caller(&gateway);
    let mut old = gateway.upgrade();
    let (mut second, _) = busy_caller(&gateway);
    gateway.terminate();
    assert_eq!(reply(&mut first, 2), b"slow", "with the old one");
    assert_eq!(reply(&mut second, 2), b"slow", "with the new one");
    assert_eq!(gateway.exit(BOUND).code(), Some(0), "{}", gateway.log());
    // It had closed its connection to the new one, and may still have been at its last steps.
    assert_eq!(old.exit(BOUND).code(), Some(0), "{}", old.log());
    assert!(!gateway.log().contains("has not ended in time"), "{}", gateway.log());
}

/// The new one has nothing to do, and waits all the same.
#[test]
fn a_stop_in_the_middle_of_an_upgrade_waits_for_the_one_before() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("slow:5000");
    let mut gateway = Gateway::ready(&estate.config);
    let (mut busy, _) = busy_caller(&gateway);
    let mut old = gateway.upgrade();
    gateway.terminate();
    assert_eq!(gateway.exit(BOUND).code(), Some(0), "{}", gateway.log());
    // There already.
    busy.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
    assert_eq!(reply(&mut busy, 2), b"slow");
    assert_eq!(old.exit(BOUND).code(), Some(0), "{}", old.log());
}

/// The running gateway is stopped while a new one begins: that one does not take the place of what somebody wants to stop.
#[test]
fn a_gateway_that_is_stopped_is_not_taken_over_from() {
    let _turn = Turn::beside_others();
    let mut estate = Estate::new("slow:5000");
    let mut gateway = Gateway::ready(&estate.config);
    let (mut busy, _) = busy_caller(&gateway);
    // Nobody is let in, so that the new one can't take over before it is stopped. Tunnels that stand have processes of
    // their own.
    estate.sshd.signal_listener(Signal::STOP);
    let mut new = Process::start("the next gateway", &mut next_of(&gateway));
    wait::until("it is about to take over", BOUND, || gateway.log().contains("is about to take over").then_some(()));
    // It can say nothing until the other one has ended.
    new.signal(Signal::STOP);
    gateway.terminate();
    assert_eq!(reply(&mut busy, 2), b"slow");
    assert_eq!(gateway.exit(BOUND).code(), Some(0), "{}", gateway.log());
    estate.sshd.signal_listener(Signal::CONT);
    new.signal(Signal::CONT);
    let ended = new.exit(BOUND).code();
    let log = new.log();
    assert_eq!(ended, Some(1), "{log}");
    assert!(log.contains("nothing was taken over"), "{log}");
    assert!(!gateway.folder().join("nserver").exists(), "nothing is left");
    assert!(!gateway.folder().join("handover").exists());
}

/// An upgrade that fails leaves the audit log under its name, and what is recorded afterwards continues it.
#[test]
fn a_failed_upgrade_leaves_the_audit_log_as_it_was() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let log = folder.path().join("audit.log");
    let config = estate.config.line("audit", &format!("to = \"file:{}\"", log.display()));
    let mut gateway = Gateway::ready(&config);
    send(&gateway, "one");
    let good = fs::read_to_string(gateway.config_file()).expect("written before");
    let stranger = Identity::generate();
    let line = good.lines().find(|line| line.trim_start().starts_with("identity")).expect("it has an identity");
    gateway.rewrite_as(&good.replace(line, &format!("identity = \"{}\"", stranger.private().display())));
    let mut failed = Process::start("the next gateway", &mut next_of(&gateway));
    wait::until("it has an audit log of its own", BOUND, || {
        (fs::read_dir(folder.path()).expect("readable").count() == 2 && log.exists()).then_some(())
    });
    // It reaches no machine, and somebody is tired of waiting.
    failed.signal(Signal::TERM);
    assert_eq!(failed.exit(BOUND).code(), Some(1), "{}", failed.log());
    assert!(failed.log().contains("nothing was taken over"), "{}", failed.log());
    gateway.rewrite_as(&good);
    gateway.hang_up();
    wait::until("it has reloaded", BOUND, || {
        (gateway.metrics().sum_where("seeway_reloads_total", "ok") > 0.5).then_some(())
    });
    send(&gateway, "two");
    gateway.terminate();
    assert_eq!(gateway.exit(BOUND).code(), Some(0), "{}", gateway.log());
    let whole = AuditLog::of(&[&log]);
    assert_eq!(whole.of_event("job").len(), 2, "both jobs are in the one file");
    whole.verified();
    let others: Vec<_> = fs::read_dir(folder.path())
        .expect("readable")
        .map(|file| file.expect("readable").path())
        .filter(|file| *file != log)
        .collect();
    assert_eq!(others.len(), 1, "{others:?}");
    assert!(others[0].display().to_string().contains("not-taken-over"), "{others:?}");
    AuditLog::of(&[&others[0]]).verified();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").permissions().mode() & 0o777
}

/// Who may connect is what the new configuration says, and nobody but the gateway's own user comes to where it is taken over.
#[test]
fn sockets_have_the_modes_that_the_new_configuration_wants() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let mut gateway = Gateway::ready(&estate.config.line("listen", "socket_mode = \"0666\""));
    let (socket, handover) = (gateway.folder().join("nserver"), gateway.folder().join("handover"));
    assert_eq!((mode(&socket), mode(&handover)), (0o666, 0o600));
    let text = fs::read_to_string(gateway.config_file()).expect("written before");
    gateway.rewrite_as(&text.replace("0666", "0600"));
    succeeded(gateway.upgrade());
    assert_eq!((mode(&socket), mode(&handover)), (0o600, 0o600));
    send(&gateway, "still");
}

/// Where the new configuration does not listen any more, nobody is let in who would not be served.
#[test]
fn a_socket_that_is_not_wanted_any_more_is_gone() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let mut gateway = Gateway::ready(&estate.config);
    let (mut stays, handle) = caller(&gateway);
    let text = fs::read_to_string(gateway.config_file()).expect("written before");
    assert!(text.contains("/nserver\""), "{text}");
    gateway.rewrite_as(&text.replace("/nserver\"", "/other\""));
    let old = gateway.upgrade();
    succeeded(old);
    // The new one removes it when it has seen the old one's end.
    wait::until("the old socket's file is gone", BOUND, || (!gateway.folder().join("nserver").exists()).then_some(()));
    assert_eq!(mode(&gateway.folder().join("other")), 0o660);
    is_served(&mut stays, 2, handle);
}

/// What `systemctl reload` runs: where nothing was replaced the running gateway says what came of it, and where it can't be asked it is
/// told by a signal.
#[test]
fn a_reload_says_what_came_of_it() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let gateway = Gateway::ready(&estate.config);
    let good = fs::read_to_string(gateway.config_file()).expect("written before");
    let reload = || {
        let mut command = seeway();
        command.args(["upgrade", "--if-replaced", "--config"]).arg(gateway.config_file());
        let output = command.env("MAINPID", gateway.id().to_string()).output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let reloads = |result: &str| gateway.metrics().sum_where("seeway_reloads_total", &format!("result=\"{result}\""));
    let (status, said) = reload();
    assert!(status == Some(0) && said.contains("has reloaded"), "{said}");
    assert!(reloads("ok") > 0.5);
    // Nothing of it holds only with a restart: the file itself is wrong.
    gateway.rewrite_as(&format!("{good}\n[limit]\n"));
    let (status, said) = reload();
    assert!(status == Some(1) && said.contains("limit") && said.contains("goes on as it was"), "{said}");
    wait::until("the gateway has refused it, too", BOUND, || (reloads("refused") > 0.5).then_some(()));
    // What only a restart can change.
    gateway.rewrite_as(&good.replace("handover_timeout = \"60s\"", "handover_timeout = \"60s\"\nshards = 3"));
    let (status, said) = reload();
    assert!(status == Some(1) && said.contains("shards") && said.contains("goes on as it was"), "{said}");
    // Where nobody can take over there is the signal.
    gateway.rewrite_as(&good.replace("handover = \"unix:handover\"", ""));
    let (status, said) = reload();
    assert!(status == Some(0) && said.contains("its log says"), "{said}");
    send(&gateway, "still");
}
