//! The numbers of the wire: everything that a vendor's header would define.
//!
//! Nothing outside of `wire` knows a number; the others name a [`Profile`]'s fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

/// The built-in profile's file, in the form in which a site writes its own.
pub const OPEN_1: &str = include_str!("open-1.toml");

/// The numbers that commands, statuses and flags have on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The profile's name, for logs and for `seeway check`.
    pub name: String,
    /// The values of `cmd`.
    pub commands: Commands,
    /// The values of `status`.
    pub statuses: Statuses,
    /// The bits of a reply's `flags`.
    pub reply_flags: ReplyFlags,
}

/// The values of `cmd`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// The `cmd` of a reply whose status is not OK; never sent as a command.
    #[serde(rename = "ErrorReturn")]
    pub error_return: u32,
    /// Asks for a reply and nothing else.
    #[serde(rename = "NoOp")]
    pub no_op: u32,
    /// A job for a world.
    #[serde(rename = "SEEJob")]
    pub see_job: u32,
    /// Asks for the handle of a world by its published name.
    #[serde(rename = "GetPublishedObject")]
    pub get_published_object: u32,
}

/// The values of `status`. What each one means to a caller is told by [`crate::outcome`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // The names are the wire's own; spec/wire.md defines each.
pub struct Statuses {
    #[serde(rename = "OK")]
    pub ok: u32,
    #[serde(rename = "UnknownCommand")]
    pub unknown_command: u32,
    #[serde(rename = "Malformed")]
    pub malformed: u32,
    #[serde(rename = "InvalidParameter")]
    pub invalid_parameter: u32,
    #[serde(rename = "UnknownID")]
    pub unknown_id: u32,
    #[serde(rename = "AccessDenied")]
    pub access_denied: u32,
    #[serde(rename = "BufferFull")]
    pub buffer_full: u32,
    #[serde(rename = "QueueFull")]
    pub queue_full: u32,
    #[serde(rename = "NotAvailable")]
    pub not_available: u32,
    #[serde(rename = "NetworkError")]
    pub network_error: u32,
    #[serde(rename = "SEEWorldFailed")]
    pub see_world_failed: u32,
    #[serde(rename = "Timeout")]
    pub timeout: u32,
}

/// Statuses from here on are not the wire's, in any profile.
const FIRST_APPLICATION_STATUS: u32 = 0x0001_0000;

/// The bits of a reply's `flags`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyFlags {
    /// An errorinfo byte block follows the flags.
    pub errorinfo: u32,
}

/// Why a profile can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It is not TOML, or a key is missing, unknown or not a 32-bit number.
    #[error("the profile does not parse: {0}")]
    Toml(#[from] toml::de::Error),
    /// Two names share one number, so that a receiver could not tell them apart.
    #[error("the profile `{profile}` gives {first} and {second} the same number {number}; each needs its own")]
    Ambiguous {
        /// The profile's name.
        profile: String,
        /// One of the names.
        first: &'static str,
        /// The other one.
        second: &'static str,
        /// The number they share.
        number: u32,
    },
    /// The errorinfo flag is not exactly one bit.
    #[error("the profile `{profile}` has errorinfo = {flag:#x}; it must be one bit, such as 0x1")]
    NotABit {
        /// The profile's name.
        profile: String,
        /// What the file says.
        flag: u32,
    },
}

impl Profile {
    /// The built-in profile.
    pub fn open_1() -> Arc<Self> {
        Arc::new(Self::from_toml(OPEN_1).expect("the built-in profile is tested to parse"))
    }

    /// Reads a profile with the same keys as [`OPEN_1`].
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text)?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), ProfileError> {
        self.check_distinct(&self.commands.named())?;
        self.check_distinct(&self.statuses.named())?;
        if self.reply_flags.errorinfo.count_ones() != 1 {
            return Err(ProfileError::NotABit { profile: self.name.clone(), flag: self.reply_flags.errorinfo });
        }
        Ok(())
    }

    fn check_distinct(&self, named: &[(&'static str, u32)]) -> Result<(), ProfileError> {
        let mut seen = BTreeMap::new();
        for (name, number) in named {
            if let Some(first) = seen.insert(*number, *name) {
                return Err(ProfileError::Ambiguous {
                    profile: self.name.clone(),
                    first,
                    second: name,
                    number: *number,
                });
            }
        }
        Ok(())
    }
}

impl Commands {
    fn named(&self) -> [(&'static str, u32); 4] {
        [
            ("ErrorReturn", self.error_return),
            ("NoOp", self.no_op),
            ("SEEJob", self.see_job),
            ("GetPublishedObject", self.get_published_object),
        ]
    }
}

impl Statuses {
    fn named(&self) -> [(&'static str, u32); 12] {
        [
            ("OK", self.ok),
            ("UnknownCommand", self.unknown_command),
            ("Malformed", self.malformed),
            ("InvalidParameter", self.invalid_parameter),
            ("UnknownID", self.unknown_id),
            ("AccessDenied", self.access_denied),
            ("BufferFull", self.buffer_full),
            ("QueueFull", self.queue_full),
            ("NotAvailable", self.not_available),
            ("NetworkError", self.network_error),
            ("SEEWorldFailed", self.see_world_failed),
            ("Timeout", self.timeout),
        ]
    }

    /// The name of a status, where the profile has one for it.
    pub fn name(&self, status: u32) -> Option<&'static str> {
        self.named().into_iter().find_map(|(name, number)| (number == status).then_some(name))
    }

    /// Whether this status belongs to the application in the machine; such ones pass through untouched.
    pub fn is_of_application(&self, status: u32) -> bool {
        status >= FIRST_APPLICATION_STATUS
    }

    /// Whether a reply with this status says that nothing ran (the status table of the wire's specification).
    pub fn says_nothing_ran(&self, status: u32) -> bool {
        [
            self.unknown_command,
            self.malformed,
            self.invalid_parameter,
            self.unknown_id,
            self.access_denied,
            self.buffer_full,
            self.queue_full,
            self.not_available,
        ]
        .contains(&status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_1_has_the_numbers_of_the_specification() {
        let profile = Profile::open_1();
        assert_eq!(profile.name, "open-1");
        assert_eq!(profile.commands.named().map(|(_, number)| number), [0, 1, 2, 3]);
        assert_eq!(profile.statuses.named().map(|(_, number)| number), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(profile.reply_flags.errorinfo, 1);
        assert_eq!(profile.statuses.name(10), Some("SEEWorldFailed"));
        assert_eq!(profile.statuses.name(0x0001_0000), None);
    }

    #[test]
    fn a_site_brings_its_own_numbers() {
        let text = OPEN_1.replace("SEEJob             = 2", "SEEJob = 99").replace("open-1", "site");
        let profile = Profile::from_toml(&text).expect("valid");
        assert_eq!((profile.name.as_str(), profile.commands.see_job), ("site", 99));
    }

    #[test]
    fn what_could_not_be_told_apart_is_refused() {
        let same_command = OPEN_1.replace("SEEJob             = 2", "SEEJob = 1");
        let error = Profile::from_toml(&same_command).expect_err("ambiguous").to_string();
        assert!(error.contains("NoOp") && error.contains("SEEJob"), "{error}");
        let same_status = OPEN_1.replace("Timeout          = 11", "Timeout = 0");
        assert!(Profile::from_toml(&same_status).is_err());
        let flag = OPEN_1.replace("errorinfo = 0x1", "errorinfo = 0x3");
        assert!(Profile::from_toml(&flag).is_err());
    }

    #[test]
    fn a_missing_or_unknown_key_is_named() {
        let missing = OPEN_1.replace("Malformed        = 2", "");
        let error = Profile::from_toml(&missing).expect_err("missing").to_string();
        assert!(error.contains("Malformed"), "{error}");
        let unknown = format!("{OPEN_1}\nother = 1\n");
        let error = Profile::from_toml(&unknown).expect_err("unknown").to_string();
        assert!(error.contains("other"), "{error}");
    }
}
