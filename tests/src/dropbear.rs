//! A real dropbear server. It reads the authorized keys of the user who logs in, in that user's home, and nowhere else; so
//! it runs in a mount namespace of its own, in which the password file gives that user a throw-away home.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{getegid, geteuid};
use tempfile::TempDir;

use crate::{
    Door, Identity, keys, ports,
    process::Process,
    sshd::{ready, user},
};

/// Times that starting is tried when somebody else took the port first.
const PORTS_TRIED: usize = 5;

/// The running server. Logins are as the user who runs the tests.
pub struct Dropbear {
    _process: Process,
    door: Door,
    _folder: TempDir,
}

impl Dropbear {
    /// Starts one on `ip` that lets `identity` in.
    pub fn start(identity: &Identity, ip: IpAddr) -> Self {
        let folder = TempDir::new().expect("the temporary folder can be written");
        let host_key_file = folder.path().join("host_key");
        let host_key = host_key(&host_key_file);
        let passwd = password_file(folder.path(), identity);
        let mut tries = 0;
        let (process, address) = loop {
            let address = SocketAddr::new(ip, ports::free(ip));
            let mut process = Process::start("dropbear", &mut command(&passwd, &host_key_file, address));
            if ready(&mut process, address) {
                break (process, address);
            }
            tries += 1;
            assert!(
                tries < PORTS_TRIED && process.log().contains("Address already in use"),
                "dropbear does not start. It needs a mount namespace of its own: as root that needs CAP_SYS_ADMIN, as another user \
                 the kernel must let users make namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces)"
            );
        };
        Self { _process: process, door: Door { address, user: user(), host_key }, _folder: folder }
    }

    /// How to reach it.
    pub fn door(&self) -> &Door {
        &self.door
    }
}

/// The way into the namespace, and dropbear in it. Root needs a mount namespace only. Another user first becomes root of a user
/// namespace, so as to mount, and then itself again in a second one, since dropbear logs nobody else in without being root.
fn command(passwd: &Path, host_key: &Path, address: SocketAddr) -> Command {
    let dropbear = r#"mount --bind "$1" /etc/passwd && exec $4 dropbear -F -E -p "$2" -r "$3""#;
    let (namespaces, back_again): (&[&str], String) = if geteuid().is_root() {
        (&["--mount"], String::new())
    } else {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        (&["--mount", "--map-root-user"], format!("unshare --user --map-user={user} --map-group={group}"))
    };
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["--propagation", "private", "sh", "-ec", dropbear, "sh"]);
    command.arg(passwd).arg(address.to_string()).arg(host_key).arg(back_again);
    command
}

/// A password file with one line: who runs the tests, at home in `folder`, with the identity's key as the only authorized one.
fn password_file(folder: &Path, identity: &Identity) -> PathBuf {
    let home = folder.join("home");
    let ssh = home.join(".ssh");
    fs::create_dir_all(&ssh).expect("the temporary folder can be written");
    fs::write(ssh.join("authorized_keys"), format!("{}\n", identity.public()))
        .expect("the temporary folder can be written");
    // Dropbear, too, refuses keys that others could write.
    for (path, mode) in [(&home, 0o700), (&ssh, 0o700), (&ssh.join("authorized_keys"), 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("these files are ours");
    }
    let (user, uid, gid) = (user(), geteuid().as_raw(), getegid().as_raw());
    let path = folder.join("passwd");
    fs::write(&path, format!("{user}:x:{uid}:{gid}::{}:/bin/sh\n", home.display()))
        .expect("the temporary folder can be written");
    path
}

fn host_key(path: &Path) -> String {
    let printed = keys::run(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(path));
    let line = printed.lines().find(|line| line.starts_with("ssh-ed25519 "));
    keys::key_alone(line.unwrap_or_else(|| panic!("dropbearkey prints no public key:\n{printed}")))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::tunnel;

    #[test]
    fn lets_the_identity_in() {
        let identity = Identity::generate();
        let dropbear = Dropbear::start(&identity, Ipv4Addr::LOCALHOST.into());
        let said = keys::run(tunnel::ssh(dropbear.door(), &identity).command.arg("echo through"));
        assert_eq!(said, "through\n");
    }
}
