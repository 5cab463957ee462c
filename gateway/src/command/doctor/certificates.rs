//! Dates of certificates: those that the gateway shows, those that it takes callers by, lists of revoked ones, and those that it logs
//! in with.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use time::OffsetDateTime;

use super::finding::Finding;
use crate::config::{Config, Tls, Validity};

const CHECK: &str = "certificate";

/// How long before its end a certificate is warned of.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Every certificate that the configuration names.
pub(super) fn all(config: &Config) -> Vec<Finding> {
    let now = SystemTime::now();
    let mut findings = Vec::new();
    for (table, tls) in [("tls", &config.tls), ("management_tls", &config.management_tls)] {
        if let Some(tls) = tls {
            findings.extend(of_tls(table, tls, now));
        }
    }
    for machine in &config.machines {
        if let Some(end) = machine.identity.valid_before() {
            let about = format!("machine[{}].certificate", machine.name);
            let fix = "have the key signed again (ssh-keygen -s), put the new certificate there, and reload";
            findings.push(judged(about, None, end, now, fix));
        }
    }
    findings
}

fn of_tls(table: &str, tls: &Tls, now: SystemTime) -> Vec<Finding> {
    const FIX: &str = "put a new one in its place: it is read when it changes; `seeway keygen DIR --tls` makes one";
    let mut findings = Vec::new();
    let files =
        std::iter::once(("certificate", &tls.certificate)).chain(tls.client_ca.iter().map(|ca| ("client_ca", ca)));
    for (key, file) in files {
        for certificate in CertificateDer::pem_file_iter(file).into_iter().flatten().flatten() {
            let Some(validity) = Validity::of_certificate(&certificate) else { continue };
            findings.push(judged(about(table, key, file), Some(validity.begin), validity.end, now, FIX));
        }
    }
    for file in &tls.crl {
        for list in CertificateRevocationListDer::pem_file_iter(file).into_iter().flatten().flatten() {
            let Some(validity) = Validity::of_list(&list) else { continue };
            let fix = "get a new list from the authority; until then expired_crl says what becomes of its certificates";
            findings.push(judged(about(table, "crl", file), Some(validity.begin), validity.end, now, fix));
        }
    }
    findings
}

fn about(table: &str, key: &str, file: &Path) -> String {
    format!("{table}.{key} {}", file.display())
}

fn judged(about: String, begin: Option<SystemTime>, end: SystemTime, now: SystemTime, fix: &str) -> Finding {
    if let Some(begin) = begin.filter(|begin| *begin > now) {
        let what = format!("is not valid before {}: the clock is late, or it was made for later", date(begin));
        return Finding::failed(CHECK, about, what, format!("see timedatectl status; or {fix}"));
    }
    if end <= now {
        return Finding::failed(CHECK, about, format!("has been of no use since {}", date(end)), fix);
    }
    if end < now + SOON {
        return Finding::warning(CHECK, about, format!("ends on {}, in less than two weeks", date(end)), fix);
    }
    Finding::ok(CHECK, about, format!("is good until {}", date(end)))
}

fn date(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02} UTC",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute()
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_certificate_is_good_between_its_dates_and_warned_of_before_its_end() {
        let at = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(day * 24 * 3600);
        let verdict = |begin, end| judged("x".to_owned(), Some(at(begin)), at(end), at(100), "fix");
        assert_eq!(verdict(99, 115).verdict, Verdict::Ok);
        assert_eq!(verdict(99, 113).verdict, Verdict::Warning);
        assert_eq!(verdict(99, 100).verdict, Verdict::Failed);
        let late = verdict(101, 200);
        assert_eq!(late.verdict, Verdict::Failed);
        assert!(late.what.contains("1970-04-12 00:00 UTC") && late.fix.contains("timedatectl"), "{late:?}");
    }
}
