//! Small applications that really do something, for demonstrations, tests and benchmarks.
//!
//! `seeway emulate --app NAME` runs one of them; the names are [`App`]'s textual form.

mod counter;
mod echo;
mod faulty;
mod sign;
mod slow;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::runtime::{Machine, MachineConfig, MachineError, Processors};

/// An application, by the name under which operators know it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum App {
    /// `echo`: replies with the job.
    Echo,
    /// `sign`: replies with an Ed25519 signature of the job (64 bytes). The job `pubkey` gets the public key instead (32
    /// bytes). The private key is generated in the machine and never leaves it; it outlives restarts of the application
    /// and of the machine, as a key in an HSM does, and ends with the process.
    Sign,
    /// `counter`: adds one and replies with the count, as an unsigned 64-bit number, little-endian. The count outlives
    /// restarts as the key of `sign` does.
    Counter,
    /// `slow:MS`: replies with the job, this much later; many jobs at once.
    Slow(Duration),
    /// `faulty:P`: with probability P, 0 to 1, dies holding the job; else replies with the job.
    Faulty(f64),
}

/// A text that names no application.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAppError {
    /// There is no application of this name.
    #[error("there is no application `{0}`; there are echo, sign, counter, slow:MS and faulty:P")]
    UnknownName(String),
    /// What follows the colon is not what the application takes.
    #[error("the application `{app}` can not be run with `{argument}`; write {expected}")]
    BadArgument {
        /// The application's name.
        app: &'static str,
        /// What was given.
        argument: String,
        /// What is to be given instead.
        expected: &'static str,
    },
    /// The application takes an argument, and has none.
    #[error("the application `{app}` needs an argument; write {expected}")]
    MissingArgument {
        /// The application's name.
        app: &'static str,
        /// What is to be given.
        expected: &'static str,
    },
}

/// The longest delay of `slow`: an hour. A caller's deadline has passed long before.
const MAX_DELAY: Duration = Duration::from_secs(3600);

impl App {
    /// The configuration of a machine that suits this application; complete it with a name or a journal as needed.
    pub fn config(self) -> MachineConfig {
        let processors = match self {
            // A signature takes tens of microseconds of a core.
            Self::Sign => Processors::default(),
            // Waking a thread would cost more than all of the job.
            Self::Echo | Self::Counter | Self::Slow(_) | Self::Faulty(_) => Processors::Inline,
        };
        MachineConfig { processors, ..MachineConfig::default() }
    }

    /// Starts a machine that runs this application.
    pub fn start(self, config: MachineConfig) -> Result<Machine, MachineError> {
        match self {
            Self::Echo => Machine::start(config, || echo::Echo),
            Self::Sign => {
                let key = sign::SigningKey::generate();
                Machine::start(config, move || sign::Sign::new(key.clone()))
            }
            Self::Counter => {
                let count = counter::Count::default();
                Machine::start(config, move || counter::Counter::new(count.clone()))
            }
            Self::Slow(delay) => Machine::start(config, move || slow::Slow::start(delay)),
            Self::Faulty(probability) => Machine::start(config, move || faulty::Faulty::new(probability)),
        }
    }
}

impl FromStr for App {
    type Err = ParseAppError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        match name {
            "echo" => without_argument("echo", argument, Self::Echo),
            "sign" => without_argument("sign", argument, Self::Sign),
            "counter" => without_argument("counter", argument, Self::Counter),
            "slow" => {
                with_argument("slow", argument, "slow:MS with 0 to 3600000 milliseconds, such as slow:50", |text| {
                    let delay = Duration::from_millis(text.parse().ok()?);
                    (delay <= MAX_DELAY).then_some(Self::Slow(delay))
                })
            }
            "faulty" => with_argument(
                "faulty",
                argument,
                "faulty:P with a probability from 0 to 1, such as faulty:0.01",
                |text| {
                    let probability: f64 = text.parse().ok()?;
                    (0.0..=1.0).contains(&probability).then_some(Self::Faulty(probability))
                },
            ),
            _ => Err(ParseAppError::UnknownName(text.to_owned())),
        }
    }
}

fn without_argument(app: &'static str, argument: Option<&str>, parsed: App) -> Result<App, ParseAppError> {
    match argument {
        None => Ok(parsed),
        Some(argument) => {
            let expected = "its name alone, without a colon";
            Err(ParseAppError::BadArgument { app, argument: argument.to_owned(), expected })
        }
    }
}

fn with_argument(
    app: &'static str,
    argument: Option<&str>,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<App>,
) -> Result<App, ParseAppError> {
    let argument = argument.ok_or(ParseAppError::MissingArgument { app, expected })?;
    parse(argument).ok_or_else(|| ParseAppError::BadArgument { app, argument: argument.to_owned(), expected })
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo => write!(f, "echo"),
            Self::Sign => write!(f, "sign"),
            Self::Counter => write!(f, "counter"),
            Self::Slow(delay) => write!(f, "slow:{}", delay.as_millis()),
            Self::Faulty(probability) => write!(f, "faulty:{probability}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print_back() {
        for name in
            ["echo", "sign", "counter", "slow:0", "slow:50", "slow:3600000", "faulty:0", "faulty:0.25", "faulty:1"]
        {
            let app: App = name.parse().expect(name);
            assert_eq!(app.to_string(), name);
        }
    }

    #[test]
    fn errors_say_what_to_write_instead() {
        for (name, said) in [
            ("", "there are echo, sign, counter, slow:MS and faulty:P"),
            ("ecco", "no application `ecco`"),
            ("echo:1", "its name alone"),
            ("slow", "slow:MS"),
            ("slow:", "slow:50"),
            ("slow:fast", "`fast`"),
            ("slow:-1", "`-1`"),
            ("slow:3600001", "3600000"),
            ("faulty", "faulty:P"),
            ("faulty:2", "from 0 to 1"),
            ("faulty:-0.1", "from 0 to 1"),
            ("faulty:NaN", "from 0 to 1"),
        ] {
            let error = name.parse::<App>().expect_err(name).to_string();
            assert!(error.contains(said), "{name}: {error}");
        }
    }
}
