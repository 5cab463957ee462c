//! What clients send.

use super::Profile;
use super::fields::Fields;

/// A command that parses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Asks for a reply and nothing else.
    NoOp {
        /// The client's tag.
        tag: u32,
    },
    /// A job for a world.
    SeeJob {
        /// The client's tag.
        tag: u32,
        /// The world's handle; 0 towards a machine.
        world: u32,
        /// The job's bytes.
        job: JobBytes<'a>,
    },
    /// Asks for the handle of a world.
    GetPublishedObject {
        /// The client's tag.
        tag: u32,
        /// The name under which the world is published.
        name: &'a str,
    },
}

impl Command<'_> {
    /// The client's tag.
    pub fn tag(&self) -> u32 {
        let (Self::NoOp { tag } | Self::SeeJob { tag, .. } | Self::GetPublishedObject { tag, .. }) = self;
        *tag
    }
}

/// A job's or reply's bytes, in a wrapper that does not show them when it is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct JobBytes<'a>(pub &'a [u8]);

impl std::fmt::Debug for JobBytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A command that has to be answered with an error; the connection stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCommand {
    /// The client's tag.
    pub tag: u32,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its fields do not parse, or do not add up to its length.
    Malformed,
    /// No command has this number.
    UnknownCommand,
    /// A flag is set; the profile has none.
    FlagsSet,
}

/// Decodes the body of a command, which has at least 12 bytes (see [`super::Framer`]).
///
/// The number of the command is looked at first, then the flags, then the arguments: the first that is wrong is told.
#[inline(always)]
pub fn decode_command<'a>(profile: &Profile, body: &'a [u8]) -> Result<Command<'a>, BadCommand> {
    let mut fields = Fields::new(body);
    let Some([tag, number, flags]) = fields.words() else {
        return Err(BadCommand { tag: Fields::new(body).word().unwrap_or_default(), fault: Fault::Malformed });
    };
    let bad = |fault| BadCommand { tag, fault };
    let commands = &profile.commands;
    let command = if number == commands.see_job {
        fields.word().zip(fields.block()).map(|(world, job)| Command::SeeJob { tag, world, job: JobBytes(job) })
    } else if number == commands.get_published_object {
        fields.text().map(|name| Command::GetPublishedObject { tag, name })
    } else if number == commands.no_op {
        Some(Command::NoOp { tag })
    } else {
        return Err(bad(Fault::UnknownCommand));
    };
    if flags != 0 {
        return Err(bad(Fault::FlagsSet));
    }
    command.filter(|_| fields.is_done()).ok_or_else(|| bad(Fault::Malformed))
}
