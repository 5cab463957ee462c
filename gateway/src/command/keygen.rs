//! `seeway keygen`: an identity for the gateway, ready to hand to an HSM's administrator; and certificates for a start.

mod tls;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use seeway_client::tunnel::Endpoint;
use serde_json::json;

use super::{Failure, write_json};

/// The name of the private key's file; the public half's has `.pub` after it.
const FILE_NAME: &str = "id_ed25519";

/// Make an identity for the gateway, ready to hand to an HSM's administrator
///
/// Makes an Ed25519 key pair: DIR/id_ed25519, which only this user can read, and DIR/id_ed25519.pub. Prints the public key, its
/// fingerprint, and the line for the authorized_keys of the machine's SSH server, which allows this key to reach the machine's SEEJobs
/// port and nothing else. A key that is there already is never overwritten.
///
/// With --tls it also makes a private certificate authority, the gateway's certificate and callers', and a second authority for those
/// who manage the gateway. What is there already then stays, and signs what is missing: run it again for further clients.
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[command(after_help = "\
Examples:
  seeway keygen /etc/seeway
  seeway keygen . --comment seeway@host-1 --permit-open 127.0.0.1:9999
  seeway keygen /etc/seeway --json | jq -r .authorized_keys
  seeway keygen /etc/seeway --tls --server-name seeway.example --client payments --client batch")]
pub struct Args {
    /// The directory to make the key in; made, for this user only, if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// What the public key is called, for whoever reads authorized_keys
    #[arg(long, default_value = "seeway")]
    comment: String,
    /// The machine's SEEJobs port as its SSH server sees it: all that the authorized_keys line allows
    #[arg(long, default_value = "127.0.0.1:8888", value_name = "HOST:PORT", value_parser = crate::config::parse_endpoint)]
    permit_open: Endpoint,
    /// Make certificates too: ca, server, client-NAME, admin-ca and admin, each a .pem file and a .key file
    #[arg(long)]
    tls: bool,
    /// A name or IP address that callers reach the gateway by; may stand many times [default: localhost, 127.0.0.1, ::1]
    #[arg(long, value_name = "NAME", requires = "tls")]
    server_name: Vec<String>,
    /// A caller to make a certificate for, as spiffe://seeway/NAME; may stand many times [default: client, the first time]
    #[arg(long, value_name = "NAME", requires = "tls", value_parser = tls::client_name)]
    client: Vec<String>,
    /// How long the certificates are good for, without the authorities', which are for ten years
    #[arg(long, value_name = "DAYS", requires = "tls", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(tls::MOST_DAYS)))]
    days: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Makes the identity and prints what to do with it.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    if args.comment.chars().any(char::is_control) {
        return Err(Failure::Misused(
            "--comment has a line's end or another control character in it; write one line of plain text".to_owned(),
        ));
    }
    let (private_path, public_path) = paths(&args.directory);
    let made = if args.tls && private_path.exists() && public_path.exists() {
        read(private_path, public_path)?
    } else {
        make(&args.directory, &args.comment)?
    };
    let Made { private_path, public_path, public, fingerprint } = made;
    let certificates = if args.tls {
        let Args { directory, server_name: server_names, client: clients, days, .. } = args;
        Some(tls::make(&tls::Wanted { directory, server_names, clients, days: *days })?)
    } else {
        None
    };
    let authorized_keys = format!("restrict,port-forwarding,permitopen=\"{}\" {public}", args.permit_open);
    if args.json {
        let mut made = json!({
            "identity": private_path,
            "public_key_file": public_path,
            "public_key": public,
            "fingerprint": fingerprint,
            "authorized_keys": authorized_keys,
        });
        if let Some(certificates) = certificates {
            made["tls"] = certificates.json();
        }
        return write_json(out, &made);
    }
    writeln!(
        out,
        "private key  {private} (stays here; only this user can read it)
public key   {public}
fingerprint  {fingerprint}

Hand this line to the HSM's administrator, who adds it to the authorized_keys of the machine's SSH server. It lets this key reach
{permitted}, the machine's SEEJobs port, and nothing else:

{authorized_keys}

Ask in return for the server's address, login and host key. Then seeway.toml has, under [[machine]]:

identity = \"{private}\"",
        private = private_path.display(),
        permitted = args.permit_open,
    )?;
    if let Some(certificates) = certificates {
        writeln!(out, "{}", certificates.text())?;
    }
    Ok(())
}

/// Makes certificates for a start: an authority, the gateway's own certificate for loopback, and one for this caller.
#[cfg(feature = "emulator")] // For the demonstration.
pub(crate) fn make_certificates(directory: &Path, client: &str) -> Result<(), Failure> {
    let clients = [client.to_owned()];
    tls::make(&tls::Wanted { directory, server_names: &[], clients: &clients, days: 1 }).map(drop)
}

/// An identity that was made.
pub(crate) struct Made {
    /// The file of the private key.
    pub(crate) private_path: PathBuf,
    /// The file of the public key.
    pub(crate) public_path: PathBuf,
    /// The public key, one line as in OpenSSH's `.pub` files.
    pub(crate) public: String,
    /// The key's SHA-256 fingerprint.
    pub(crate) fingerprint: String,
}

/// The files of an identity in a directory: the private and the public key's.
pub(crate) fn paths(directory: &Path) -> (PathBuf, PathBuf) {
    let private = directory.join(FILE_NAME);
    let public = private.with_extension("pub");
    (private, public)
}

/// An identity that was made earlier.
fn read(private_path: PathBuf, public_path: PathBuf) -> Result<Made, Failure> {
    let text = std::fs::read_to_string(&public_path).map_err(|error| {
        Failure::Failed(format!(
            "{} can not be read: {error}; let this user read it, or choose another directory",
            public_path.display()
        ))
    })?;
    let public = PublicKey::from_openssh(&text).map_err(|_| {
        Failure::Failed(format!(
            "{} is not a public key; write it anew with: ssh-keygen -y -f {}",
            public_path.display(),
            private_path.display()
        ))
    })?;
    let fingerprint = public.fingerprint(HashAlg::Sha256).to_string();
    Ok(Made { private_path, public_path, public: text.trim().to_owned(), fingerprint })
}

/// Makes an identity, and its directory where that is missing. Overwrites nothing.
pub(crate) fn make(directory: &Path, comment: &str) -> Result<Made, Failure> {
    let (private_path, public_path) = paths(directory);
    let mut key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(|error| {
        Failure::Failed(format!(
            "no key could be made: {error}; see what `seeway doctor` says of the system's randomness"
        ))
    })?;
    key.set_comment(comment);
    let encoded = |error| {
        Failure::Failed(format!(
            "the key could not be written down: {error}; report this, and make one with ssh-keygen -t ed25519"
        ))
    };
    let private = key.to_openssh(LineEnding::LF).map_err(encoded)?;
    let public = key.public_key().to_openssh().map_err(encoded)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| cannot("made", directory, &error))?;
    save(&private_path, private.as_bytes(), &public_path, format!("{public}\n").as_bytes())?;
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    Ok(Made { private_path, public_path, public, fingerprint })
}

/// Writes both files, or none: neither is overwritten, and the private one is never readable by others, not for a moment.
fn save(private_path: &Path, private: &[u8], public_path: &Path, public: &[u8]) -> Result<(), Failure> {
    let mut private_file = create(private_path, 0o600)?;
    let written =
        write_all(&mut private_file, private).map_err(|error| cannot("written", private_path, &error)).and_then(|()| {
            let mut public_file = create(public_path, 0o644)?;
            write_all(&mut public_file, public).map_err(|error| {
                remove(public_path);
                cannot("written", public_path, &error)
            })
        });
    if written.is_err() {
        remove(private_path);
    }
    written
}

fn create(path: &Path, mode: u32) -> Result<File, Failure> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::Failed(format!(
            "{} is there already, and a key is never overwritten; choose another directory, or move it away",
            path.display()
        )),
        _ => cannot("made", path, &error),
    })
}

fn write_all(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes a file that this process has just made; where even that fails, the failure that led here is what matters.
fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "{} can not be {what}: {error}; choose a directory that this user may write to",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use russh::keys::load_secret_key;

    use super::*;

    fn args(directory: &Path, json: bool) -> Args {
        Args {
            directory: directory.to_owned(),
            comment: "seeway@here".to_owned(),
            permit_open: Endpoint { host: "127.0.0.1".to_owned(), port: 8888 },
            tls: false,
            server_name: Vec::new(),
            client: Vec::new(),
            days: 365,
            json,
        }
    }

    #[test]
    fn an_identity_is_made_for_this_user_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("new/keys");
        let mut out = Vec::new();
        run(&args(&place, false), &mut out).expect("made");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&place), 0o700);
        assert_eq!(mode(&place.join("id_ed25519")), 0o600);
        let key = load_secret_key(place.join("id_ed25519"), None).expect("a private key");
        let public = std::fs::read_to_string(place.join("id_ed25519.pub")).expect("there");
        let public = PublicKey::from_openssh(&public).expect("a public key");
        assert_eq!(public.key_data(), key.public_key().key_data());
        assert_eq!(public.comment().to_string(), "seeway@here");
        let out = String::from_utf8(out).expect("text");
        let line = public.to_openssh().expect("encoded");
        assert!(out.contains(&format!("\nrestrict,port-forwarding,permitopen=\"127.0.0.1:8888\" {line}\n")), "{out}");
        assert!(out.contains(&public.fingerprint(HashAlg::Sha256).to_string()), "{out}");
        assert!(out.contains("HSM's administrator"), "{out}");
        assert!(!out.contains("PRIVATE KEY"), "{out}");
    }

    #[test]
    fn nothing_is_ever_overwritten() {
        for name in ["id_ed25519", "id_ed25519.pub"] {
            let directory = tempfile::tempdir().expect("a directory");
            std::fs::write(directory.path().join(name), "precious").expect("written");
            let mut out = Vec::new();
            let failure = run(&args(directory.path(), false), &mut out).expect_err("there already");
            assert!(failure.to_string().contains("never overwritten"), "{failure}");
            assert_eq!(failure.exit_status(), 1);
            assert!(out.is_empty());
            assert_eq!(std::fs::read_to_string(directory.path().join(name)).expect("there"), "precious");
            assert_eq!(
                std::fs::read_dir(directory.path()).expect("there").count(),
                1,
                "no half of a pair stays behind"
            );
        }
    }

    #[test]
    fn json_has_every_line_that_is_handed_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut out = Vec::new();
        run(&args(directory.path(), true), &mut out).expect("made");
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let public = value["public_key"].as_str().expect("a string");
        assert!(public.starts_with("ssh-ed25519 ") && public.ends_with(" seeway@here"));
        assert!(value["authorized_keys"].as_str().expect("a string").ends_with(public));
        assert!(value["fingerprint"].as_str().expect("a string").starts_with("SHA256:"));
        assert!(Path::new(value["identity"].as_str().expect("a string")).is_file());
    }

    #[test]
    fn a_comment_of_two_lines_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut args = args(directory.path(), false);
        args.comment = "a\nssh-ed25519 other".to_owned();
        assert_eq!(run(&args, &mut Vec::new()).expect_err("two lines").exit_status(), 2);
    }
}
