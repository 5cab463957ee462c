//! Certificates for tests: an authority, and what it signs and revokes, as files in a folder of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd, string::Ia5String,
};
use tempfile::TempDir;

/// An authority.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    serials: Mutex<u64>,
}

/// A certificate and its private key.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The private key's file.
    pub key: PathBuf,
    serial: u64,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
        let authority = Self { folder: TempDir::new().expect("a folder"), issuer, serials: Mutex::new(0) };
        fs::write(authority.certificate(), authority.issuer.pem()).expect("written");
        authority
    }

    /// The file of its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.file("ca.pem")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate for a server at the loopback addresses. Made a second time, it takes the place of the first one's files.
    pub fn server(&self) -> Certified {
        let names = vec![
            SanType::DnsName("localhost".try_into().expect("plain")),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::IpAddress(std::net::Ipv6Addr::LOCALHOST.into()),
        ];
        self.sign("server", names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// What `[tls]` or `[management_tls]` says of a server with this certificate that asks for certificates of this authority.
    pub fn tls(&self, server: &Certified) -> String {
        format!(
            "certificate = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"",
            server.certificate.display(),
            server.key.display(),
            self.certificate().display()
        )
    }

    /// A client's certificate, with this URI as its name.
    pub fn client(&self, uri: &str) -> Certified {
        let name: Ia5String = uri.try_into().expect("plain");
        let file = uri.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        self.sign(&file, vec![SanType::URI(name)], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, file: &str, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> Certified {
        let serial = {
            let mut serials = self.serials.lock().expect("no panic");
            *serials += 1;
            *serials
        };
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let certified = Certified {
            certificate: self.file(&format!("{file}.pem")),
            key: self.file(&format!("{file}.key")),
            serial,
        };
        replace(&certified.key, &key.serialize_pem());
        replace(&certified.certificate, &certificate.pem());
        certified
    }

    /// The file of a list of revoked certificates, which takes the place of the one before. Of a list that is not current the next
    /// one is overdue.
    pub fn revoke(&self, revoked: &[&Certified], is_current: bool) -> PathBuf {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(if is_current { 2100 } else { 2025 }, 1, 2),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|certified| RevokedCertParams {
                    serial_number: SerialNumber::from(certified.serial),
                    revocation_time: date_time_ymd(2025, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.file("crl.pem");
        replace(&file, &list.signed_by(&self.issuer).expect("signed").pem().expect("encoded"));
        file
    }
}

/// Writes a file that only its owner can read, in one step for whoever reads it.
fn replace(file: &Path, text: &str) {
    let unfinished = file.with_extension("new");
    fs::write(&unfinished, text).expect("written");
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600)).expect("set");
    fs::rename(unfinished, file).expect("renamed");
}
