//! What machines send.

use super::fields::{Fields, WORD};
use super::{JobBytes, Profile};

/// A reply that parses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The tag of the command that it answers.
    pub tag: u32,
    /// What it says.
    pub body: ReplyBody<'a>,
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyBody<'a> {
    /// To a NoOp.
    NoOp,
    /// To a SEEJob: the reply's bytes.
    Job(JobBytes<'a>),
    /// To a GetPublishedObject: the world's handle.
    Object(u32),
    /// To any command.
    Error {
        /// The status, never OK.
        status: u32,
        /// What the machine says about it.
        info: Option<&'a str>,
    },
}

/// A reply that does not parse. The stream that it came on is broken: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reply of {length} bytes does not parse")]
pub struct BadReply {
    /// The length of its body, in bytes.
    pub length: usize,
}

/// A reply of which nothing is known but that it is one, as it comes from somebody who knows more commands than the profile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OpaqueReply<'a> {
    /// The tag of the command that it answers.
    pub tag: u32,
    /// What follows the reply's head.
    rest: &'a [u8],
}

impl<'a> OpaqueReply<'a> {
    /// Of the body of a reply, which has at least 16 bytes (see [`super::Framer`]).
    ///
    /// # Panics
    /// If it has fewer.
    pub fn new(body: &'a [u8]) -> Self {
        let (head, rest) = body.split_at(4 * WORD);
        Self { tag: Fields::new(head).word().expect("a reply begins with its tag"), rest }
    }

    /// All words that follow the reply's head, in order. Whatever number the reply brings is one of them: fields are words,
    /// and byte blocks begin and end between two of them.
    pub fn words(self) -> impl Iterator<Item = u32> {
        self.rest.as_chunks::<WORD>().0.iter().map(|word| u32::from_le_bytes(*word))
    }
}

impl std::fmt::Debug for OpaqueReply<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpaqueReply {{ tag: {}, rest: {} bytes }}", self.tag, self.rest.len())
    }
}

/// Decodes the body of a reply, which has at least 16 bytes (see [`super::Framer`]).
#[inline]
pub fn decode_reply<'a>(profile: &Profile, body: &'a [u8]) -> Result<Reply<'a>, BadReply> {
    decode(profile, body).ok_or(BadReply { length: body.len() })
}

#[inline]
fn decode<'a>(profile: &Profile, body: &'a [u8]) -> Option<Reply<'a>> {
    let mut fields = Fields::new(body);
    let [tag, number, status, flags] = fields.words()?;
    let is_ok = status == profile.statuses.ok;
    if number == profile.commands.see_job && is_ok && flags == 0 {
        // What nearly all are.
        let body = ReplyBody::Job(JobBytes(fields.block()?));
        return fields.is_done().then_some(Reply { tag, body });
    }
    decode_other(profile, fields, [tag, number, flags], Some(status).filter(|_| !is_ok))
}

/// Decodes what follows the head of a reply, of which `status` is the status unless that is OK.
fn decode_other<'a>(
    profile: &Profile,
    mut fields: Fields<'a>,
    [tag, number, flags]: [u32; 3],
    status: Option<u32>,
) -> Option<Reply<'a>> {
    let info_follows = profile.reply_flags.errorinfo;
    if flags & !info_follows != 0 {
        return None;
    }
    let info = if flags == info_follows { Some(fields.text()?) } else { None };

    let commands = &profile.commands;
    let body = match status {
        Some(status) => (number == commands.error_return).then_some(ReplyBody::Error { status, info })?,
        None if number == commands.see_job => ReplyBody::Job(JobBytes(fields.block()?)),
        None if number == commands.no_op => ReplyBody::NoOp,
        None if number == commands.get_published_object => ReplyBody::Object(fields.word()?),
        None => return None,
    };
    fields.is_done().then_some(Reply { tag, body })
}
