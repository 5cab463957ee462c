//! Reads `[[permission]]`, `[tls]` and `[management_tls]`.

use wildmatch::WildMatch;

use super::base::Base;
use super::document::{Document, Section};
use super::files;
use super::kind::{Located, Wrong};
use super::problem::Gathered;
use super::tls::{ClientCertificates, Tls};
use crate::access::{Action, QuotaSettings, Rule, Rules, Who};
use std::path::PathBuf;

/// The most rules, and the most patterns in one: each is looked at for each world of each identity that comes.
const MOST_RULES: usize = 1024;
const MOST_PATTERNS: usize = 256;

/// The longest pattern, in bytes.
const PATTERN_LIMIT: usize = 512;

/// The rules; what is wrong with them goes to `gathered`.
pub(super) fn rules(document: &Document, worlds: &[&str], gathered: &mut Gathered) -> Option<Rules> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut count = 0;
    for section in document.all("permission") {
        count += 1;
        if count > MOST_RULES {
            let what = format!("is one rule more than the {MOST_RULES} that there may be");
            gathered.add(&section.place, section.path("who"), what, "put several names into one rule's `who`");
            return None;
        }
        let Some(rule) = rule(section, count, worlds, gathered) else { continue };
        if rules.iter().any(|other| other.name == rule.name) {
            let place = section.given("name").unwrap_or(&section.place);
            let what = format!("the name `{}` is already taken", rule.name);
            gathered.add(place, section.path("name"), what, "give each rule a name of its own");
        }
        rules.push(rule);
    }
    (rules.len() == count).then(|| Rules::new(rules))
}

fn rule(section: &Section, number: usize, worlds: &[&str], gathered: &mut Gathered) -> Option<Rule> {
    let name = match section.given("name") {
        Some(_) => section.text("name").map(|name| name.value.to_owned()),
        None => Some(format!("rule-{number}")),
    };
    let who = list(section, "who", gathered, |text| {
        Who::parse(text).ok_or_else(|| {
            Wrong::new(
                format!("{text:?} is no pattern"),
                "write a name such as \"user:alice\" or \"certificate:spiffe://bank.example/*\"",
            )
        })
    });
    let may = list(section, "may", gathered, |text| {
        Action::named(text).ok_or_else(|| {
            let names = Action::ALL.map(Action::name).join("`, `");
            Wrong::new(format!("`{text}` is nothing that a rule can allow"), format!("write any of `{names}`"))
        })
    });
    let patterns = list(section, "worlds", gathered, |text| {
        let pattern = WildMatch::new(text);
        // A slip here would silently allow less than was meant; a pattern may be for worlds to come.
        let is_pattern = text.contains(['*', '?']);
        if !is_pattern && !worlds.contains(&text) {
            return Err(Wrong::new(
                format!("there is no world `{text}`"),
                "correct the name, or write a pattern with * in it",
            ));
        }
        Ok(pattern)
    });
    if let Some(may) = &may
        && may.contains(&Action::Admin)
        && may.len() > 1
    {
        let place = section.given("may").unwrap_or(&section.place);
        gathered.add(
            place,
            section.path("may"),
            "allows `admin` together with other things: who sends jobs is not to drain machines, nor the other way round",
            "write two rules, about different people",
        );
        return None;
    }
    let quota = QuotaSettings {
        jobs_per_second: section.number("jobs_per_second")?,
        bytes_per_second: section.number("bytes_per_second")?,
        in_flight: section.number("in_flight")?,
    };
    Some(Rule { name: name?, who: who?, may: may?, worlds: patterns?, quota })
}

/// Every element of a list that must not be empty.
fn list<T>(
    section: &Section,
    key: &str,
    gathered: &mut Gathered,
    read: impl Fn(&str) -> Result<T, Wrong>,
) -> Option<Vec<T>> {
    let Located { value, place } = section.list(key)?;
    if value.is_empty() || value.len() > MOST_PATTERNS {
        let what = format!("has {} elements", value.len());
        gathered.add(&place, section.path(key), what, format!("write 1 to {MOST_PATTERNS}"));
        return None;
    }
    let mut all = Vec::new();
    for text in value {
        let found = if text.value.len() > PATTERN_LIMIT {
            Err(Wrong::new(format!("has {} bytes", text.value.len()), format!("write at most {PATTERN_LIMIT}")))
        } else {
            read(&text.value)
        };
        match found {
            Ok(found) => all.push(found),
            Err(Wrong { what, fix }) => gathered.add(&text.place, section.path(key), what, fix),
        }
    }
    (all.len() == value.len()).then_some(all)
}

/// One side of TLS, `Some(None)` where it is off; its files are read, so that a problem with them is told now.
#[allow(clippy::option_option)] // Off, and wrong.
pub(super) fn tls(section: &Section, base: &Base, gathered: &mut Gathered) -> Option<Option<Tls>> {
    if section.given("certificate").is_none() {
        if let Some((key, place)) =
            ["key", "client_ca", "crl"].into_iter().find_map(|key| Some((key, section.given(key)?)))
        {
            let what = "is given, and there is no certificate: no TLS is spoken";
            gathered.add(place, section.path(key), what, "write certificate = \"FILE\" as well");
            return None;
        }
        return Some(None);
    }
    let mut path = |key: &str| -> Option<PathBuf> {
        let text = section.text(key)?;
        let path = files::path(text.value, base);
        path.map_err(|Wrong { what, fix }| gathered.add(&text.place, section.path(key), what, fix)).ok()
    };
    let certificate = path("certificate");
    let key = path("key");
    let client_ca = if section.given("client_ca").is_some() { path("client_ca").map(Some) } else { Some(None) };
    if section.given("client_ca").is_none()
        && let Some((key, place)) =
            ["client_certificates", "crl"].into_iter().find_map(|key| Some((key, section.given(key)?)))
    {
        let what = "is given, and there is no client_ca: nobody is asked for a certificate";
        gathered.add(place, section.path(key), what, "write client_ca = \"FILE\" as well");
    }
    if section.given("key").is_none() {
        gathered.add(
            &section.place,
            section.path("key"),
            "is missing",
            "name the file of the certificate's private key",
        );
    }
    let crl = section.list("crl").and_then(|list| {
        let paths = list.value.iter().map(|text| {
            let path = files::path(&text.value, base);
            path.map_err(|Wrong { what, fix }| gathered.add(&text.place, section.path("crl"), what, fix)).ok()
        });
        paths.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()
    });
    let mut one_of = |key: &str, yes: &str, no: &str| -> Option<bool> {
        let text = section.text(key)?;
        if text.value != yes && text.value != no {
            let fix = format!("write \"{yes}\" or \"{no}\"");
            gathered.add(&text.place, section.path(key), format!("is `{}`", text.value), fix);
            return None;
        }
        Some(text.value == yes)
    };
    let is_required = one_of("client_certificates", "required", "optional");
    let accepts_expired_crl = one_of("expired_crl", "accept", "refuse");
    let tls = Tls {
        certificate: certificate?,
        key: key?,
        client_ca: client_ca?,
        client_certificates: if is_required? { ClientCertificates::Required } else { ClientCertificates::Optional },
        crl: crl?,
        accepts_expired_crl: accepts_expired_crl?,
        handshake_timeout: section.duration("handshake_timeout")?.value,
        handshakes: section.number("handshakes")?,
        peer_handshakes: section.number("peer_handshakes")?,
        max_age: section.duration("max_age")?.value,
    };
    if let Err(error) = tls.load(&[]) {
        let place = section.given(error.key).unwrap_or(&section.place);
        gathered.add(place, section.path(error.key), error.what, error.fix);
        return None;
    }
    Some(Some(tls))
}
