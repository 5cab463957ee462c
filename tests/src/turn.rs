//! Who may run beside whom. Two cores can not carry two load tests at once, and a latency can't be measured beside one.
//!
//! Under nextest `.config/nextest.toml` says so too; this lock also holds under plain `cargo test`, where tests of one
//! binary run on threads, and between the two.

use std::fs::File;

/// A test's turn; it ends when this is dropped.
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits until no other test runs, and keeps others from starting.
    pub fn alone() -> Self {
        let lock = open();
        lock.lock().expect("an advisory lock in the temporary folder can be waited for");
        Self { _lock: lock }
    }

    /// Waits until no test runs that must be alone.
    pub fn beside_others() -> Self {
        let lock = open();
        lock.lock_shared().expect("an advisory lock in the temporary folder can be waited for");
        Self { _lock: lock }
    }
}

fn open() -> File {
    let user = rustix::process::getuid().as_raw();
    let path = std::env::temp_dir().join(format!("seeway-tests-{user}.lock"));
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("can't open the tests' lock {}: {error}", path.display()))
}
