//! Each thing that can be wrong with a file, one at a time: its line, its key, what is wrong and what to do.

use std::fs;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

use super::{HOST_KEY, Site, good, rng, with};

#[test]
fn each_problem_has_its_line_its_key_and_what_to_do() {
    let site = Site::new();
    site.write("open", &fs::read_to_string(site.path("id")).expect("there"), 0o640);
    site.write("text", "hello", 0o600);
    site.write("hosts", &format!("other.example {HOST_KEY}\n"), 0o644);
    site.write("bad-hosts", "hsm-a.example ssh-ed25519 AAAA\n", 0o644);
    std::os::unix::fs::symlink(".", site.path("here")).expect("made");
    let more_listen = |line: &str| with("admin = \"\"\n", &format!("admin = \"\"\n{line}\n"));
    let more_machine = |line: &str| with("identity = \"id\"\n", &format!("identity = \"id\"\n{line}\n"));
    let more_world = |line: &str| format!("{}{line}\n", good());
    let section = |lines: &str| format!("{}\n{lines}\n", good());
    let host_key = format!("host_key = \"{HOST_KEY}\"");
    let cases = [
        // Syntax.
        (with("grpc = \"127.0.0.1:0\"", "grpc = 127.0.0.1:0"), "2: grpc: is not TOML", "double quotes"),
        (with("admin = \"\"", "admin ="), "4: admin: is not TOML", "after the ="),
        (with("admin = \"\"", "admin"), "4: admin: is not TOML", "key = value"),
        (with("admin = \"\"", "admin = \"x"), "4: admin: is not TOML", "same quote"),
        (with("\"tcp:[::1]:0\"]", "\"tcp:[::1]:0\""), "3: hardserver: is not TOML", "] at its end"),
        (with("[[world]]", "[[world]"), "18: : is not TOML", "[[name]]"),
        // Tables and keys that there are not.
        (section("[limit]\nqueue = 5"), "22: limit: is not a table", "did you mean [limits]?"),
        (section("[colours]\nred = 5"), "22: colours: is not a table", "the tables are [listen], [tls], "),
        (section("[a.b]"), "22: a.b: is not a table", "the tables are"),
        (more_machine("adress = \"x\""), "10: machine[hsm-a].adress: is not a key", "did you mean address?"),
        (more_machine("queue = 1"), "10: machine[hsm-a].queue: is not a key", "belongs under [limits]"),
        (more_world("colour = 1"), "21: world[signer].colour: is not a key", "published_as, machines, idempotent"),
        (format!("queue = 1\n{}", good()), "1: queue: is not a key that stands outside", "under [limits]"),
        (with("[[world]]", "[world]"), "18: world: is a table that may stand many times", "write [[world]]"),
        (with("[listen]", "[[listen]]"), "1: listen: is a table that stands once", "write [listen]"),
        (section("[listen]"), "22: listen: stands here a second time, first in line 1", "under one header"),
        (more_listen("admin = \"\""), "5: listen.admin: stands here a second time, first in line 4", "keep one"),
        (format!("limits = 3\n{}", good()), "1: limits: is an integer", "write [limits]"),
        // Types and ranges.
        (with("admin = \"\"", "admin = 9464"), "4: listen.admin: is an integer", "a string in double quotes"),
        (with("[\"hsm-a\", \"hsm-b\"]", "\"hsm-a\""), "20: world[signer].machines: is a string", "a list of strings"),
        (with("[\"hsm-a\", \"hsm-b\"]", "[1]"), "20: world[signer].machines: holds an integer", "a list of strings"),
        (more_world("idempotent = \"yes\""), "21: world[signer].idempotent: is a string", "true or false"),
        (more_machine("tunnels = \"2\""), "10: machine[hsm-a].tunnels: is a string", "a whole number from 1 to 64"),
        (more_machine("tunnels = 0"), "10: machine[hsm-a].tunnels: is 0, below 1", "from 1 to 64"),
        (more_machine("channels = -1"), "10: machine[hsm-a].channels: is below zero", "from 1 to 64"),
        (more_machine("channels = 1.5"), "10: machine[hsm-a].channels: is a float", "a whole number"),
        (more_machine("max_in_flight = 65537"), "10: machine[hsm-a].max_in_flight: is 65537, above 65536", "65536"),
        (more_machine("seejobs_port = 0"), "10: machine[hsm-a].seejobs_port: is 0", "from 1 to 65535"),
        (more_machine("seejobs_port = 99999999999999999999"), "10: machine[hsm-a].seejobs_port: is not a", "from 1"),
        (section("[limits]\nqueue = 0"), "23: limits.queue: is 0", "from 1"),
        (section("[limits]\nmax_job_bytes = 16777173"), "23: limits.max_job_bytes: is 16777173", "to 16777172"),
        (section("[runtime]\nshards = \"all\""), "23: runtime.shards: is a string", "\"auto\" or a whole number"),
        (section("[runtime]\nshards = 0"), "23: runtime.shards: is 0", "from 1 to 256"),
        // Durations.
        (section("[limits]\nhold = 35"), "23: limits.hold: is the number 35, without a unit", "such as \"35s\""),
        (section("[limits]\nhold = \"35\""), "23: limits.hold: `35` has no unit", "such as \"35s\""),
        (section("[limits]\nhold = \"soon\""), "23: limits.hold: `soon` is not a duration", "such as \"35s\""),
        (section("[limits]\ndefault_timeout = \"0s\""), "23: limits.default_timeout: is zero", "above zero"),
        (
            section("[ssh]\nretry_max = \"100ms\""),
            "23: ssh.retry_max: is 100ms, shorter than connect_retry (200ms)",
            "",
        ),
        (section("[ssh]\nkeepalive = \"2m\""), "23: ssh.broken_after: is 90s, shorter than", "broken_after = \"150s\""),
        // What is missing.
        (with("name = \"hsm-a\"\n", "").replace("\"hsm-a\", ", ""), "6: machine[0].name: is missing", "add name = "),
        (with("address = \"hsm-a.example:22\"\n", ""), "6: machine[hsm-a].address: is missing", "add address"),
        (with("identity = \"id\"\n", ""), "6: machine[hsm-a].identity: is missing", "add identity"),
        (
            with(&format!("{host_key}\n"), ""),
            "6: machine[hsm-a].host_key: is missing, and known_hosts and host_ca too",
            "known_hosts",
        ),
        (
            with("machines = [\"hsm-a\", \"hsm-b\"]\n", ""),
            "18: world[signer].machines: is missing",
            "add machines = [\"…\"]",
        ),
        // Names.
        (
            with("name = \"hsm-b\"", "name = \"hsm-a\"").replace(", \"hsm-b\"", ""),
            "13: machine[hsm-a].name: the name `hsm-a` is already taken, in line 7",
            "of its own",
        ),
        (
            with("name = \"hsm-b\"", "name = \"none\"").replace(", \"hsm-b\"", ", \"none\""),
            "13: machine[none].name: `none` is what metrics say",
            "another name",
        ),
        (
            with("name = \"hsm-a\"", "name = \"hsm a\"").replace("\"hsm-a\", ", ""),
            "7: machine[0].name: \"hsm a\" is not a name",
            "write 1 to",
        ),
        (
            with("\"hsm-a\", \"hsm-b\"", "\"hsm-a\", \"hsm-c\""),
            "20: world[signer].machines: there is no machine `hsm-c`",
            "did you mean",
        ),
        (
            with("\"hsm-a\", \"hsm-b\"", "\"other\""),
            "20: world[signer].machines: there is no machine `other`",
            "add a [[machine]]",
        ),
        (
            with("\"hsm-a\", \"hsm-b\"", "\"hsm-a\",\n  \"hsm-a\""),
            "21: world[signer].machines: names the machine `hsm-a` twice",
            "out",
        ),
        (with("[\"hsm-a\", \"hsm-b\"]", "[]"), "20: world[signer].machines: is empty", "at least one"),
        (
            section("[[world]]\nname = \"signer\"\nmachines = [\"hsm-a\"]"),
            "23: world[signer].name: the name `signer` is already taken, in line 19",
            "of its own",
        ),
        (
            section("[[world]]\nname = \"other\"\npublished_as = \"signer\"\nmachines = [\"hsm-a\"]"),
            "24: world[other].published_as: `signer` is already published, by line 19",
            "of its own",
        ),
        (more_world("published_as = \"\""), "21: world[signer].published_as: \"\" can not be published", "1 to 255"),
        // Addresses.
        (
            with("\"127.0.0.1:0\"", "\"0.0.0.0:50051\""),
            "2: listen.grpc: 0.0.0.0:50051 is not a loopback address",
            "or with TLS",
        ),
        (
            with("tcp:[::1]:0", "tcp:[::]:9000"),
            "3: listen.hardserver: [::]:9000 is not a loopback address",
            "or with TLS",
        ),
        (
            with("admin = \"\"", "admin = \"192.0.2.1:1\""),
            "4: listen.admin: 192.0.2.1:1 is not a loopback",
            "set listen.management",
        ),
        (
            with("admin = \"\"", "admin = \"localhost:65536\""),
            "4: listen.admin: has the port `65536`",
            "from 1 to 65535",
        ),
        (with("\"unix:s\"", "\"unix:no/s\""), "3: listen.hardserver: the directory", "make it"),
        (with("\"unix:s\"", "\"/s\""), "3: listen.hardserver: `/s` is neither", "\"unix:/path\""),
        (with("\"unix:s\"", "\"unix:s\", \"unix:s\""), "3: listen.hardserver: unix:", "of its own"),
        (with("\"unix:s\"", "\"unix:s\", \"unix:here/s\""), "3: listen.hardserver: unix:", "of its own"),
        (
            with("admin = \"\"", "admin = \"\"\nupstream_hardserver = \"unix:s\""),
            "5: listen.upstream_hardserver: unix:",
            "where the real hardserver listens",
        ),
        (
            with("admin = \"\"", "admin = \"\"\nupstream_hardserver = \"unix:here/s\""),
            "5: listen.upstream_hardserver: unix:",
            "/s, which is where Seeway listens itself, as listen.hardserver; write where the real hardserver listens",
        ),
        (
            with("admin = \"\"", "admin = \"127.0.0.1:7\"\nupstream_hardserver = \"tcp:localhost:7\""),
            "5: listen.upstream_hardserver: tcp:127.0.0.1:7 is where Seeway listens itself, as listen.admin",
            "where the real hardserver listens",
        ),
        (
            with("admin = \"\"", "admin = \"\"\nupstream_hardserver = \"tcp:127.0.0.1:0\""),
            "5: listen.upstream_hardserver: has the port 0",
            "the port that",
        ),
        (
            with("\"127.0.0.1:0\"", "\"127.0.0.1:7\"").replace("admin = \"\"", "admin = \"localhost:7\""),
            "4: listen.admin: tcp:127.0.0.1:7 is already listen.grpc",
            "of its own",
        ),
        (
            with("hsm-a.example:22", "hsm-a.example"),
            "8: machine[hsm-a].address: `hsm-a.example` has no port",
            "host and a port",
        ),
        (with("hsm-a.example:22", "hsm-a.example:0"), "8: machine[hsm-a].address: has the port `0`", "from 1 to 65535"),
        (
            with("hsm-a.example:22", "2001:db8::1"),
            "8: machine[hsm-a].address: `2001:db8::1` is an IPv6 address without",
            "22",
        ),
        (more_machine("seejobs_host = \"a b\""), "10: machine[hsm-a].seejobs_host: `a b` is neither", "127.0.0.1"),
        (more_machine("user = \"\""), "10: machine[hsm-a].user: \"\" is not a login", "login"),
        (more_listen("socket_mode = \"rw\""), "5: listen.socket_mode: `rw` is not a mode", "octal"),
        (more_listen("socket_mode = \"0440\""), "5: listen.socket_mode: `0440` is not a mode", "octal"),
        (
            more_listen("socket_group = \"no-such-group\""),
            "5: listen.socket_group: this computer has no group",
            "groupadd",
        ),
        // Keys and files.
        (with(HOST_KEY, "ssh-ed25519 AAAA"), "10: machine[hsm-a].host_key: is not a public key", "copy the server's"),
        (with(HOST_KEY, "SHA256:abc"), "10: machine[hsm-a].host_key: is a fingerprint", "copy the server's"),
        (
            with(&host_key, &format!("{host_key}\nknown_hosts = \"hosts\"")),
            "11: machine[hsm-a].known_hosts: host_key and known_hosts are both there, the first in line 10",
            "keep one",
        ),
        (with(&host_key, "known_hosts = \"no-file\""), "10: machine[hsm-a].known_hosts: the file", "make it"),
        (
            with(&host_key, "known_hosts = \"hosts\""),
            "10: machine[hsm-a].known_hosts: ",
            "ssh-keyscan -p 22 hsm-a.example",
        ),
        (with(&host_key, "known_hosts = \"bad-hosts\""), "10: machine[hsm-a].known_hosts: ", "that line"),
        (with(&host_key, "known_hosts = \".\""), "10: machine[hsm-a].known_hosts: ", "name a file"),
        (with("identity = \"id\"", "identity = \"no-file\""), "9: machine[hsm-a].identity: the file", "make it"),
        (with("identity = \"id\"", "identity = \"open\""), "9: machine[hsm-a].identity: the private key", "chmod 600"),
        (with("identity = \"id\"", "identity = \"text\""), "9: machine[hsm-a].identity: ", "seeway keygen"),
        (with("identity = \"id\"", "identity = \".\""), "9: machine[hsm-a].identity: ", "is not a file"),
        (with("identity = \"id\"", "identity = \"\""), "9: machine[hsm-a].identity: is empty", "name of a file"),
        (section("[wire]\nprofile = \"no-file\""), "23: wire.profile: the file", "make it"),
        (section("[wire]\nprofile = \"text\""), "23: wire.profile: ", "correct that file"),
        // What does not fit together.
        (
            section("[limits]\nmax_job_bytes = 2000000"),
            "22: limits.channel_buffer_bytes: is 1048576, too small",
            "2000044",
        ),
        (
            section("[limits]\ncaller_buffer_bytes = 262143"),
            "23: limits.caller_buffer_bytes: is 262143, too small",
            "write 262144",
        ),
    ];
    for (text, begins, contains) in &cases {
        let problem = site.problem(text);
        assert!(problem.starts_with(begins) && problem.contains(contains), "{problem}\n{begins} … {contains}\n{text}");
    }
}

#[test]
fn what_is_said_of_logging_in_has_to_fit_together() {
    let site = Site::new();
    let key = PrivateKey::random(&mut rng(), Algorithm::Ed25519).expect("a key");
    let encrypted = key.encrypt(&mut rng(), "secret").expect("encrypted");
    site.write("locked", &encrypted.to_openssh(LineEnding::LF).expect("encoded"), 0o600);
    site.write("right", "secret\n", 0o600);
    site.write("wrong", "Secret\n", 0o600);
    site.write("open", "secret\n", 0o644);
    let identity = |lines: &str| with("identity = \"id\"", lines);
    site.read(&identity("identity = \"locked\"\nidentity_passphrase = \"right\"")).expect("no problems");
    let of_agent = site.read(&identity("identity = \"id.pub\"\nagent = \"agent\"")).expect("no problems");
    assert_eq!(of_agent.machines[0].identity.agent(), Some(site.path("agent").as_path()));
    for (lines, begins, contains) in [
        (
            "identity = \"locked\"\nidentity_passphrase = \"wrong\"",
            "9: machine[hsm-a].identity: ",
            "another passphrase",
        ),
        (
            "identity = \"locked\"\nidentity_passphrase = \"open\"",
            "10: machine[hsm-a].identity_passphrase: ",
            "mode 0644",
        ),
        (
            "identity = \"locked\"\nidentity_passphrase = \"none\"",
            "10: machine[hsm-a].identity_passphrase: ",
            "not there",
        ),
        ("identity = \"id\"\nidentity_passphrase = \"right\"", "9: machine[hsm-a].identity: ", "has no passphrase"),
        ("identity = \"id\"\nagent = \"agent\"", "9: machine[hsm-a].identity: ", "is a private key"),
        ("identity = \"id.pub\"", "9: machine[hsm-a].identity: ", "public half"),
        (
            "identity = \"id.pub\"\nagent = \"agent\"\nidentity_passphrase = \"right\"",
            "11: machine[hsm-a].identity_passphrase: ",
            "an agent has",
        ),
        ("identity = \"id\"\ncertificate = \"id.pub\"", "10: machine[hsm-a].certificate: ", "does not parse"),
        ("identity = \"id\"\ncertificate = \"none\"", "10: machine[hsm-a].certificate: ", "not there"),
        ("identity = \"credential:../id\"", "9: machine[hsm-a].identity: ", "names no credential"),
    ] {
        let problem = site.problem(&identity(lines));
        assert!(problem.starts_with(begins) && problem.contains(contains), "{lines}: {problem}");
        assert!(!problem.contains("ecret\n"), "{problem}");
    }
    let host_key = format!("host_key = \"{HOST_KEY}\"");
    let trusting = site.read(&with(&host_key, &format!("host_ca = \"{HOST_KEY}\""))).expect("no problems");
    assert!(trusting.machines[0].host_key.fingerprints()[0].starts_with("@cert-authority "));
    let problem = site.problem(&with(&host_key, &format!("{host_key}\nhost_ca = \"{HOST_KEY}\"")));
    assert!(
        problem.starts_with("11: machine[hsm-a].host_ca: host_key and host_ca are both there, the first in line 10")
    );
    let problem = site.problem(&with(&host_key, "host_ca = \"SHA256:abc\""));
    assert!(problem.starts_with("10: machine[hsm-a].host_ca: is a fingerprint"), "{problem}");
    let problem = site.problem(&format!("{}[ssh]\nalgorithms = \"FIPS\"\n", good()));
    assert!(problem.contains("ssh.algorithms: `FIPS` is no policy") && problem.contains("\"fips\""), "{problem}");
}

/// Found by fuzzing: a key that is pasted where a name belongs was repeated in the problem, and so came into logs.
#[test]
fn a_key_that_was_pasted_anywhere_is_not_repeated() {
    let site = Site::new();
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ";
    let text = with("name = \"signer\"", &format!("name = \"{key}\""));
    let text = format!(
        "{text}\"{key}\" = 1\n[[permission]]\nwho = [\"user:alice\"]\nmay = [\"{key}\"]\nworlds = [\"b3BlbnNzaC1rZXktdjEAAAA\"]\n"
    );
    let problems = site.read(&text).expect_err("none of it is right");
    assert!(problems.list.len() >= 4, "{problems}");
    for shown in [problems.to_string(), problems.to_json().to_string(), format!("{problems:?}")] {
        assert!(!shown.contains("PRIVATE KEY") && !shown.contains("b3BlbnNzaC1rZXkt"), "{shown}");
        assert!(
            shown.contains("put the key into a file of its own") || shown.contains("a private key's text"),
            "{shown}"
        );
    }
}
