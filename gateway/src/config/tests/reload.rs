//! What a reload takes over, and what it refuses.

use super::*;

const WORLD: &str = "\n[[world]]\nname = ";

fn machine(name: &str) -> String {
    format!(
        "[[machine]]\nname = \"{name}\"\naddress = \"{name}.example:22\"\nidentity = \"id\"\nhost_key = \"{HOST_KEY}\"\n"
    )
}

fn file(machines: &[&str], worlds: &[(&str, &[&str])], further: &str) -> String {
    let machines: String = machines.iter().copied().map(machine).collect();
    let world = |(name, machines): &(&str, &[&str])| format!("{WORLD}\"{name}\"\nmachines = {machines:?}\n");
    let worlds: Vec<String> = worlds.iter().map(world).collect();
    format!("listen.hardserver = []\n{further}\n{machines}{}", worlds.concat())
}

fn names(config: &Config) -> (Vec<String>, Vec<String>) {
    let mark = |name: &str, is_retired| format!("{name}{}", if is_retired { " (retired)" } else { "" });
    (
        config.machines.iter().map(|machine| mark(&machine.name, machine.is_retired)).collect(),
        config.worlds.iter().map(|world| mark(&world.name, world.is_retired)).collect(),
    )
}

#[test]
fn what_stays_keeps_its_position_and_what_goes_keeps_it_retired() {
    let site = Site::new();
    let again = |running: &Config, text: &str| {
        running.read_again(text, &site.path("seeway.toml"), []).unwrap_or_else(|problems| panic!("{problems}"))
    };
    let first = site.read(&file(&["a", "b"], &[("one", &["a", "b"]), ("two", &["b"])], ""));
    let first = first.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(names(&first), (vec!["a".into(), "b".into()], vec!["one".into(), "two".into()]));

    let second = again(&first, &file(&["c", "b"], &[("three", &["c"]), ("two", &["b", "c"])], ""));
    assert_eq!(
        names(&second),
        (
            vec!["a (retired)".into(), "b".into(), "c".into()],
            vec!["one (retired)".into(), "two".into(), "three".into()]
        )
    );
    let machines: Vec<_> = second.worlds.iter().map(|world| world.machines.as_slice()).collect();
    assert_eq!(machines, [&[0, 1][..], &[1, 2], &[2]]);
    assert_eq!(second.live_worlds().count(), 2);

    let third = again(&second, &file(&["d", "a"], &[("one", &["d", "a"])], ""));
    assert_eq!(
        names(&third),
        (
            vec!["a".into(), "b (retired)".into(), "c (retired)".into(), "d".into()],
            vec!["one".into(), "two (retired)".into(), "three (retired)".into()]
        )
    );
    assert_eq!(third.worlds[0].machines, [3, 0], "in the new file's order");
}

#[test]
fn every_key_that_needs_a_restart_is_named_with_its_line_and_nothing_else_is() {
    let site = Site::new();
    site.write("profile.toml", &seeway_proto::wire::OPEN_1.replace("open-1", "other"), 0o600);
    let worlds: &[(&str, &[&str])] = &[("one", &["a"])];
    let running = site.read(&file(&["a"], worlds, "")).unwrap_or_else(|problems| panic!("{problems}"));
    let changed = "listen.grpc = \"127.0.0.1:7000\"
listen.admin = \"\"
listen.upstream_hardserver = \"tcp:127.0.0.1:9009\"
listen.socket_mode = \"0600\"
listen.socket_group = \"0\"
runtime.shards = 77
limits.max_job_bytes = 1000
limits.caller_jobs = 77
process.sandbox = \"off\"
process.lock_memory = \"off\"
process.user = \"0\"
process.connect_ports = [\"22\", \"9009\"]
wire.profile = \"profile.toml\"";
    let text = file(&["a"], worlds, changed);
    let problems = running.read_again(&text, &site.path("seeway.toml"), []).expect_err("thirteen keys can't change");
    assert!(problems.need_restart());
    let found: Vec<_> = problems.list.iter().map(|problem| (problem.place.clone(), problem.key.as_str())).collect();
    let keys: Vec<_> = changed.lines().map(|line| line.split_once(" = ").expect("a key").0).collect();
    let wanted: Vec<_> = keys.iter().zip(2..).map(|(key, line)| (line, *key)).collect();
    let found: Vec<_> = found
        .iter()
        .map(|(place, key)| match place {
            Place::File { line, .. } => (*line, *key),
            other => panic!("{key}: {other:?}"),
        })
        .collect();
    assert_eq!(found, wanted);
    let first = problems.to_string().lines().next().map(str::to_owned).unwrap_or_default();
    assert!(first.contains("seeway.toml:2:"), "{first}");
    assert!(first.contains(": listen.grpc: can not change while the gateway runs; restart it"), "{first}");

    let free = "limits.queue = 1
limits.callers = 7
limits.pipes = 7
limits.hold = \"1s\"
ssh.keepalive = \"2s\"
runtime.drain_timeout = \"1s\"";
    let new = running.read_again(&file(&["a"], worlds, free), &site.path("seeway.toml"), []);
    let new = new.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((new.limits.queue, new.limits.callers, new.limits.pipes), (1, 7, 7));
}

#[test]
fn an_invalid_file_is_told_apart_from_one_that_needs_a_restart() {
    let site = Site::new();
    let worlds: &[(&str, &[&str])] = &[("one", &["a"])];
    let running = site.read(&file(&["a"], worlds, "")).unwrap_or_else(|problems| panic!("{problems}"));
    let text = file(&["a"], worlds, "limits.queue = 0\nlisten.admin = \"\"");
    let problems = running.read_again(&text, &site.path("seeway.toml"), []).expect_err("a queue of nothing");
    assert!(!problems.need_restart());
    assert!(problems.to_string().contains(":2:"), "{problems}");
    assert_eq!(problems.to_json()[0]["line"], 2);
    assert_eq!(problems.to_json()[0]["key"], "limits.queue");
}
