//! An emulated CodeSafe machine, and where the binary under test is found.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Door, Identity, journal::Journal, keys, ports, process::Process, within::Within};

/// A command of the binary under test: `SEEWAY_BIN`, or the one that Cargo built beside this test.
pub fn seeway() -> Command {
    seeway_within(&Within::default())
}

fn seeway_within(within: &Within) -> Command {
    let mut command = within.command(binary().as_os_str());
    // A variable of the developer's shell must not change what is tested.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEEWAY_")) {
        command.env_remove(name);
    }
    command
}

fn binary() -> PathBuf {
    if let Some(path) = env::var_os("SEEWAY_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "SEEWAY_BIN says {}, and there is no such file", path.display());
        return path;
    }
    // target/PROFILE/deps/TEST
    let test = env::current_exe().expect("a running test has a path");
    let profile = test.ancestors().nth(2).expect("Cargo puts tests three folders deep");
    let path = profile.join("seeway");
    assert!(path.is_file(), "{} is missing: run `cargo build`, or tests/run, which does", path.display());
    path
}

/// A running machine.
pub struct Machine {
    process: Process,
    seejobs: SocketAddr,
    door: Option<Door>,
    journal: Journal,
    options: Options,
    folder: TempDir,
}

struct Options {
    app: String,
    authorized_keys: Option<PathBuf>,
    within: Within,
}

impl Machine {
    /// Starts one that takes SEEJobs on a plain TCP port, to stand behind a real SSH server.
    pub fn start(app: &str) -> Self {
        Self::start_within(app, Within::default())
    }

    /// [`Self::start`] within a network namespace.
    pub fn start_within(app: &str, within: Within) -> Self {
        Self::launch(Options { app: app.to_owned(), authorized_keys: None, within }, "127.0.0.1:0", "")
    }

    /// Starts one behind an SSH server of its own, the emulated HSM's, on `ssh`.
    pub fn start_with_ssh(app: &str, identity: &Identity, ssh: &str) -> Self {
        Self::launch(
            Options {
                app: app.to_owned(),
                authorized_keys: Some(identity.authorized_keys()),
                within: Within::default(),
            },
            "127.0.0.1:0",
            ssh,
        )
    }

    /// Two that echo, each behind an SSH server of its own, on a port that it keeps when it is started again.
    pub fn pair(identity: &Identity) -> [Self; 2] {
        ["first", "second"].map(|_| {
            let ssh = format!("127.0.0.1:{}", ports::free(Ipv4Addr::LOCALHOST.into()));
            Self::start_with_ssh("echo", identity, &ssh)
        })
    }

    fn launch(options: Options, seejobs: &str, ssh: &str) -> Self {
        let folder = TempDir::new().expect("the temporary folder can be written");
        let journal = Journal::at(folder.path().join("journal"));
        let (process, seejobs, door) = run(&options, seejobs, ssh, &journal, folder.path());
        Self { process, seejobs, door, journal, options, folder }
    }

    /// Its SEEJobs port.
    pub fn seejobs(&self) -> SocketAddr {
        self.seejobs
    }

    /// How to reach its own SSH server. Panics when it was started without one.
    pub fn door(&self) -> &Door {
        self.door.as_ref().expect("this machine was started without an SSH server")
    }

    /// What ran in it.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Kills it with all it holds.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends it a signal: to halt, or to go on.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Starts it again with the same ports, keys and journal, after [`Self::kill`].
    pub fn start_again(&mut self) {
        let ssh = self.door.as_ref().map(|door| door.address.to_string()).unwrap_or_default();
        let (process, ..) = run(&self.options, &self.seejobs.to_string(), &ssh, &self.journal, self.folder.path());
        self.process = process;
    }
}

fn run(
    options: &Options,
    seejobs: &str,
    ssh: &str,
    journal: &Journal,
    folder: &Path,
) -> (Process, SocketAddr, Option<Door>) {
    let mut command = seeway_within(&options.within);
    command.args(["emulate", "--app", &options.app, "--seejobs", seejobs, "--journal"]).arg(journal.path());
    if let Some(keys) = &options.authorized_keys {
        let state = folder.join("state");
        fs::create_dir_all(&state).expect("the temporary folder can be written");
        command.args(["--ssh", ssh, "--authorized-keys"]).arg(keys).arg("--state").arg(state);
    }
    let mut process = Process::start(format!("the machine ({})", options.app), &mut command);
    let host_key = options.authorized_keys.as_ref().map(|_| process.line("host_key = ").trim_matches('"').to_owned());
    let ready = process.line("ready ");
    let address = |key| field(&ready, key).parse().unwrap_or_else(|error| panic!("{key} in {ready:?}: {error}"));
    let door = host_key.map(|line| Door {
        address: address("ssh"),
        user: "codesafe".to_owned(),
        host_key: keys::key_alone(&line),
    });
    (process, address("seejobs"), door)
}

/// The value of `key` in a line of `key=value` words.
pub(crate) fn field<'a>(ready: &'a str, key: &str) -> &'a str {
    ready
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("the ready line {ready:?} lacks {key}="))
}
