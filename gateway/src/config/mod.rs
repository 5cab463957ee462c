//! `seeway.toml`: one TOML file → one checked value.
//!
//! Called by `serve`, `check`, `forward` and the control plane's reload. Reading accumulates: every problem in a file is reported, each with its line and what
//! to do about it. `keys` is the one table of keys that reading, environment variables and the reference page go by;
//! `document` turns a text into values by it, and `build` turns those into a [`Config`].

mod address;
mod audit;
mod base;
mod build;
mod document;
mod doors;
mod duration;
mod environment;
mod files;
mod keys;
mod kind;
mod login;
mod permission;
mod problem;
mod process;
mod reference;
mod reload;
mod schema;
mod statement;
mod tls;
mod token;
mod trace;
mod validity;
mod value;

#[cfg(test)]
mod tests;

use std::path::Path;

use seeway_client::tunnel::Endpoint;

pub use audit::read_audit_key;
pub use duration::{duration_text, parse_duration};
pub use problem::{Place, Problem, Problems};
pub use process::{Policy, Process, User};
pub use reference::{SMALLEST, reference};
pub use schema::schema;
pub use tls::{ClientCertificates, Loaded, Stamp, Tls, TlsFileError, provider};
pub use token::Token;
pub use validity::{Ends, Validity};
pub use value::{
    Balance, Circuit, Config, HardserverAddress, Limits, Listen, Machine, NO_MACHINE, Retry, Runtime, Ssh, Whereabouts,
    Wire, World,
};

use environment::Overrides;
use problem::Gathered;

/// Reads `host:port` as the command line takes it: a name, an IPv4 address or an IPv6 address in brackets, and a port above 0. The
/// error says what is wrong and what to write.
pub fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    address::machine(text).map_err(|wrong| format!("{}; {}", wrong.what, wrong.fix))
}

/// The largest configuration file that is read, in bytes.
const FILE_LIMIT: u64 = 4 << 20;

impl Config {
    /// Reads a file and the environment's overrides of it.
    ///
    /// # Errors
    /// Everything that is wrong, each problem with its place.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        Self::read(&text_of(file)?, file, environment::of_process())
    }

    /// Reads of a file where its gateway is, for whom what else stands there does not concern: secrets need not be readable, and the gateway
    /// itself tells what is wrong with the rest.
    ///
    /// # Errors
    /// It does not say so, and has problems.
    pub fn whereabouts(file: &Path) -> Result<Whereabouts, Problems> {
        let mut gathered = Gathered::default();
        let overrides = Overrides::pick(environment::of_process(), &mut gathered);
        let document = document::read(&text_of(file)?, &overrides, &mut gathered);
        let base = file.parent().unwrap_or(Path::new(""));
        match build::whereabouts(&document, base, &mut gathered) {
            Some(found) if found.handover.is_some() => Ok(found),
            // It may stand in what could not be read.
            found => gathered.verdict(file, found),
        }
    }

    /// Reads a text as if it stood in `file`, whose directory relative file names are taken from, with the overrides that
    /// `environment` has among its variables.
    ///
    /// # Errors
    /// Everything that is wrong, each problem with its place.
    pub fn read(
        text: &str,
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        Self::read_and(text, file, environment, |_, _, _| {})
    }

    /// Reads a text; where a configuration came of it, `look` may note more that is wrong with it.
    fn read_and(
        text: &str,
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        look: impl FnOnce(&Self, &document::Document, &mut Gathered),
    ) -> Result<Self, Problems> {
        let mut gathered = Gathered::default();
        let overrides = Overrides::pick(environment, &mut gathered);
        let document = document::read(text, &overrides, &mut gathered);
        let base = file.parent().unwrap_or(Path::new(""));
        let config = build::build(&document, base, &mut gathered);
        if let Some(config) = &config {
            look(config, &document, &mut gathered);
        }
        gathered.verdict(file, config)
    }
}

/// The text of a configuration file.
fn text_of(file: &Path) -> Result<String, Problems> {
    let whole = |what: String, fix: &str| Problems {
        file: file.to_owned(),
        list: vec![Problem { place: Place::Whole, key: String::new(), what, fix: fix.to_owned() }],
    };
    let metadata = std::fs::metadata(file)
        .map_err(|error| whole(format!("can not be read: {error}"), "name the configuration file with --config"))?;
    if !metadata.is_file() || metadata.len() > FILE_LIMIT {
        return Err(whole("is not a configuration file".to_owned(), "name a file in TOML form, of at most 4 MiB"));
    }
    let bytes =
        std::fs::read(file).map_err(|error| whole(format!("can not be read: {error}"), "let this user read it"))?;
    String::from_utf8(bytes).map_err(|error| {
        let place = statement::place(&String::from_utf8_lossy(error.as_bytes()), error.utf8_error().valid_up_to());
        let (what, fix) = ("is not UTF-8 text from here on".to_owned(), "save it as UTF-8".to_owned());
        Problems { file: file.to_owned(), list: vec![Problem { place, key: String::new(), what, fix }] }
    })
}
