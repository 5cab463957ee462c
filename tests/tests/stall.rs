//! The 40 ms stall of a plain SSH tunnel, and its absence in the gateway, side by side on the same SSH server.

use std::time::Duration;

use seeway_bench::{Load, Report, Target, Until, Way, load::Unwatched};
use seeway_tests::{Config, Gateway, Identity, Machine, Sshd, tunnel::Tunnel, turn::Turn};

/// By how much the slowest of a thousand jobs through the tunnel must exceed that through the gateway. It is 43 ms to about 1 ms on
/// an idle machine.
const RATIO: f64 = 4.0;
/// Measurements before the claim is given up: somebody else's work may slow any one of them. Of each side the best one
/// counts.
const TRIES: usize = 6;

#[test]
fn a_plain_tunnel_stalls_and_the_gateway_does_not() {
    let _turn = Turn::alone();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let machine = Machine::start("echo");
    let config = Config::of_one(&sshd, &machine, &identity, "echo");
    let gateway = Gateway::ready(&config);
    let tunnel = Tunnel::open(sshd.door(), &identity, machine.seejobs().port());

    let mut measured = Vec::new();
    let (mut best_plain, mut best_pooled) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..TRIES {
        let plain = measure(Target::Unix(tunnel.socket()), None);
        let pooled = measure(gateway.unix(), Some("echo"));
        println!("             {}\nssh -N -L    {plain}\nthe gateway  {pooled}", Report::heading());
        best_plain = best_plain.min(plain.p99_9_us);
        best_pooled = best_pooled.min(pooled.p99_9_us);
        if best_plain >= RATIO * best_pooled {
            return;
        }
        measured.push((plain.p99_9_us, pooled.p99_9_us));
    }
    panic!(
        "the best p99.9 of the tunnel is never {RATIO} times the gateway's best; (tunnel, gateway) in µs: {measured:?}"
    );
}

fn measure(target: Target, world: Option<&str>) -> Report {
    let load = Load {
        in_flight: 16,
        warm_up: Duration::ZERO,
        until: Until::Elapsed(Duration::from_secs(4)),
        ..Load::new(Way::Wire(target), world)
    };
    let report = load.run(&mut Unwatched).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.failed(), 0, "{report}");
    report
}
