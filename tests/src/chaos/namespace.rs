//! Network namespaces, as root or, where the kernel lets them, as anybody.
//!
//! The whole test runs again in a namespace of its own, so that the interfaces that it makes are nobody else's and are gone with it.
//! Who is not root is root in a user namespace around it.

use std::{
    env,
    process::{Command, ExitStatus, Stdio},
};

use rustix::process::{getegid, geteuid};

use crate::{sshd, within::Within};

/// Set within: who runs the tests, as `UID:GID:NAME`.
const INSIDE: &str = "SEEWAY_CHAOS_INSIDE";

/// Whether this process runs in the test's namespace.
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Whether this kernel and this user have network namespaces, and the programs to make them.
pub fn are_there() -> Result<(), String> {
    let script = "ip link set lo up && ip link add probe0 type veth peer name probe1";
    let tried = unshare().args(["sh", "-ec", script]).stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare can't be started: {error}")),
    }
}

/// Runs the test `name` of this binary in a network namespace, and waits for its end.
pub fn run_inside(name: &str) -> ExitStatus {
    let test = env::current_exe().expect("a running test has a path");
    let who = format!("{}:{}:{}", geteuid().as_raw(), getegid().as_raw(), sshd::user());
    unshare()
        .args(["--kill-child", "--fork", "sh", "-ec", r#"ip link set lo up; exec "$0" "$@""#])
        .arg(test)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, who)
        .stdin(Stdio::null())
        .status()
        .expect("unshare could be started a moment ago")
}

/// Where an SSH server runs that stands in the network namespace of process `holder`: as who runs the tests, since a server that
/// takes itself for root would want rights that a user namespace does not give.
pub fn of_server(holder: u32) -> Within {
    let mut within = of_program(holder);
    let who = env::var(INSIDE).expect("it was set for the whole namespace");
    let [user, group, name] = who.splitn(3, ':').collect::<Vec<_>>()[..] else { panic!("{INSIDE} is {who:?}") };
    if user != "0" {
        let back_again = ["unshare", "--user", &format!("--map-user={user}"), &format!("--map-group={group}")];
        within.words.extend(back_again.map(str::to_owned));
        within.user = Some(name.to_owned());
    }
    within
}

/// Where any other program runs that stands in the network namespace of process `holder`.
pub fn of_program(holder: u32) -> Within {
    let words = ["nsenter", "--target", &holder.to_string(), "--net"];
    Within { words: words.map(str::to_owned).to_vec(), user: None }
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--net");
    command
}
