//! Keys change under load, one kind of login after the other: each reload makes tunnels with the new key, then the old ones drain,
//! and every job is replied to.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use seeway_tests::keys::run;
use seeway_tests::load::Load;
use seeway_tests::{Agent, Config, Gateway, Identity, Machine, Sshd, turn::Turn, wait};
use tempfile::TempDir;

fn make(folder: &Path, name: &str, passphrase: &str) -> PathBuf {
    let key = folder.join(name);
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-C", "", "-N", passphrase, "-f"]).arg(&key));
    key
}

fn public(key: &Path) -> String {
    fs::read_to_string(key.with_extension("pub")).expect("ssh-keygen wrote it")
}

/// `SHA256:…`, as a server logs it.
fn fingerprint(key: &Path) -> String {
    let listed = run(Command::new("ssh-keygen").arg("-l").arg("-f").arg(key.with_extension("pub")));
    listed.split_whitespace().nth(1).expect("size, fingerprint, comment").to_owned()
}

/// A gateway at work and the server that it logs in to.
struct Site {
    gateway: Gateway,
    sshd: Sshd,
    authorized_keys: PathBuf,
}

impl Site {
    /// The server lets these in from its next login on, and nobody else.
    fn authorize(&self, keys: &[&Path]) {
        fs::write(&self.authorized_keys, keys.iter().map(|key| public(key)).collect::<String>()).expect("it is ours");
    }

    fn logins(&self, with: &str) -> usize {
        self.sshd.log().lines().filter(|line| line.contains("Accepted publickey for") && line.contains(with)).count()
    }

    /// Has the gateway read everything again, as a service manager does; waits until all its tunnels are logged in with what the
    /// server's log names so, and nothing drains any more.
    fn rotate(&mut self, with: &str) {
        let sum = |gateway: &Gateway, name: &str, label: &str| gateway.metrics().sum_where(name, label);
        let made_before = sum(&self.gateway, "seeway_tunnels_made_total", "");
        let reloads_before = sum(&self.gateway, "seeway_reloads_total", "result=\"ok\"");
        let logins_before = self.logins(with);
        self.gateway.hang_up();
        let made = || sum(&self.gateway, "seeway_tunnels_made_total", "");
        let tunnels = |state: &str| sum(&self.gateway, "seeway_tunnels", &format!("state=\"{state}\""));
        let is_reloaded = || sum(&self.gateway, "seeway_reloads_total", "result=\"ok\"") > reloads_before + 0.5;
        wait::until("it has reloaded", wait::BOUND, || is_reloaded().then_some(()));
        wait::until("a tunnel is logged in with the new key", wait::BOUND, || {
            (made() > made_before + 0.5 && self.logins(with) > logins_before).then_some(())
        });
        wait::until("the old one is gone", wait::BOUND, || {
            ((tunnels("ready") - 1.0).abs() < 0.5 && tunnels("draining").abs() < 0.5).then_some(())
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_without_a_lost_job() {
    let _turn = Turn::beside_others();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let in_folder = |name: &str| folder.path().join(name);
    let [old, new, locked, in_agent, certified] = ["old", "new", "locked", "in-agent", "certified"]
        .map(|name| make(folder.path(), name, if name == "locked" { "the passphrase" } else { "" }));
    let authority = make(folder.path(), "authority", "");
    let agent = Agent::start();
    agent.add(&in_agent);

    let identity = Identity::generate();
    let trusted = format!("TrustedUserCAKeys {}.pub", authority.display());
    let sshd = Sshd::start_with(&identity, Ipv4Addr::LOCALHOST.into(), &trusted);
    let (door, machine) = (sshd.door().clone(), Machine::start("echo"));
    let config = |ours: &str, theirs: &str| {
        Config::new()
            .machine_with("hsm", &door, machine.seejobs(), &format!("{ours}\n{theirs}\nbulk_channels = 0"))
            .world("w", &["hsm"], "")
            .line("runtime", "shards = 1")
    };
    let pinned = format!("host_key = {:?}", door.host_key);
    let of_file = "identity = \"";
    // One name for whatever key is to be used.
    let file = in_folder("identity");
    let ours = format!("{of_file}{}\"", file.display());
    fs::copy(&old, &file).expect("it is ours");

    let authorized_keys = identity.authorized_keys();
    fs::write(&authorized_keys, public(&old)).expect("it is ours");
    let gateway = Gateway::ready(&config(&ours, &pinned));
    let mut site = Site { gateway, sshd, authorized_keys };
    // The server's log is read a little later than the tunnel is used.
    wait::until("the old key has logged in", wait::BOUND, || (site.logins(&fingerprint(&old)) > 0).then_some(()));
    assert_eq!(site.logins(&fingerprint(&old)), 1);
    let load = Load::start(&site.gateway, "w");

    // Another key in the same file: the configuration's text is as it was.
    site.authorize(&[&old, &new]);
    fs::copy(&new, in_folder("identity.next")).expect("it is ours");
    fs::rename(in_folder("identity.next"), &file).expect("it is ours");
    site.rotate(&fingerprint(&new));

    // The old key's time is over. One that has a passphrase comes next.
    site.authorize(&[&new, &locked]);
    let passphrase = in_folder("passphrase");
    fs::copy(&file, &passphrase).expect("a file of ours only");
    fs::write(&passphrase, "the passphrase\n").expect("it is ours");
    let ours = format!("{of_file}{}\"\nidentity_passphrase = \"{}\"", locked.display(), passphrase.display());
    site.gateway.rewrite(&config(&ours, &pinned));
    site.rotate(&fingerprint(&locked));

    // Then one that an agent has.
    site.authorize(&[&locked, &in_agent]);
    let ours = format!("{of_file}{}.pub\"\nagent = \"{}\"", in_agent.display(), agent.socket().display());
    site.gateway.rewrite(&config(&ours, &pinned));
    site.rotate(&fingerprint(&in_agent));

    // Then one with a certificate, and another certificate for the same key in the same file.
    let sign = |id: &str| {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-I", id, "-n", &door.user, "-V", "-5m:+1h", "-s"]).arg(&authority);
        run(keygen.arg(certified.with_extension("pub")));
    };
    sign("first");
    let ours = format!("{of_file}{0}\"\ncertificate = \"{0}-cert.pub\"", certified.display());
    site.gateway.rewrite(&config(&ours, &pinned));
    site.rotate("ID first (serial 0)");
    site.authorize(&[]);
    sign("second");
    site.rotate("ID second (serial 0)");

    // Then the server's keys are known from elsewhere.
    let known_hosts = in_folder("known_hosts");
    let line = |key: &str| format!("[{}]:{} {key}\n", door.address.ip(), door.address.port());
    fs::write(&known_hosts, line(&door.host_key) + &line(public(&new).trim())).expect("it is ours");
    site.gateway.rewrite(&config(&ours, &format!("known_hosts = \"{}\"", known_hosts.display())));
    site.rotate("ID second (serial 0)");

    // What is broken is not taken over, and the tunnel stands.
    fs::write(&passphrase, "another one\n").expect("it is ours");
    let ours = format!("{of_file}{}\"\nidentity_passphrase = \"{}\"", locked.display(), passphrase.display());
    site.gateway.rewrite(&config(&ours, &pinned));
    site.gateway.hang_up();
    let refused = || site.gateway.metrics().sum_where("seeway_reloads_total", "result=\"refused\"") > 0.5;
    wait::until("the reload is refused", wait::BOUND, || refused().then_some(()));
    wait::until("the log says why", wait::BOUND, || site.gateway.log().contains("another passphrase").then_some(()));
    assert!(!site.gateway.log().contains("the passphrase\n"));

    let answered = load.finish().await;
    assert!(answered > 1000, "each of {answered} was replied to");
    assert!(site.gateway.metrics().sum("seeway_tunnels_refused_total") < 0.5, "no login was refused");
    println!("{answered} jobs, all replied to, over 6 rotations");
}
