//! `[trace]`: where spans go, and which jobs have one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use http::Uri;

use super::build::Build;
use super::document::Section;
use super::files;
use super::kind::Wrong;
use super::problem::Place;
use crate::access::token::is_loopback;
use crate::trace::{Collector, Settings};

/// The port that collectors listen on where nobody says otherwise.
const USUAL_PORT: u16 = 4317;

/// The longest `trace.interval` and `trace.timeout`.
const LONGEST: Duration = Duration::from_secs(60);

impl Build<'_> {
    /// `None` where something is wrong with it, `Some(None)` where no spans are to be made.
    #[allow(clippy::option_option)]
    pub(super) fn trace(&mut self, section: &Section) -> Option<Option<Settings>> {
        if section.given("endpoint").is_none() {
            // Whoever wrote something else wanted traces.
            let keys = ["sample_ratio", "service_name", "ca", "authorization", "timeout", "interval", "queue"];
            let Some((key, place)) = keys.into_iter().find_map(|key| Some((key, section.given(key)?.clone()))) else {
                return Some(None);
            };
            let what = format!("is missing, and {key} is there: no spans would be made");
            self.gathered.add(&place, section.path("endpoint"), what, "write endpoint = \"http://127.0.0.1:4317\"");
            return None;
        }
        let base = self.base;
        let endpoint = self.text(section, "endpoint", collector);
        let ratio = self.text(section, "sample_ratio", ratio);
        let service_name = self.text(section, "service_name", service_name);
        let file = |text: &str, check: fn(&Path) -> Result<(), Wrong>| {
            let path = files::path(text, base)?;
            check(&path).map(|()| Some(path))
        };
        let ca = match section.given("ca") {
            None => Some(None),
            Some(_) => self.text(section, "ca", |text| file(text, files::readable)),
        };
        let authorization = match section.given("authorization") {
            None => Some(None),
            Some(_) => self.text(section, "authorization", |text| file(text, secret)),
        };
        let endpoint = endpoint?;
        if !endpoint.is_tls {
            for key in ["ca", "authorization"] {
                if let Some(place) = section.given(key) {
                    let place: &Place = place;
                    let what = "is there, and no TLS is spoken with this endpoint";
                    self.gathered.add(
                        place,
                        section.path(key),
                        what,
                        "write an https:// endpoint, or take this key out",
                    );
                    return None;
                }
            }
        }
        let mut duration = |key: &str| {
            let found = section.duration(key)?;
            if found.value > LONGEST {
                self.gathered.add(&found.place, section.path(key), "is longer than 60s", "write 60s or less");
                return None;
            }
            Some(found.value)
        };
        let (timeout, interval) = (duration("timeout"), duration("interval"));
        Some(Some(Settings {
            endpoint,
            ratio: ratio?,
            service_name: service_name?,
            ca: ca?,
            authorization: authorization?,
            timeout: timeout?,
            interval: interval?,
            queue: section.number("queue")?,
        }))
    }
}

/// Reads `https://host:port`, or `http://` with a loopback address.
fn collector(text: &str) -> Result<Collector, Wrong> {
    const FIX: &str = "write where the collector takes OTLP over gRPC, such as \"https://collector.example:4317\"";
    let not_an_address = || Wrong::new(format!("`{text}` is not an address"), FIX);
    let uri: Uri = text.parse().map_err(|_| not_an_address())?;
    let authority = uri.authority().ok_or_else(not_an_address)?;
    if authority.as_str().contains('@') {
        return Err(Wrong::new("has a user or password in it", "write them into the file of trace.authorization"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(Wrong::new(format!("`{text}` has a path, which gRPC has none of"), FIX));
    }
    let (host, port) = (authority.host(), authority.port_u16().unwrap_or(USUAL_PORT));
    if host.is_empty() || port == 0 {
        return Err(not_an_address());
    }
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if is_loopback(host) => false,
        Some("http") => {
            return Err(Wrong::new(
                format!("`{text}` is not encrypted, and spans say who has what run"),
                "write https://, or have a collector on this computer, such as http://127.0.0.1:4317",
            ));
        }
        _ => return Err(not_an_address()),
    };
    // A name of this computer's may lead elsewhere.
    let host = if !is_tls && host.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { host };
    Ok(Collector { is_tls, host: host.to_owned(), port })
}

fn ratio(text: &str) -> Result<f64, Wrong> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let ratio = text.parse().ok().filter(|ratio| is_plain && (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| Wrong::new(format!("`{text}` is no part"), "write one from \"0\" to \"1\", such as \"0.01\""))
}

fn service_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > 256 || text.contains(char::is_control) {
        return Err(Wrong::new("is empty, longer than 256 bytes, or no plain text", "write a name such as \"seeway\""));
    }
    Ok(text.to_owned())
}

/// A file that nobody else can read.
fn secret(path: &Path) -> Result<(), Wrong> {
    files::readable(path)?;
    let mode = std::fs::metadata(path).map_err(|error| files::unreadable(path, &error))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let name = path.display();
        let what = format!("the secret {name} can be read or written by others (mode {mode:04o})");
        return Err(Wrong::new(what, format!("run: chmod 600 {name}")));
    }
    Ok(())
}
