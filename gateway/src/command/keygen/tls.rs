//! `seeway keygen DIR --tls`: a private certificate authority and certificates for a start.
//!
//! Two authorities, since who manages the gateway must not be able to send jobs, and the other way round: `ca.pem` signs the
//! gateway's certificate and its callers', `admin-ca.pem` signs the operators'. What is there already stays; an authority that is
//! there signs what is missing.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::{RootCertStore, client};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Failure, save};

/// How long an authority is good for.
const AUTHORITY_DAYS: u32 = 3653;
/// The longest that a certificate may be good for; longer than its authority makes no sense.
pub(super) const MOST_DAYS: u32 = 3650;
/// The clocks of those who look at a certificate may be behind by so much.
const HEAD_START: Duration = Duration::from_secs(600);
/// The caller whose certificate is made where none is named.
const FIRST_CLIENT: &str = "client";
/// The operator's name.
const ADMIN: &str = "admin";

/// What is to be made.
pub(super) struct Wanted<'w> {
    pub(super) directory: &'w Path,
    pub(super) server_names: &'w [String],
    pub(super) clients: &'w [String],
    pub(super) days: u32,
}

/// What is there now.
pub(super) struct Made {
    ca: PathBuf,
    server: (PathBuf, PathBuf),
    clients: Vec<(String, PathBuf, PathBuf)>,
    admin_ca: PathBuf,
    admin: (PathBuf, PathBuf),
}

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Server,
    Client,
}

/// Makes what is missing. Nothing is overwritten; a caller that is named and has a certificate already is a mistake, which is
/// found before anything is made.
pub(super) fn make(wanted: &Wanted<'_>) -> Result<Made, Failure> {
    let pair =
        |name: &str| (wanted.directory.join(format!("{name}.pem")), wanted.directory.join(format!("{name}.key")));
    for client in wanted.clients {
        let (certificate, key) = pair(&format!("client-{client}"));
        for file in [certificate, key] {
            if file.exists() {
                return Err(Failure::Failed(format!(
                    "{} is there already, and a key is never overwritten; name another client, or move it away",
                    file.display()
                )));
            }
        }
    }
    let (ca, admin_ca) = (pair("ca"), pair("admin-ca"));
    let is_first = !ca.0.exists();
    let authority = Authority::open_or_make(&ca, "Seeway CA")?;
    let admin_authority = Authority::open_or_make(&admin_ca, "Seeway management CA")?;
    let server = pair("server");
    if !is_there(&server)? {
        authority.issue(&server, "seeway", server_names(wanted.server_names)?, Purpose::Server, wanted.days)?;
    }
    let admin = pair(ADMIN);
    if !is_there(&admin)? {
        admin_authority.issue(&admin, ADMIN, vec![spiffe(ADMIN)?], Purpose::Client, wanted.days)?;
    }
    let first = [FIRST_CLIENT.to_owned()];
    let is_nobody_named = wanted.clients.is_empty() && is_first;
    let mut clients = Vec::new();
    for client in if is_nobody_named { &first } else { wanted.clients } {
        let files = pair(&format!("client-{client}"));
        authority.issue(&files, client, vec![spiffe(client)?], Purpose::Client, wanted.days)?;
        clients.push((client.clone(), files.0, files.1));
    }
    Ok(Made { ca: ca.0, server, clients, admin_ca: admin_ca.0, admin })
}

/// Whether both files of a pair are there; half of one is a mistake.
fn is_there((certificate, key): &(PathBuf, PathBuf)) -> Result<bool, Failure> {
    match (certificate.exists(), key.exists()) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        (has_certificate, _) => {
            let (there, missing) = if has_certificate { (certificate, key) } else { (key, certificate) };
            Err(Failure::Failed(format!(
                "{} is there without {}; bring the other one back, or move this one away to have both made anew",
                there.display(),
                missing.display()
            )))
        }
    }
}

/// Reads a client's name as the command line has it: what a SPIFFE ID and a file's name can hold.
pub(super) fn client_name(text: &str) -> Result<String, String> {
    let is_sound = (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !text.starts_with('.');
    is_sound.then(|| text.to_owned()).ok_or_else(|| {
        format!("`{text}` is not a name for a client; write 1 to 128 letters, digits or any of . _ - and begin with none of the dots")
    })
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::Failed(format!(
        "no certificate could be made: {error}; check the names that it is to have (--server-name, --client)"
    ))
}

fn spiffe(name: &str) -> Result<SanType, Failure> {
    let uri = Ia5String::try_from(format!("spiffe://seeway/{name}")).map_err(|error| failed(&error))?;
    Ok(SanType::URI(uri))
}

/// This computer's own names where none is given.
fn server_names(names: &[String]) -> Result<Vec<SanType>, Failure> {
    let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let names = if names.is_empty() { &own } else { names };
    let name = |name: &String| match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ia5String::try_from(name.clone()).map(SanType::DnsName).map_err(|_| {
            Failure::Misused(format!(
                "--server-name: `{name}` is neither a host's name nor an IP address; write one that callers connect to"
            ))
        }),
    };
    names.iter().map(name).collect()
}

/// Who signs certificates.
struct Authority {
    file: PathBuf,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn open_or_make(files: &(PathBuf, PathBuf), name: &str) -> Result<Self, Failure> {
        if !is_there(files)? {
            let key = KeyPair::generate().map_err(|error| failed(&error))?;
            let parameters = Self::parameters(name);
            let certificate = parameters.self_signed(&key).map_err(|error| failed(&error))?;
            write(files, &key, &certificate.pem())?;
            return Ok(Self {
                file: files.0.clone(),
                certificate: certificate.der().clone(),
                issuer: Issuer::new(parameters, key),
            });
        }
        let unreadable = |file: &Path, error: &dyn std::fmt::Display| {
            Failure::Failed(format!(
                "{} can not be read: {error}; let this user read it, or choose another directory",
                file.display()
            ))
        };
        let certificate = CertificateDer::from_pem_file(&files.0).map_err(|error| unreadable(&files.0, &error))?;
        let key = std::fs::read_to_string(&files.1).map(Zeroizing::new);
        let key = key.map_err(|error| unreadable(&files.1, &error))?;
        let key = KeyPair::from_pem(&key).map_err(|_| {
            Failure::Failed(format!(
                "{} is not a private key in PEM form; bring the right one back, or choose another directory",
                files.1.display()
            ))
        })?;
        // Its name is not read from it but known; `issue` finds out where it is another one.
        Ok(Self { file: files.0.clone(), certificate, issuer: Issuer::new(Self::parameters(name), key) })
    }

    fn parameters(name: &str) -> CertificateParams {
        let mut parameters = parameters(name, AUTHORITY_DAYS);
        // It signs certificates of those who use them, and no other authority's.
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters
    }

    fn issue(
        &self,
        files: &(PathBuf, PathBuf),
        name: &str,
        names: Vec<SanType>,
        purpose: Purpose,
        days: u32,
    ) -> Result<(), Failure> {
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let mut parameters = parameters(name, days);
        parameters.subject_alt_names = names;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(|error| failed(&error))?;
        self.accepts(certificate.der(), purpose).map_err(|error| {
            Failure::Failed(format!(
                "a certificate of {} would not be accepted ({error}): it was not made by `seeway keygen`, or has expired; sign with \
                 what made it, or choose another directory",
                self.file.display()
            ))
        })?;
        write(files, &key, &certificate.pem())
    }

    /// Looks at a certificate as whoever is shown it will.
    fn accepts(&self, certificate: &CertificateDer<'_>, purpose: Purpose) -> Result<(), Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms.all;
        match purpose {
            Purpose::Server => {
                let parsed = ParsedCertificate::try_from(certificate)?;
                client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], UnixTime::now(), algorithms)?;
            }
            Purpose::Client => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
                verifier.verify_client_cert(certificate, &[], UnixTime::now())?;
            }
        }
        Ok(())
    }
}

/// A certificate of this common name that is good from now on.
fn parameters(name: &str, days: u32) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    parameters.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(HEAD_START);
    parameters.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(u64::from(days) * 86_400);
    parameters
}

fn write((certificate_file, key_file): &(PathBuf, PathBuf), key: &KeyPair, certificate: &str) -> Result<(), Failure> {
    let mut text = key.serialize_pem();
    let written = save(key_file, text.as_bytes(), certificate_file, certificate.as_bytes());
    text.zeroize();
    written
}

impl Made {
    /// What `--json` has under `tls`.
    pub(super) fn json(&self) -> Value {
        let pair = |(certificate, key): &(PathBuf, PathBuf)| json!({"certificate": certificate, "key": key});
        let client = |(name, certificate, key): &(String, PathBuf, PathBuf)| json!({"name": name, "identity": format!("spiffe://seeway/{name}"), "certificate": certificate, "key": key});
        json!({
            "ca": self.ca,
            "server": pair(&self.server),
            "clients": self.clients.iter().map(client).collect::<Vec<_>>(),
            "admin_ca": self.admin_ca,
            "admin": pair(&self.admin),
        })
    }

    /// What a person is to do with it.
    pub(super) fn text(&self) -> String {
        let (certificate, key) = (self.server.0.display(), self.server.1.display());
        let mut text = format!(
            "
For TLS, seeway.toml has:

[tls]
certificate = \"{certificate}\"
key = \"{key}\"
client_ca = \"{}\"

[management_tls]
certificate = \"{certificate}\"
key = \"{key}\"
client_ca = \"{}\"

Callers trust {} and show one of these, operators show the last one:
",
            self.ca.display(),
            self.admin_ca.display(),
            self.ca.display(),
        );
        let admin = (ADMIN.to_owned(), self.admin.0.clone(), self.admin.1.clone());
        for (name, certificate, key) in self.clients.iter().chain([&admin]) {
            for part in
                ["\n", &certificate.display().to_string(), "  ", &key.display().to_string(), "  spiffe://seeway/", name]
            {
                text.push_str(part);
            }
        }
        text
    }
}
