//! The asking end of a stream.

use std::sync::Arc;

use crate::bug::{self, Bug};
use crate::wiped::{Batch, Spares, WipedBuffer};
use crate::wire::{self, BadReply, Direction, Frame, FrameError, Framer, Limits, Profile, ReplyBody};

/// A command's name on the stream.
///
/// The low bits are its place in the table, the others count how often the place has been used. So a reply that comes
/// twice, or long after its tag was freed, does not match the next command in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(u32);

/// Bits of a tag that are its place: 2^17 places, above the largest `max_in_flight` that can be configured (65 536).
const PLACE_BITS: u32 = 17;

/// The use of a place that comes after this one.
fn next_use(use_count: u32) -> u32 {
    (use_count + 1) & (u32::MAX >> PLACE_BITS)
}

impl Tag {
    #[inline]
    fn new(place: usize, use_count: u32) -> Self {
        let place = u32::try_from(place).expect("a place is below 2^17");
        Self(use_count << PLACE_BITS | place)
    }

    fn place(self) -> usize {
        (self.0 & ((1 << PLACE_BITS) - 1)) as usize
    }

    /// The number on the wire.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// The stream is at its limit of commands in flight; the token comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<T>(pub T);

/// A reply and the token of the command that it answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a, T> {
    /// What was given when the command was staged.
    pub token: T,
    /// What the peer says.
    pub reply: ReplyBody<'a>,
    /// Whether it said more than the limit allows: then `reply` is an error that stands for it, and the peer is well.
    pub is_too_large: bool,
}

/// The peer broke the protocol. Nothing that it sends can be trusted to answer the right command any more: close the
/// stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A length that can not be.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A reply that does not parse.
    #[error(transparent)]
    Reply(#[from] BadReply),
    /// A reply to nothing that was asked.
    #[error("a reply came with tag {tag:#x}, which is not outstanding")]
    StrayTag {
        /// The reply's tag.
        tag: u32,
    },
    /// A reply of another kind than its command.
    #[error("the reply with tag {tag:#x} answers another kind of command than was sent with it")]
    WrongKind {
        /// The reply's tag.
        tag: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NoOp,
    Job,
    PublishedObject,
}

impl Kind {
    #[inline]
    fn is_answered_by(self, reply: &ReplyBody<'_>) -> bool {
        if let ReplyBody::Job(_) = reply { self == Self::Job } else { self.is_answered_by_other(reply) }
    }

    fn is_answered_by_other(self, reply: &ReplyBody<'_>) -> bool {
        matches!(
            (self, reply),
            (_, ReplyBody::Error { .. })
                | (Self::NoOp, ReplyBody::NoOp)
                | (Self::PublishedObject, ReplyBody::Object(_))
        )
    }
}

#[derive(Debug)]
enum Use<T> {
    Free,
    Asked {
        kind: Kind,
        /// The batch that the command went into; as long as it is the current one, the command has not left.
        batch: u64,
        /// `None` once nobody waits for the reply any more.
        token: Option<T>,
    },
    /// Staged and withdrawn: its message is still among the staged bytes, and will not leave.
    Withdrawn,
}

#[derive(Debug)]
struct Place<T> {
    use_count: u32,
    /// How many staged bytes the command's message took.
    staged_bytes: usize,
    state: Use<T>,
}

/// The asking end: commands are staged, taken as one batch, and answered in any order.
///
/// `T` is the caller's own name for a command, returned with its reply.
#[derive(Debug)]
pub struct Outgoing<T> {
    profile: Arc<Profile>,
    limits: Limits,
    framer: Framer,
    places: Vec<Place<T>>,
    free: Vec<usize>,
    max_in_flight: usize,
    batch: u64,
    staged: WipedBuffer,
    spares: Spares,
    withdrawn: Withdrawn,
    late_replies: u64,
}

/// What is among the staged bytes and will not leave. It is taken out when the batch is taken, or when it is as much as the
/// rest: so that withdrawing any number of commands costs as much as staging them did.
#[derive(Debug, Default)]
struct Withdrawn {
    commands: usize,
    bytes: usize,
}

impl<T> Outgoing<T> {
    /// The end of a stream that has just begun, for at most `max_in_flight` commands at once (65 536 is the most).
    pub fn new(profile: Arc<Profile>, limits: Limits, max_in_flight: usize) -> Self {
        Self {
            profile,
            limits,
            framer: Framer::new(Direction::Replies, limits),
            places: Vec::new(),
            free: Vec::new(),
            max_in_flight: max_in_flight.min(1 << (PLACE_BITS - 1)),
            batch: 0,
            staged: WipedBuffer::new(),
            spares: Spares::default(),
            withdrawn: Withdrawn::default(),
            late_replies: 0,
        }
    }

    /// The same with buffers that it shares with others.
    #[must_use]
    pub fn with_spares(mut self, spares: Spares) -> Self {
        self.spares = spares;
        self
    }

    /// Stages a job. It has not left before [`take_output`](Self::take_output).
    #[inline]
    pub fn stage_job(&mut self, world: u32, job: &[u8], token: T) -> Result<Tag, Refused<T>> {
        self.stage(Kind::Job, token, |profile, staged, tag| wire::command_see_job(profile, staged, tag, world, job))
    }

    /// Stages a NoOp.
    pub fn stage_no_op(&mut self, token: T) -> Result<Tag, Refused<T>> {
        self.stage(Kind::NoOp, token, wire::command_no_op)
    }

    /// Stages a GetPublishedObject.
    pub fn stage_get_published_object(&mut self, name: &str, token: T) -> Result<Tag, Refused<T>> {
        self.stage(Kind::PublishedObject, token, |profile, staged, tag| {
            wire::command_get_published_object(profile, staged, tag, name);
        })
    }

    /// Takes everything that is staged, to be written; `None` where nothing is. From now on these commands may have been
    /// executed.
    pub fn take_output(&mut self) -> Option<Batch> {
        self.compact();
        if self.staged.is_empty() {
            return None;
        }
        self.batch += 1;
        Some(self.spares.lend(std::mem::take(&mut self.staged)))
    }

    /// Takes the next reply off the front of `input`; `None` where there is no whole one. Replies that nobody waits for
    /// any more are dropped here.
    #[inline(always)]
    pub fn receive<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Answer<'a, T>>, Broken> {
        loop {
            let (tag, reply, is_too_large) = match self.framer.next(input)? {
                None => return Ok(None),
                Some(Frame::Body(body)) => {
                    let reply = wire::decode_reply(&self.profile, body)?;
                    match reply.body {
                        ReplyBody::Job(bytes) if bytes.0.len() > self.limits.max_job_bytes as usize => {
                            (reply.tag, self.too_large(), true)
                        }
                        body => (reply.tag, body, false),
                    }
                }
                Some(Frame::TooLong { tag, .. }) => (tag, self.too_large(), true),
            };
            if let Some(token) = self.answered(Tag(tag), &reply)? {
                return Ok(Some(Answer { token, reply, is_too_large }));
            }
            self.late_replies += 1;
        }
    }

    /// How many bytes are missing from the message at the front of `input`: the least that the next read needs room for.
    pub fn missing(&self, input: &[u8]) -> usize {
        self.framer.missing(input)
    }

    /// Nobody waits for this command's reply any more. Its tag stays taken until the reply comes.
    pub fn abandon(&mut self, tag: Tag) -> Option<T> {
        if bug::is_on(Bug::TagFreedAtDeadline) {
            return self.place_of(tag).is_some().then(|| self.free_place(tag.place())).flatten();
        }
        match &mut self.place_of(tag)?.state {
            Use::Asked { token, .. } => token.take(),
            Use::Free | Use::Withdrawn => None,
        }
    }

    /// How many batches have left: what was staged when this was the same has not.
    #[inline]
    pub fn batches(&self) -> u64 {
        self.batch
    }

    /// Whether this command is staged and has not left.
    pub fn is_staged(&self, tag: Tag) -> bool {
        self.places.get(tag.place()).is_some_and(|place| {
            place.use_count == tag.0 >> PLACE_BITS
                && matches!(place.state, Use::Asked { batch, .. } if batch == self.batch)
        })
    }

    /// Withdraws a command that [`is_staged`](Self::is_staged), as if it had never been: its token comes back, and it will
    /// not leave. Does nothing to a command that has left.
    pub fn withdraw(&mut self, tag: Tag) -> Option<T> {
        if !self.is_staged(tag) {
            return None;
        }
        let place = self.place_of(tag)?;
        let bytes = place.staged_bytes;
        let Use::Asked { token, .. } = std::mem::replace(&mut place.state, Use::Withdrawn) else { return None };
        self.withdrawn.commands += 1;
        self.withdrawn.bytes += bytes;
        // The second condition bounds the table: twice `max_in_flight` places at most, which is what a tag has bits for.
        if self.withdrawn.bytes * 2 >= self.staged.len() || self.withdrawn.commands >= self.max_in_flight {
            self.compact();
        }
        token
    }

    /// Withdraws every command that has not left, as if none of them had ever been: those that are still wanted come back with
    /// their job's bytes, in the order in which they were staged.
    pub fn withdraw_all(&mut self, mut unsent: impl FnMut(T, &[u8])) {
        let staged = std::mem::take(&mut self.staged);
        self.withdrawn = Withdrawn::default();
        let mut rest = staged.filled();
        while !rest.is_empty() {
            let message = wire::StagedMessage::split_off(&self.profile, &mut rest);
            if let Some(token) = self.free_place(Tag(message.tag).place())
                && !bug::is_on(Bug::UnsentLostOnClose)
            {
                unsent(token, message.job);
            }
        }
    }

    /// Ends the stream: every command that is still wanted comes back, those that have not left with their job's bytes,
    /// in the order in which they were staged.
    pub fn close(mut self, unsent: impl FnMut(T, &[u8]), mut sent: impl FnMut(T)) {
        if !bug::is_on(Bug::UnsentTakenForSent) {
            self.withdraw_all(unsent);
        }
        for place in self.places.drain(..) {
            if let Use::Asked { token: Some(token), .. } = place.state {
                sent(token);
            }
        }
    }

    /// How many commands have a tag: staged, or sent and unanswered, wanted or not.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.places.len() - self.free.len() - self.withdrawn.commands
    }

    /// The commands whose replies somebody waits for: staged, or sent and unanswered.
    pub fn wanted(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| match &place.state {
            Use::Asked { token, .. } => token.as_ref(),
            Use::Free | Use::Withdrawn => None,
        })
    }

    /// Whether one more command may be staged.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.in_flight() < self.max_in_flight
    }

    /// How many bytes are staged and will leave.
    #[inline]
    pub fn staged_len(&self) -> usize {
        self.staged.len() - self.withdrawn.bytes
    }

    /// How many replies came after nobody waited for them any more.
    pub fn late_replies(&self) -> u64 {
        self.late_replies
    }

    #[inline(always)]
    fn stage(
        &mut self,
        kind: Kind,
        token: T,
        write: impl FnOnce(&Profile, &mut WipedBuffer, u32),
    ) -> Result<Tag, Refused<T>> {
        if !self.has_room() {
            return Err(Refused(token));
        }
        if self.staged.capacity() == 0 {
            self.begin_batch();
        }
        let index = self.free.pop().unwrap_or_else(|| self.add_place());
        let place = &mut self.places[index];
        let tag = Tag::new(index, place.use_count);
        let before = self.staged.len();
        write(&self.profile, &mut self.staged, tag.0);
        place.staged_bytes = self.staged.len() - before;
        place.state = Use::Asked { kind, batch: self.batch, token: Some(token) };
        Ok(tag)
    }

    /// Once for each batch: so it stays out of the way of a job.
    #[cold]
    #[inline(never)]
    fn begin_batch(&mut self) {
        self.staged = self.spares.take();
    }

    #[cold]
    fn add_place(&mut self) -> usize {
        self.places.push(Place { use_count: 0, staged_bytes: 0, state: Use::Free });
        self.places.len() - 1
    }

    fn free_place(&mut self, index: usize) -> Option<T> {
        let place = &mut self.places[index];
        place.use_count = next_use(place.use_count);
        self.free.push(index);
        match std::mem::replace(&mut place.state, Use::Free) {
            Use::Asked { token, .. } => token,
            Use::Free | Use::Withdrawn => None,
        }
    }

    fn place_of(&mut self, tag: Tag) -> Option<&mut Place<T>> {
        let is_any_use = bug::is_on(Bug::UseCountIgnored);
        self.places.get_mut(tag.place()).filter(|place| is_any_use || place.use_count == tag.0 >> PLACE_BITS)
    }

    /// What stands for a reply that is larger than the limit: its job ran, and what it said is lost, as if the machine had
    /// failed. The stream is fine.
    #[cold]
    fn too_large(&self) -> ReplyBody<'static> {
        let status = self.profile.statuses.see_world_failed;
        ReplyBody::Error { status, info: Some("the reply is larger than the limit") }
    }

    /// Frees the tag that a reply carries; the token is `None` where nobody waits for the reply.
    #[inline]
    fn answered(&mut self, tag: Tag, reply: &ReplyBody<'_>) -> Result<Option<T>, Broken> {
        let current_batch = self.batch;
        let tag = if bug::is_on(Bug::ReplyMatchedByPosition) { self.first_sent().unwrap_or(tag) } else { tag };
        let is_any_use = bug::is_on(Bug::UseCountIgnored);
        let place = self.places.get_mut(tag.place());
        let place = place.filter(|place| is_any_use || place.use_count == tag.0 >> PLACE_BITS);
        let Some(Place { use_count, state, .. }) = place else { return Err(Broken::StrayTag { tag: tag.0 }) };
        match state {
            // An answer to what has not been sent is as stray as one to nothing.
            Use::Asked { kind, batch, token } if *batch != current_batch => {
                if !kind.is_answered_by(reply) {
                    return Err(Broken::WrongKind { tag: tag.0 });
                }
                let token = token.take();
                *state = Use::Free;
                *use_count = next_use(*use_count);
                self.free.push(tag.place());
                Ok(token)
            }
            Use::Asked { .. } | Use::Free | Use::Withdrawn => Err(Broken::StrayTag { tag: tag.0 }),
        }
    }

    /// What a reply is taken for by [`Bug::ReplyMatchedByPosition`].
    fn first_sent(&self) -> Option<Tag> {
        let is_sent = |place: &&Place<T>| matches!(place.state, Use::Asked { batch, .. } if batch != self.batch);
        let (index, place) = self.places.iter().enumerate().find(|(_, place)| is_sent(place))?;
        Some(Tag::new(index, place.use_count))
    }

    /// Takes what was withdrawn out of the staged bytes.
    fn compact(&mut self) {
        if self.withdrawn.commands == 0 {
            return;
        }
        self.withdrawn = Withdrawn::default();
        let staged = std::mem::take(&mut self.staged);
        let mut rest = staged.filled();
        while !rest.is_empty() {
            let message = wire::StagedMessage::split_off(&self.profile, &mut rest);
            let index = Tag(message.tag).place();
            if matches!(self.places[index].state, Use::Withdrawn) {
                self.free_place(index);
                if bug::is_on(Bug::WithdrawnStillSent) {
                    self.staged.extend(message.bytes);
                }
            } else {
                self.staged.extend(message.bytes);
            }
        }
    }
}
