//! Where the scheduler's effects go: into callers' out-buffers, and as wake-ups to whoever writes them out.

mod recording;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use seeway_proto::grpc::Reply;
use seeway_proto::grpc::response::write_message;
use seeway_proto::mux::{Incoming, Received};
use seeway_proto::outcome::{NotSent, Outcome, Rejected, Unknown};
use seeway_proto::v1::{StreamResponse, stream_response};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, OpaqueReply, Profile};
use slotmap::SecondaryMap;
use tokio::sync::{Notify, oneshot, watch};

use super::finished::{Failure, Finished};
use super::handles::{Handles, Meaning};
use super::passage::{Loss, Passage, PassageWakes, Passed};
use super::report::{Broken, Late};
use super::thread::WorldChange;
use crate::access::{Access, Identity, Quota, Standing, Standings, Submit};
use crate::audit::Recorder;
use crate::config::Config;
use crate::schedule::{Abandoned, CallerId, ChannelId, Concluded, Effects, MachineId, NewJob, WorldId};

/// The callers and the channels of one shard.
pub struct Front {
    config: Arc<Config>,
    machine_names: Vec<Arc<str>>,
    /// Whether a large job has come for each machine: its bulk channels are opened then, and not before.
    bulk_wanted: Vec<watch::Sender<bool>>,
    worlds_by_name: HashMap<String, WorldId>,
    worlds_by_publication: HashMap<String, WorldId>,
    ports: SecondaryMap<CallerId, Port>,
    standings: Standings,
    /// What each caller may do; a unary call's own standing, where it sent a token, is with the call.
    standing_of: SecondaryMap<CallerId, Arc<Standing>>,
    /// The quotas that jobs in hand are counted against, by caller and ticket. Jobs that no rule counts are not here.
    counted: foldhash::HashMap<(CallerId, u64), Arc<Quota>>,
    /// Legacy callers that have been answered since answers were last written.
    answered: Vec<CallerId>,
    channels: SecondaryMap<ChannelId, Arc<Notify>>,
    world_changes: Arc<dyn WorldChange>,
    /// Requests that were rejected before the scheduler saw them, and so are counted for no world.
    pub rejected: u64,
    /// Whose message took too long to come.
    pub late: Late,
    /// Whose messages were none.
    pub broken: Broken,
    /// Commands that were passed on to the hardserver and have ended.
    pub passed: Passed,
    /// Where there is an audit log.
    recorder: Option<Box<Recorder>>,
}

/// Where a caller's outcomes go.
enum Port {
    Legacy(LegacyPort),
    /// Unary gRPC calls of one connection, by ticket.
    Calls(foldhash::HashMap<u64, Call>),
    Stream(Answers),
}

/// A unary call that waits for its outcome.
struct Call {
    outcome: oneshot::Sender<Finished>,
    /// Whose it is, where that is not who connected.
    standing: Option<Arc<Standing>>,
}

/// A legacy caller's stream: the answering end of its mux.
pub struct LegacyPort {
    /// Commands in, replies out.
    pub incoming: Incoming,
    handles: Handles,
    /// Where commands that are not Seeway's go; `None` where there is no hardserver behind this one.
    passage: Option<Box<Passage>>,
    /// Where the answers go.
    answers_to: Arc<dyn AnswerSink>,
    is_paused: bool,
    /// Whether it is among those that are written at the end of the shard's call.
    is_answered: bool,
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

/// What has become of a gRPC stream's jobs, waiting to be sent to its caller.
pub struct Answers {
    /// Messages, with what stands before each on the stream.
    pub messages: WipedBuffer,
    /// Which job each of them is about, in the same order.
    pub ids: Vec<Answered>,
    /// The stream, where it waits for more.
    pub waker: Option<Waker>,
    /// Notified when the stream's reader, which waits for room, may go on.
    room: Arc<Notify>,
    /// Whether the reader waits for room.
    pub is_paused: bool,
}

/// A job that a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The one with this id.
    Job(u64),
    /// One whose id belongs to another one that is not answered yet.
    InUse,
}

impl Answers {
    /// Tells why a job has no reply.
    pub fn push_failure(&mut self, id: u64, answered: Answered, failure: Failure) {
        let result = stream_response::Result::Failure(failure.into());
        write_message(&mut self.messages, &StreamResponse { id, result: Some(result) });
        self.pushed(answered);
    }

    fn pushed(&mut self, answered: Answered) {
        self.ids.push(answered);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
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

    /// Tells the job's outcome to its caller, once the shard's call ends: [`Front::answered`].
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
                tracing::warn!(
                    handles = lost,
                    "the hardserver gave a number that was a world's handle: ask for the world again"
                );
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

    fn owes_nothing(&self) -> bool {
        self.incoming.output_len() == 0 && self.passage.as_ref().is_none_or(|passage| passage.outstanding() == 0)
    }
}

impl Front {
    /// A front with nobody on it.
    pub fn new(now: Instant, config: Arc<Config>, access: Arc<Access>, world_changes: Arc<dyn WorldChange>) -> Self {
        let mut front = Self {
            standings: Standings::new(access, config.clone()),
            standing_of: SecondaryMap::new(),
            counted: foldhash::HashMap::default(),
            machine_names: Vec::new(),
            bulk_wanted: Vec::new(),
            worlds_by_name: HashMap::new(),
            worlds_by_publication: HashMap::new(),
            ports: SecondaryMap::new(),
            answered: Vec::new(),
            channels: SecondaryMap::new(),
            world_changes,
            rejected: 0,
            late: Late::default(),
            broken: Broken::default(),
            passed: Passed::default(),
            recorder: None,
            config: config.clone(),
        };
        front.reconfigure(now, config);
        front
    }

    /// The configuration has changed. A world that is retired is found by no name and no handle any more, and callers may do what
    /// the new rules allow.
    pub fn reconfigure(&mut self, now: Instant, config: Arc<Config>) {
        let by = |name: fn(&crate::config::World) -> &str| {
            let live = config.worlds.iter().enumerate().filter(|(_, world)| !world.is_retired);
            live.map(|(id, world)| (name(world).to_owned(), WorldId(id))).collect()
        };
        self.bulk_wanted.resize_with(config.machines.len(), || watch::Sender::new(false));
        self.machine_names = config.machines.iter().map(|machine| machine.name.as_str().into()).collect();
        self.worlds_by_name = by(|world| &world.name);
        self.worlds_by_publication = by(|world| &world.published_as);
        self.standings.reconfigure(config.clone());
        for standing in self.standing_of.values_mut() {
            *standing = self.standings.of(now, standing.identity());
        }
        for port in self.ports.values_mut() {
            if let Port::Calls(calls) = port {
                for standing in calls.values_mut().filter_map(|call| call.standing.as_mut()) {
                    *standing = self.standings.of(now, standing.identity());
                }
            }
        }
        self.config = config;
    }

    /// What somebody may do.
    pub fn standing(&mut self, now: Instant, identity: &Identity) -> Arc<Standing> {
        self.standings.of(now, identity)
    }

    /// What a caller may do.
    ///
    /// # Panics
    /// If the caller is none.
    pub fn standing_of(&self, caller: CallerId) -> &Arc<Standing> {
        self.standing_of.get(caller).expect("a caller has a standing from its beginning to its end")
    }

    /// Whether a job may go to the scheduler. One that may is counted against its caller's quota until it ends; what becomes of one
    /// that may not is the outcome. To be asked for each job, once: [`State::submit`](super::State::submit) does.
    ///
    /// # Errors
    /// The caller may not submit to the world, or its quota is used up.
    #[inline]
    pub(super) fn admit(&mut self, now: Instant, caller: CallerId, job: &NewJob<'_>) -> Result<(), Outcome<'static>> {
        if self.standings.has_rules() { self.admit_by_rule(now, caller, job) } else { Ok(()) }
    }

    fn admit_by_rule(&mut self, now: Instant, caller: CallerId, job: &NewJob<'_>) -> Result<(), Outcome<'static>> {
        let of_call = match self.ports.get(caller) {
            Some(Port::Calls(calls)) => calls.get(&job.ticket).and_then(|call| call.standing.as_ref()),
            _ => None,
        };
        let standing = of_call.unwrap_or_else(|| self.standing_of(caller));
        match standing.submit(job.world) {
            Submit::Free => Ok(()),
            Submit::Counted(quota) if quota.take(self.standings.clock(now), job.bytes.len()) => {
                self.counted.insert((caller, job.ticket), quota.clone());
                Ok(())
            }
            Submit::Counted(_) => Err(Outcome::NotSent(NotSent::CallerQuota)),
            // Who may only open pipes knows that the world is there.
            Submit::Denied if standing.may_see(job.world) => Err(Outcome::Rejected(Rejected::AccessDenied)),
            Submit::Denied => Err(Outcome::Rejected(Rejected::NoSuchWorld)),
        }
    }

    /// A job has ended: its place in its caller's quota is free.
    #[inline]
    fn uncount(&mut self, caller: CallerId, ticket: u64) {
        if !self.counted.is_empty()
            && let Some(quota) = self.counted.remove(&(caller, ticket))
        {
            quota.give_back();
        }
    }

    /// The configuration as it is now.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Whether large jobs have come for a machine, and need channels of their own.
    pub fn wants_bulk(&self, machine: MachineId) -> watch::Receiver<bool> {
        self.bulk_wanted[machine.0].subscribe()
    }

    /// The world of this name, as far as somebody may see it.
    pub fn world(&self, standing: &Standing, name: &str) -> Option<WorldId> {
        self.worlds_by_name.get(name).copied().filter(|world| standing.may_see(*world))
    }

    /// The world that is published under this name, as far as a caller may see it.
    pub fn published_world(&self, caller: CallerId, name: &str) -> Option<WorldId> {
        let world = self.worlds_by_publication.get(name).copied();
        world.filter(|world| self.standing_of(caller).may_see(*world))
    }

    /// A legacy caller's outcomes go to `port`.
    pub fn add_legacy(&mut self, now: Instant, caller: CallerId, identity: &Identity, port: LegacyPort) {
        self.add(now, caller, identity, Port::Legacy(port));
    }

    fn add(&mut self, now: Instant, caller: CallerId, identity: &Identity, port: Port) {
        let standing = self.standings.of(now, identity);
        self.standing_of.insert(caller, standing);
        self.ports.insert(caller, port);
    }

    /// The port of a legacy caller.
    ///
    /// # Panics
    /// If the caller is none.
    pub fn legacy(&mut self, caller: CallerId) -> &mut LegacyPort {
        match self.ports.get_mut(caller) {
            Some(Port::Legacy(port)) => port,
            _ => panic!("a legacy connection removes its port when it ends, not before"),
        }
    }

    /// A legacy caller has been answered: [`write_answers`](Self::write_answers) writes that.
    pub fn answered(&mut self, caller: CallerId) {
        if let Some(Port::Legacy(port)) = self.ports.get_mut(caller)
            && !std::mem::replace(&mut port.is_answered, true)
        {
            self.answered.push(caller);
        }
    }

    /// Writes what legacy callers have been answered since the last time: one write for each caller, by whoever has the answers.
    /// Waking each caller's own writer would cost more than most writes do.
    #[inline]
    pub fn write_answers(&mut self) {
        if !self.answered.is_empty() {
            self.write_to_answered();
        }
    }

    #[inline(never)]
    fn write_to_answered(&mut self) {
        for caller in self.answered.drain(..) {
            let Some(Port::Legacy(port)) = self.ports.get_mut(caller) else { continue };
            port.is_answered = false;
            // Where it failed its connection meets the same error, and ends.
            if !matches!(port.write_answers(), Ok(Written::All)) {
                port.answers_to.left_over();
            }
        }
    }

    /// A gRPC connection's unary calls wait for outcomes.
    pub fn add_calls(&mut self, now: Instant, caller: CallerId, identity: &Identity) {
        self.add(now, caller, identity, Port::Calls(foldhash::HashMap::default()));
    }

    /// The call that waits for the outcome of `ticket`; with whose it is, where that is not who connected.
    pub fn add_call(
        &mut self,
        caller: CallerId,
        ticket: u64,
        standing: Option<Arc<Standing>>,
    ) -> oneshot::Receiver<Finished> {
        let (outcome, receiver) = oneshot::channel();
        if let Some(Port::Calls(calls)) = self.ports.get_mut(caller) {
            calls.insert(ticket, Call { outcome, standing });
        }
        receiver
    }

    /// A call waits no more.
    pub fn remove_call(&mut self, caller: CallerId, ticket: u64) {
        if let Some(Port::Calls(calls)) = self.ports.get_mut(caller) {
            calls.remove(&ticket);
        }
    }

    /// A gRPC stream waits for outcomes. Its reader, where the caller's quota is full, waits on `room`.
    pub fn add_stream(&mut self, now: Instant, caller: CallerId, identity: &Identity, room: Arc<Notify>) {
        let (messages, ids) = (WipedBuffer::new(), Vec::new());
        let answers = Answers { messages, ids, waker: None, room, is_paused: false };
        self.add(now, caller, identity, Port::Stream(answers));
    }

    /// The answers for a stream; `None` where it has ended.
    pub fn stream(&mut self, caller: CallerId) -> Option<&mut Answers> {
        match self.ports.get_mut(caller) {
            Some(Port::Stream(answers)) => Some(answers),
            _ => None,
        }
    }

    /// Nobody waits for this caller's outcomes any more.
    pub fn remove_port(&mut self, caller: CallerId) {
        self.ports.remove(caller);
    }

    /// A caller has gone, and its jobs have been given up.
    pub fn forget(&mut self, caller: CallerId) {
        self.standing_of.remove(caller);
        if let Some(recorder) = &mut self.recorder {
            recorder.left(caller);
        }
    }

    /// `wake` is notified when there is something to write to the channel.
    pub fn add_channel(&mut self, channel: ChannelId, wake: Arc<Notify>) {
        self.channels.insert(channel, wake);
    }

    /// Nobody writes to this channel any more.
    pub fn remove_channel(&mut self, channel: ChannelId) {
        self.channels.remove(channel);
    }

    /// The failure of a job that never reached the scheduler.
    pub fn reject(&mut self, caller: CallerId, world: &str, rejected: Rejected) -> Failure {
        self.rejected += 1;
        let outcome = Outcome::Rejected(rejected);
        self.record_refusal(caller, Some(world), outcome.reason());
        Failure::new(&self.config.wire.profile, world, None, outcome)
    }

    /// Whether every caller has been sent what there is for it, and the hardserver owes it nothing.
    pub fn is_flushed(&self) -> bool {
        self.ports.values().all(|port| match port {
            Port::Legacy(port) => port.owes_nothing(),
            Port::Calls(calls) => calls.is_empty(),
            Port::Stream(answers) => answers.messages.is_empty(),
        })
    }

    /// How many callers there are: legacy connections, and gRPC connections and streams.
    pub fn count(&self) -> (usize, usize) {
        let legacy = self.ports.values().filter(|port| matches!(port, Port::Legacy(_))).count();
        (legacy, self.ports.len() - legacy)
    }

    /// How many legacy connections and how many gRPC streams are not read from now, because one of the caller's limits is
    /// reached.
    pub fn paused(&self) -> (usize, usize) {
        let legacy = self.ports.values().filter(|port| matches!(port, Port::Legacy(port) if port.is_paused)).count();
        let streams = self.ports.values().filter(|port| matches!(port, Port::Stream(answers) if answers.is_paused));
        (legacy, streams.count())
    }

    /// How many connections to the hardserver are up.
    pub fn hardserver_connections(&self) -> usize {
        let is_connected = |port: &&Port| matches!(port, Port::Legacy(LegacyPort { passage: Some(passage), .. }) if passage.is_connected);
        self.ports.values().filter(is_connected).count()
    }

    /// Wakes every gRPC stream, to look whether it is to end.
    pub fn wake_streams(&mut self) {
        for port in self.ports.values_mut() {
            if let Port::Stream(Answers { waker, .. }) = port
                && let Some(waker) = waker.take()
            {
                waker.wake();
            }
        }
    }
}

impl Front {
    /// The job of a gRPC caller has ended.
    fn finished(&mut self, concluded: &Concluded<'_>) {
        match self.ports.get_mut(concluded.caller) {
            Some(Port::Stream(answers)) => {
                let answered = Answered::Job(concluded.ticket);
                if let Some(reply) = reply(&self.machine_names, concluded) {
                    reply.write_on_stream(&mut answers.messages, concluded.ticket);
                    answers.pushed(answered);
                } else {
                    let failure = failure(&self.config, &self.machine_names, concluded);
                    answers.push_failure(concluded.ticket, answered, failure);
                }
            }
            Some(Port::Calls(calls)) => {
                if let Some(call) = calls.remove(&concluded.ticket) {
                    let finished = match reply(&self.machine_names, concluded) {
                        Some(reply) => Finished::replied(&reply),
                        None => Finished::Failed(failure(&self.config, &self.machine_names, concluded)),
                    };
                    // A call that has just been dropped is cancelled by its own guard.
                    let _ = call.outcome.send(finished);
                }
            }
            Some(Port::Legacy(_)) | None => {}
        }
    }
}

impl Front {
    /// Tells a job's caller what became of it.
    #[inline(always)]
    #[allow(clippy::inline_always)] // As in the scheduler, of whose way of a reply this is the end.
    fn tell(&mut self, concluded: &Concluded<'_>) {
        match self.ports.get_mut(concluded.caller) {
            Some(Port::Legacy(port)) => {
                let tag = u32::try_from(concluded.ticket).expect("a legacy caller's ticket is its tag");
                port.answer(&self.config.wire.profile, tag, concluded.outcome);
                if !std::mem::replace(&mut port.is_answered, true) {
                    self.answered.push(concluded.caller);
                }
            }
            Some(_) => self.finished(concluded),
            None => {}
        }
    }
}

impl Effects for Front {
    #[inline(always)]
    #[allow(clippy::inline_always)] // See `tell`.
    fn concluded(&mut self, concluded: Concluded<'_>) {
        self.uncount(concluded.caller, concluded.ticket);
        if let Some(recorder) = &mut self.recorder {
            recorder.concluded(&concluded);
        }
        self.tell(&concluded);
    }

    fn abandoned(&mut self, abandoned: Abandoned) {
        self.uncount(abandoned.caller, abandoned.ticket);
        if let Some(recorder) = &mut self.recorder {
            recorder.abandoned(&abandoned);
        }
    }

    #[inline]
    fn output_staged(&mut self, channel: ChannelId) {
        if let Some(wake) = self.channels.get(channel) {
            wake.notify_one();
        }
    }

    fn world_ready(&mut self, world: WorldId, ready: bool) {
        self.world_changes.world_ready(world, ready);
    }

    fn caller_has_room(&mut self, caller: CallerId) {
        match self.ports.get_mut(caller) {
            Some(Port::Legacy(port)) => port.resume(),
            Some(Port::Stream(answers)) => answers.room.notify_one(),
            // A unary call that is one too many is refused: nobody waits.
            Some(Port::Calls(_)) | None => {}
        }
    }

    fn bulk_wanted(&mut self, machine: MachineId) {
        self.bulk_wanted[machine.0].send_if_modified(|is_wanted| !std::mem::replace(is_wanted, true));
    }
}

/// What a job's caller is told where it has run.
fn reply<'a>(machines: &'a [Arc<str>], concluded: &Concluded<'a>) -> Option<Reply<'a>> {
    let (Outcome::Replied(reply), Some(machine)) = (concluded.outcome, concluded.machine) else { return None };
    let (queue_time, machine_time) = (concluded.queue_time, concluded.machine_time);
    Some(Reply { bytes: reply.0, machine: &machines[machine.0], queue_time, machine_time })
}

/// What a job's caller is told where it has no reply.
fn failure(config: &Config, machines: &[Arc<str>], concluded: &Concluded<'_>) -> Failure {
    let machine = concluded.machine.map(|machine| &machines[machine.0]);
    let world = &config.worlds[concluded.world.0].name;
    Failure::new(&config.wire.profile, world, machine, concluded.outcome)
}
