//! Dates of what `[tls]` and `[management_tls]` name: from when and until when certificates and lists of revoked ones are of use.

use std::time::SystemTime;

use x509_cert::Certificate;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;
use x509_cert::time::Time;

/// From when something is of use, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub begin: SystemTime,
    /// Not after.
    pub end: SystemTime,
}

/// Until when that is of use which a TLS listener goes by: the first of each kind to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The certificate that is shown, or one between it and its authority.
    pub certificate: Option<SystemTime>,
    /// An authority of the callers; `None` where callers are asked for no certificate.
    pub client_ca: Option<SystemTime>,
    /// A list of revoked certificates, of which there is to be a newer one then; `None` where there is none.
    pub crl: Option<SystemTime>,
}

impl Validity {
    /// A certificate's; `None` where it is none.
    pub fn of_certificate(certificate: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let validity = certificate.tbs_certificate().validity();
        Some(Self { begin: at(validity.not_before), end: at(validity.not_after) })
    }

    /// That of a list of revoked certificates; `None` where it is none, or does not say when the next one comes.
    pub fn of_list(list: &[u8]) -> Option<Self> {
        let list = CertificateList::<Rfc5280>::from_der(list).ok()?.tbs_cert_list;
        Some(Self { begin: at(list.this_update), end: at(list.next_update?) })
    }
}

fn at(time: Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + time.to_unix_duration()
}
