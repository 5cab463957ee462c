//! The key that a tunnel logs in with: in a file, or in an ssh-agent; and the certificate that goes with it.
//!
//! Made by whoever reads a configuration; [`login`](super::login) proves with it who we are. What can be known to be wrong is
//! said when it is read, not when a machine is down.

mod certificate;
mod passphrase;
mod secret_file;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::{self, Kdf};
use russh::keys::{Certificate, PrivateKey, PublicKey};

pub use passphrase::Passphrase;
pub use secret_file::SecretFile;

use super::algorithms::objection;
use super::key_error::IdentityError;
use super::{fingerprint, utc};

/// The largest key file that is read, in bytes; an RSA key of 16 384 bits has 13 kB.
const MAX_KEY_FILE: usize = 64_000;

/// The most rounds that a passphrase is stretched by: some seconds. `ssh-keygen` makes 16 to 24 by itself.
const MAX_ROUNDS: u32 = 1000;

/// Who we are to an SSH server. Cheap to clone; the private key itself is never printed, and wiped on drop.
#[derive(Clone)]
pub struct Identity {
    holder: Holder,
    public: Arc<PublicKey>,
    path: Arc<Path>,
    certificate: Option<Arc<Certificate>>,
}

/// Who has the private key.
#[derive(Clone)]
pub(super) enum Holder {
    /// This process.
    Here(Arc<PrivateKey>),
    /// The ssh-agent at this socket.
    Agent(Arc<Path>),
}

impl Identity {
    /// Reads a private key in OpenSSH format (Ed25519, ECDSA, or RSA of 3072 bits or more) without a passphrase. A file that
    /// others than its owner can read or write is refused.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, IdentityError> {
        Self::open(&SecretFile::new(path), None)
    }

    /// Reads a private key as [`load`](Self::load) does, which has a passphrase if one is given, and else has none.
    pub fn open(file: &SecretFile, passphrase: Option<&Passphrase>) -> Result<Self, IdentityError> {
        let path = file.path().to_owned();
        let text = file.read("private key", MAX_KEY_FILE)?;
        let not_a_key = |why: String| IdentityError::NotAKey { path: path.clone(), why };
        let key = PrivateKey::from_openssh(&*text).map_err(|error| not_a_key(error.to_string()))?;
        let key = match (key.is_encrypted(), passphrase) {
            (false, None) => key,
            (true, None) => return Err(IdentityError::Encrypted { path }),
            (false, Some(_)) => return Err(IdentityError::NotEncrypted { path }),
            (true, Some(passphrase)) => {
                if let Kdf::Bcrypt { rounds, .. } = key.kdf()
                    && *rounds > MAX_ROUNDS
                {
                    return Err(not_a_key(format!(
                        "its passphrase is stretched in {rounds} rounds, above {MAX_ROUNDS}"
                    )));
                }
                key.decrypt(passphrase.bytes()).map_err(|error| match error {
                    ssh_key::Error::Crypto => IdentityError::WrongPassphrase { path: path.clone() },
                    error => not_a_key(error.to_string()),
                })?
            }
        };
        let public = key.public_key().clone();
        Self::new(Holder::Here(Arc::new(key)), public, path)
    }

    /// The key of an ssh-agent of which `public` is the file of the public half. Whether the agent is there, and has the key, shows
    /// when a tunnel is made.
    pub fn of_agent(public: impl Into<PathBuf>, socket: impl Into<PathBuf>) -> Result<Self, IdentityError> {
        let path = public.into();
        let unreadable = |error| IdentityError::Unreadable { what: "public key", path: path.clone(), error };
        let metadata = std::fs::metadata(&path).map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > MAX_KEY_FILE as u64 {
            return Err(unreadable(io::Error::other("it is not the file of a key")));
        }
        let text = zeroize::Zeroizing::new(std::fs::read_to_string(&path).map_err(unreadable)?);
        if text.contains("PRIVATE KEY") {
            return Err(IdentityError::NotPublic { path });
        }
        let key = PublicKey::from_openssh(text.trim())
            .map_err(|error| IdentityError::NotAPublicKey { path: path.clone(), why: error.to_string() })?;
        Self::new(Holder::Agent(socket.into().into()), key, path)
    }

    fn new(holder: Holder, public: PublicKey, path: PathBuf) -> Result<Self, IdentityError> {
        match objection(public.key_data()) {
            Some(why) => Err(IdentityError::NotTaken { path, why }),
            None => Ok(Self { holder, public: Arc::new(public), path: path.into(), certificate: None }),
        }
    }

    /// The same with a certificate for users, in OpenSSH's form, that is for this key, valid now, and permits channels.
    pub fn with_certificate(mut self, path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let certificate = certificate::read(path.as_ref(), self.public.key_data(), utc::now())?;
        self.certificate = Some(Arc::new(certificate));
        Ok(self)
    }

    /// The file it was read from: of the private key, or, where that is in an agent, of the public one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket of the ssh-agent that has the key; `None`: it was read from its file.
    pub fn agent(&self) -> Option<&Path> {
        match &self.holder {
            Holder::Here(_) => None,
            Holder::Agent(socket) => Some(socket),
        }
    }

    /// The key's type and SHA-256 fingerprint, as `ssh-keygen -l` has it.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.public.key_data())
    }

    /// The public half, as a line for the server's authorized keys.
    pub fn public_line(&self) -> String {
        self.public.to_openssh().expect("a key that was parsed can be printed")
    }

    /// When its certificate expires; `None` where it has none, or one that never does.
    pub fn valid_before(&self) -> Option<SystemTime> {
        let end = certificate::expires(self.certificate.as_deref()?)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(end))
    }

    /// Its certificate in words: name, authority and end.
    pub fn certificate_text(&self) -> Option<String> {
        self.certificate.as_deref().map(certificate::describe)
    }

    pub(super) fn holder(&self) -> &Holder {
        &self.holder
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_deref()
    }

    /// What has become wrong with it since it was read.
    pub(super) fn outdated(&self) -> Option<String> {
        let why = certificate::validity(self.certificate.as_deref()?, utc::now())?;
        Some(format!("the certificate that goes with {} is of no use: {why}", self.path.display()))
    }
}

/// The same key in the same hands with the same certificate, wherever it was read from.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.public.key_data() == other.public.key_data()
            && self.agent() == other.agent()
            && self.certificate == other.certificate
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("path", &self.path)
            .field("fingerprint", &self.fingerprint())
            .field("agent", &self.agent())
            .field("certificate", &self.certificate_text())
            .finish_non_exhaustive()
    }
}
