//! Where the scheduler's effects go: into callers' out-buffers, and as wake-ups to whoever writes them out.

mod legacy;
mod recording;
mod standing;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use seeway_proto::grpc::Reply;
use seeway_proto::grpc::response::write_message;
use seeway_proto::outcome::{Outcome, Rejected};
use seeway_proto::v1::{StreamResponse, stream_response};
use seeway_proto::wiped::WipedBuffer;
use slotmap::SecondaryMap;
use tokio::sync::{Notify, oneshot, watch};

use super::finished::{Failure, Finished};
use super::history::{History, What};
use super::passage::Passed;
use super::report::Late;
use super::thread::WorldChange;
use crate::access::{Access, Identity, Quota, Standing, Standings};
use crate::audit::Actor;
use crate::config::Config;
use crate::schedule::{Abandoned, Attempt, CallerId, ChannelId, Concluded, Effects, MachineId, WorldId};

use standing::OpenPipe;

pub use legacy::{AnswerSink, LegacyPort, StrayReply, Written};
pub use recording::Recording;

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
    /// Pipes that are open.
    pipes: Vec<OpenPipe>,
    /// Legacy callers that have been answered since answers were last written.
    answered: Vec<CallerId>,
    channels: SecondaryMap<ChannelId, Arc<Notify>>,
    world_changes: Arc<dyn WorldChange>,
    /// Requests that were rejected before the scheduler saw them, and so are counted for no world.
    pub rejected: u64,
    /// Whose message took too long to come.
    pub late: Late,
    /// Whose messages were none.
    pub broken: u64,
    /// Commands that were passed on to the hardserver and have ended.
    pub passed: Passed,
    /// Where there is an audit log, or traces.
    recording: Option<Box<Recording>>,
    /// Who each caller is and how it came, for whoever looks.
    actors: SecondaryMap<CallerId, Arc<Actor>>,
    /// By [`MachineId`]; shorter where nothing has happened yet.
    pub(super) histories: Vec<History>,
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
            pipes: Vec::new(),
            answered: Vec::new(),
            channels: SecondaryMap::new(),
            world_changes,
            rejected: 0,
            late: Late::default(),
            broken: 0,
            passed: Passed::default(),
            recording: None,
            actors: SecondaryMap::new(),
            histories: Vec::new(),
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
        self.rules_changed(now, config.clone());
        self.config = config;
    }

    /// The configuration as it is now.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Whether large jobs have come for a machine, and need channels of their own.
    pub fn wants_bulk(&self, machine: MachineId) -> watch::Receiver<bool> {
        self.bulk_wanted[machine.0].subscribe()
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
        self.actors.remove(caller);
        if let Some(recording) = &mut self.recording {
            recording.left(caller);
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

    /// The failure of a job that never reached the scheduler. `identity` is whoever the call is by, where that is not its connection's.
    pub fn reject(
        &mut self,
        caller: CallerId,
        identity: Option<&Identity>,
        world: &str,
        rejected: Rejected,
    ) -> Failure {
        self.rejected += 1;
        let outcome = Outcome::Rejected(rejected);
        self.record_refusal(caller, identity, Some(world), outcome.reason());
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

    /// How many callers another gateway does not take: legacy connections, gRPC streams, and connections with calls that run.
    pub fn remaining(&self) -> usize {
        self.ports.values().filter(|port| !matches!(port, Port::Calls(calls) if calls.is_empty())).count()
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
        if let Some(recording) = &mut self.recording {
            recording.concluded(&concluded);
        }
        self.tell(&concluded);
    }

    fn abandoned(&mut self, abandoned: Abandoned) {
        self.uncount(abandoned.caller, abandoned.ticket);
        if let Some(recording) = &mut self.recording {
            recording.abandoned(&abandoned);
        }
    }

    fn sent_again(&mut self, attempt: Attempt) {
        if let Some(recording) = &mut self.recording {
            recording.sent_again(&attempt);
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

    fn machine_ejected(&mut self, machine: MachineId) {
        self.happened(machine, What::Ejected, "it failed jobs, or answered none for too long");
    }

    fn machine_trusted(&mut self, machine: MachineId) {
        self.happened(machine, What::Trusted, "");
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
