//! Peers in another language, written from the specification: none of them shares a line with Seeway.

use std::{net::Ipv4Addr, path::Path};

use seeway_tests::{Config, Gateway, Identity, Machine, Sshd, ports, python, turn::Turn};

#[test]
fn a_legacy_client_tries_every_row_of_the_bad_input_table() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let (echo, slow) = (Machine::start("echo"), Machine::start("slow:400"));
    let config = echo_and_slow(&identity, &sshd, &echo, &slow);
    let gateway = Gateway::ready(&config);
    python::run(
        "wire_test.py",
        [
            "--gateway",
            &gateway.unix().to_string(),
            "--gateway",
            &gateway.tcp4().to_string(),
            "--gateway",
            &gateway.tcp6().to_string(),
            "--machine",
            &format!("tcp:{}", echo.seejobs()),
            "--slow-machine",
            &format!("tcp:{}", slow.seejobs()),
        ],
    );
}

#[test]
fn a_legacy_client_finds_the_limits_where_they_are_configured() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let (echo, slow) = (Machine::start("echo"), Machine::start("slow:400"));
    let config = echo_and_slow(&identity, &sshd, &echo, &slow).line("limits", "max_job_bytes = 1001");
    let gateway = Gateway::ready(&config);
    python::run("wire_test.py", ["--gateway", &gateway.unix().to_string(), "--max-job", "1001"]);
}

#[test]
fn a_machine_misbehaves_and_callers_are_told_the_truth() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let machine = format!("127.0.0.1:{}", ports::free(Ipv4Addr::LOCALHOST.into()));
    let address = machine.parse().expect("an address");
    let config = Config::new()
        .machine("bad", sshd.door(), address, &identity, "tunnels = 1\nchannels = 1")
        .world("bad", &["bad"], "")
        .line("ssh", "retry_max = \"200ms\"")
        .line("limits", "default_timeout = \"3s\"\nhold = \"2s\"");
    let gateway = Gateway::start(&config);
    python::run(
        "bad_machine_test.py",
        ["--listen", &machine, "--gateway", &gateway.unix().to_string(), "--world", "bad"],
    );
}

#[test]
fn a_grpc_client_in_another_language() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let (echo, slow, faulty) = (Machine::start("echo"), Machine::start("slow:1500"), Machine::start("faulty:1"));
    let nobody = ports::Nobody::on_loopback();
    let config = Config::new()
        .machine("hsm-echo", sshd.door(), echo.seejobs(), &identity, "")
        .machine("hsm-slow", sshd.door(), slow.seejobs(), &identity, "max_in_flight = 4")
        .machine("hsm-faulty", sshd.door(), faulty.seejobs(), &identity, "")
        .machine("hsm-dark", sshd.door(), nobody.address(), &identity, "")
        .world("echo", &["hsm-echo"], "published_as = \"the echo world\"")
        .world("slow", &["hsm-slow"], "")
        .world("faulty", &["hsm-faulty"], "")
        .world("dark", &["hsm-dark"], "")
        .line("limits", "hold = \"1s\"\nqueue = 256");
    let gateway = Gateway::start(&config);
    gateway.until_up(&["hsm-echo", "hsm-slow", "hsm-faulty"]);
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let address = gateway.grpc().to_string().replace("grpc://", "");
    python::run("grpc_client_test.py", ["--grpc", &address, "--schema", &schema.to_string_lossy()]);
}

fn echo_and_slow(identity: &Identity, sshd: &Sshd, echo: &Machine, slow: &Machine) -> Config {
    Config::new()
        .machine("hsm-echo", sshd.door(), echo.seejobs(), identity, "")
        .machine("hsm-slow", sshd.door(), slow.seejobs(), identity, "")
        .world("echo", &["hsm-echo"], "")
        .world("slow", &["hsm-slow"], "")
}
