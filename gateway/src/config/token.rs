//! `[token]`: whose tokens are taken, and where their keys come from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::build::Build;
use super::document::Section;
use super::files;
use super::kind::Wrong;
use super::problem::Place;
use crate::access::token::{KeySource, Keys, TokenSettings};

/// The longest leeway; clocks that differ by more are to be set right.
const LONGEST_LEEWAY: Duration = Duration::from_secs(5 * 60);

/// `[token]`: whose tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// `token.jwks`: where the provider's keys are.
    pub keys: KeySource,
    /// What tokens are held to.
    pub settings: TokenSettings,
    /// `token.rsa_min_bits`: the smallest RSA key that is taken, in bits.
    pub rsa_min_bits: usize,
    /// `token.refresh`: how often the keys are read again; not zero.
    pub refresh: Duration,
    /// `token.stale`: how long the last keys stay in use; at least `refresh`.
    pub stale: Duration,
    /// `token.ca`: what the provider's certificate must lead to; `None`: what the system trusts.
    pub ca: Option<PathBuf>,
}

impl Token {
    /// Whether another one's keys are these.
    pub fn has_keys_of(&self, other: &Self) -> bool {
        (&self.keys, self.rsa_min_bits) == (&other.keys, other.rsa_min_bits)
    }
}

impl Build<'_> {
    /// `None` where something is wrong with it, `Some(None)` where no tokens are to be taken.
    #[allow(clippy::option_option)]
    pub(super) fn token(&mut self, section: &Section) -> Option<Option<Token>> {
        if section.given("jwks").is_none() {
            // Whoever wrote something else wanted tokens taken.
            let (key, place) = ["issuer", "audience", "ca"]
                .into_iter()
                .find_map(|key| Some((key, section.given(key)?.clone())))
                .unzip();
            return match (key, place) {
                (Some(key), Some(place)) => {
                    let what = format!("{key} is there, and jwks is not");
                    let fix = "write jwks = \"https://…\" or a file's name, or take [token] out";
                    self.gathered.add(&place, section.path("jwks"), what, fix);
                    None
                }
                _ => Some(None),
            };
        }
        let base = self.base;
        let rsa_min_bits = section.number("rsa_min_bits");
        let keys = self.text(section, "jwks", |text| {
            let file = if text.contains("://") { PathBuf::new() } else { files::path(text, base)? };
            let source = KeySource::parse(text, |_| file).map_err(|(what, fix)| Wrong::new(what, fix))?;
            if let (KeySource::File(path), Some(bits)) = (&source, rsa_min_bits) {
                key_set(path, bits)?;
            }
            Ok(source)
        });
        let issuer = self.required_text(section, "issuer");
        let audience = self.required_text(section, "audience");
        let name_claim = self.text(section, "name_claim", claim);
        let groups_claim = self.text(section, "groups_claim", claim);
        let ca = match section.given("ca") {
            None => Some(None),
            Some(_) => self.text(section, "ca", |text| {
                let path = files::path(text, base)?;
                files::readable(&path).map(|()| Some(path))
            }),
        };
        let leeway = section.duration("leeway");
        if let Some(leeway) = leeway.as_ref().filter(|leeway| leeway.value > LONGEST_LEEWAY) {
            let (what, fix) = ("is longer than 5m", "write 5m or less, and set the clocks right (NTP)");
            self.gathered.add(&leeway.place, section.path("leeway"), what, fix);
        }
        self.at_least(section, "stale", &["refresh"]);
        Some(Some(Token {
            keys: keys?,
            settings: TokenSettings {
                issuer: issuer?,
                audience: audience?,
                name_claim: name_claim?,
                groups_claim: groups_claim?,
                leeway: leeway?.value,
            },
            rsa_min_bits: rsa_min_bits?,
            refresh: section.duration("refresh")?.value,
            stale: section.duration("stale")?.value,
            ca: ca?,
        }))
    }

    /// A text that has to be there where tokens are taken.
    fn required_text(&mut self, section: &Section, key: &str) -> Option<String> {
        if section.given(key).is_none() {
            let place: &Place = section.given("jwks").unwrap_or(&section.place);
            let what = "is missing: without it, this gateway would take tokens that are not meant for it";
            self.gathered.add(place, section.path(key), what, format!("write {key} = \"…\", as the provider has it"));
            return None;
        }
        self.text(section, key, |text| {
            if text.is_empty() || text.len() > 1024 || text.contains(char::is_control) {
                return Err(Wrong::new(
                    "is empty, longer than 1024 bytes, or no plain text",
                    "write it as the provider has it",
                ));
            }
            Ok(text.to_owned())
        })
    }
}

/// The name of a claim.
fn claim(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > 256 || text.contains(char::is_control) {
        return Err(Wrong::new("is no claim's name", "write the name as it stands in the provider's tokens"));
    }
    Ok(text.to_owned())
}

/// Looks at a file of keys, which the gateway reads again when it runs.
fn key_set(path: &Path, rsa_min_bits: usize) -> Result<(), Wrong> {
    files::readable(path)?;
    let document = fs::read(path).map_err(|error| files::unreadable(path, &error))?;
    let keys = Keys::from_jwks(&document, rsa_min_bits);
    keys.map(drop).map_err(|error| {
        let error = error.to_string();
        let what = format!("{} can not be used: {error}", path.display());
        Wrong::new(what, "correct that file, or name the right one")
    })
}
