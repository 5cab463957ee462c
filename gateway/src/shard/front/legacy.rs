//! A legacy caller's port: its mux, the handles that it was given, what is passed on to the hardserver behind, and the writing of
//! its answers.

use std::io;
use std::sync::Arc;

use seeway_proto::mux::{Incoming, Received};
use seeway_proto::outcome::{NotSent, Outcome, Unknown};
use seeway_proto::wire::{Command, OpaqueReply, Profile};

use crate::handover::Carried;
use crate::schedule::WorldId;
use crate::seldom::{Seldom, Tell};
use crate::shard::handles::{Handles, Meaning};
use crate::shard::passage::{Loss, Passage, PassageWakes, Passed};

/// A legacy caller's stream: the answering end of its mux.
pub struct LegacyPort {
    /// Commands in, replies out.
    pub incoming: Incoming,
    handles: Handles,
    /// Where commands that are not Seeway's go; `None` where there is no hardserver behind this one.
    pub(super) passage: Option<Box<Passage>>,
    /// Where the answers go.
    pub(super) answers_to: Arc<dyn AnswerSink>,
    pub(super) is_paused: bool,
    /// Whether it is among those that are written at the end of the shard's call.
    pub(super) is_answered: bool,
}

/// What takes a legacy caller's answers: its connection. Called under the shard's lock: must not block.
pub trait AnswerSink: Send + Sync {
    /// Takes as many of these bytes as it can at once; [`io::ErrorKind::WouldBlock`] where that is none.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Answers are left over: [`LegacyPort::write_answers`] is to be called when it takes more. It fails then where it has failed
    /// now.
    fn left_over(&self);

    /// There may be room for more commands: its reader was [paused](LegacyPort::pause).
    fn room(&self);
}

/// How far answers have been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of them.
    All,
    /// As many as one turn writes; the socket may take more.
    Turn,
    /// As many as the socket takes now.
    AsFarAsTaken,
}

/// As many answers are written in one go; the rest of them in turns with what else the thread has to do.
const TURN_BYTES: usize = 64 * 1024;

/// A reply of the hardserver's has a tag with which no command has been passed on. Nothing that it sends can be trusted to
/// answer the right command any more: close the connection to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reply came with tag {tag:#x}, which is not outstanding there")]
pub struct StrayReply {
    /// The reply's tag.
    pub tag: u32,
}

impl LegacyPort {
    /// The port of a connection whose answers go to `answers_to` at the end of each of the shard's calls.
    pub fn new(incoming: Incoming, answers_to: Arc<dyn AnswerSink>) -> Self {
        let (handles, is_paused, is_answered) = (Handles::alone(), false, false);
        Self { incoming, handles, passage: None, answers_to, is_paused, is_answered }
    }

    /// The same, with a hardserver behind it: what [`pass_on`](Self::pass_on) is given is staged for it. `worlds` is how many
    /// worlds the caller may ask for.
    #[must_use]
    pub fn beside_hardserver(mut self, worlds: usize, wakes: Arc<PassageWakes>) -> Self {
        // Without a source of randomness handles are as unambiguous, and only lost more often to a hardserver that happens
        // to use the same numbers.
        self.handles = Handles::beside_hardserver(worlds, getrandom::u64().unwrap_or(1));
        self.passage = Some(Box::new(Passage::new(wakes)));
        self
    }

    /// The caller has handles that another gateway gave it. One for a world that is none here, by `find`, is refused. `worlds` is how many
    /// worlds it may ask for here.
    pub fn bring_handles(&mut self, carried: &Carried, worlds: usize, find: impl Fn(&str) -> Option<WorldId>) {
        self.handles = Handles::brought(carried, self.passage.as_ref().map(|_| worlds), find);
    }

    /// The handles that the caller has, for another gateway; `name` is a world's.
    pub fn take_handles(&self, name: impl Fn(WorldId) -> String) -> Carried {
        self.handles.to_carry(name)
    }

    /// Whether the caller has a connection to the hardserver behind, or is about to, or has lost one and was not told yet.
    pub fn has_hardserver(&self) -> bool {
        self.passage.as_deref().is_some_and(Passage::is_used)
    }

    /// Whether nothing is outstanding, and every answer has been written.
    pub fn is_quiet(&self) -> bool {
        self.incoming.outstanding() == 0 && self.owes_nothing()
    }

    /// The reader waits until an answer has made room.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Writes as many answers as the socket takes, and not many more than 64 KiB of them; says how far it came. Where the socket
    /// takes any, a reader that waits for room looks again. Where it takes none there is no more room than before, and a reader
    /// that looked would do nothing else.
    #[inline]
    pub fn write_answers(&mut self) -> io::Result<Written> {
        let mut written = 0;
        let how_far = loop {
            let output = self.incoming.output();
            if output.is_empty() {
                break Written::All;
            }
            if written >= TURN_BYTES {
                break Written::Turn;
            }
            match self.answers_to.try_write(&output[..output.len().min(TURN_BYTES)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written += count;
                    if self.incoming.taken(count) {
                        break Written::All;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Written::AsFarAsTaken,
                Err(error) => return Err(error),
            }
        };
        if written > 0 {
            self.resume();
            self.resume_passage();
        }
        Ok(how_far)
    }

    /// A reader that waits for room looks again.
    #[inline]
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.is_paused) {
            self.answers_to.room();
        }
    }

    /// What a handle stands for on this connection.
    #[inline]
    pub fn meaning_of(&self, handle: u32) -> Meaning {
        self.handles.meaning(handle)
    }

    /// The handle of a world on this connection; the same one each time it is asked for, as long as that is unambiguous.
    /// `None` where the hardserver has used up the numbers that there are for handles.
    pub fn handle_of(&mut self, world: WorldId) -> Option<u32> {
        self.handles.give(world)
    }

    /// Tells the job's outcome to its caller, once the shard's call ends.
    #[inline]
    pub fn answer(&mut self, profile: &Profile, tag: u32, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Replied(reply) => self.incoming.answer_job(tag, reply.0),
            _ => self.answer_without_reply(profile, tag, outcome),
        }
    }

    fn answer_without_reply(&mut self, profile: &Profile, tag: u32, outcome: Outcome<'_>) {
        self.incoming.answer_error(tag, outcome.status(profile), outcome.errorinfo());
    }

    /// Whether the caller has so many commands outstanding, or so many bytes wait for it or for the hardserver to take them, that
    /// nothing more is to be taken in.
    #[inline]
    pub fn is_full(&self, most_bytes: usize) -> bool {
        !self.incoming.has_room() || self.incoming.output_len() >= most_bytes || self.staged().len() >= most_bytes
    }

    /// Stages a command for the hardserver, unchanged. Its answer is [`passed_back`](Self::passed_back).
    ///
    /// Returns false where the connection to the hardserver has been lost since the caller was last answered over it: the
    /// caller's objects there are gone with it. The command is refused then, so that the caller learns of that before anything
    /// of its reaches the next connection, and so are all others of its [batch](Self::batch_served).
    pub fn pass_on(&mut self, profile: &Profile, received: Received<'_>) -> bool {
        let passage = self.passage.as_mut().expect("commands are passed on where there is a hardserver");
        if passage.loss != Loss::Known {
            passage.loss = Loss::BeingTold;
            let outcome = Outcome::NotSent(NotSent::NowhereToGo);
            let info = "the connection to the hardserver was lost, and with it what it had given";
            self.incoming.answer_error(received.tag, outcome.status(profile), Some(info));
            return false;
        }
        let may_bring_handles = !matches!(received.command, Some(Command::SeeJob { .. }));
        passage.stage(received.tag, may_bring_handles, received.message);
        true
    }

    /// A batch of commands has been served. Where one of them was refused for a loss of the connection to the hardserver, the
    /// caller has been told: what it sends from now on goes to the next one.
    #[inline]
    pub fn batch_served(&mut self) {
        if let Some(passage) = &mut self.passage
            && passage.loss == Loss::BeingTold
        {
            passage.loss = Loss::Known;
        }
    }

    /// The connection to the hardserver is up.
    pub fn hardserver_connected(&mut self) {
        if let Some(passage) = &mut self.passage {
            passage.is_connected = true;
        }
    }

    /// What is to be written to the hardserver.
    #[inline]
    pub fn staged(&self) -> &[u8] {
        self.passage.as_ref().map_or(&[], |passage| passage.staged())
    }

    /// The first `count` bytes of [`staged`](Self::staged) have been written. A reader that waits for room looks again.
    pub fn wrote(&mut self, count: usize) {
        if let Some(passage) = &mut self.passage {
            passage.wrote(count);
            self.resume();
        }
    }

    /// Hands a reply of the hardserver's to the caller, unchanged. `message` is all of it, its length word included.
    pub fn passed_back(&mut self, reply: OpaqueReply<'_>, message: &[u8]) -> Result<(), StrayReply> {
        let stray = StrayReply { tag: reply.tag };
        let asked = self.passage.as_mut().and_then(|passage| passage.replied(reply.tag)).ok_or(stray)?;
        if asked.may_bring_handles {
            let lost = self.handles.came_by(reply.words());
            if lost > 0 {
                static AMBIGUOUS: Seldom = Seldom::new("the hardserver gave a number that was a world's handle");
                if let Some(Tell { untold }) = AMBIGUOUS.tell("") {
                    tracing::warn!(
                        handles = lost,
                        untold,
                        "the hardserver gave a number that was a world's handle: ask for the world again"
                    );
                }
            }
        }
        self.incoming.answer_with(reply.tag, message);
        Ok(())
    }

    /// A reply of the hardserver's is larger than the limit: the command has run, and what it said is lost.
    pub fn passed_back_too_large(&mut self, profile: &Profile, tag: u32) -> Result<(), StrayReply> {
        self.passage.as_mut().and_then(|passage| passage.replied(tag)).ok_or(StrayReply { tag })?;
        let status = Outcome::Unknown(Unknown::MachineFailed).status(profile);
        self.incoming.answer_error(tag, status, Some("the reply is larger than the limit"));
        Ok(())
    }

    /// The connection to the hardserver was lost, or was not to be had. Each of its commands gets the status that says whether
    /// it had left.
    pub fn hardserver_lost(&mut self, profile: &Profile) -> Passed {
        let mut passed = Passed::default();
        for (tag, has_left) in self.passage.as_mut().map(|passage| passage.lost()).unwrap_or_default() {
            let (outcome, info) = if has_left {
                passed.unknown += 1;
                (Outcome::Unknown(Unknown::TunnelLost), "the connection to the hardserver was lost: outcome unknown")
            } else {
                passed.not_sent += 1;
                (Outcome::NotSent(NotSent::NowhereToGo), "the hardserver can not be reached")
            };
            self.incoming.answer_error(tag, outcome.status(profile), Some(info));
        }
        passed
    }

    /// Answers have been taken, so that more replies of the hardserver may be read.
    #[inline]
    pub fn resume_passage(&self) {
        if let Some(passage) = &self.passage {
            passage.wakes.room.notify_one();
        }
    }

    pub(super) fn owes_nothing(&self) -> bool {
        self.incoming.output_len() == 0 && self.passage.as_ref().is_none_or(|passage| passage.outstanding() == 0)
    }
}
