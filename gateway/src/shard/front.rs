//! Where the scheduler's effects go: into callers' out-buffers, and as wake-ups to whoever writes them out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use seeway_proto::mux::Incoming;
use seeway_proto::outcome::{Outcome, Rejected};
use seeway_proto::wire::Profile;
use slotmap::SecondaryMap;
use tokio::sync::{Notify, oneshot};

use super::finished::{Failure, Finished};
use super::thread::WorldChange;
use crate::config::Config;
use crate::schedule::{CallerId, ChannelId, Concluded, Effects, WorldId};

/// The callers and the channels of one shard.
pub struct Front {
    config: Arc<Config>,
    machine_names: Vec<Arc<str>>,
    worlds_by_name: HashMap<String, WorldId>,
    worlds_by_publication: HashMap<String, WorldId>,
    ports: SecondaryMap<CallerId, Port>,
    channels: SecondaryMap<ChannelId, Arc<Notify>>,
    world_changes: Arc<dyn WorldChange>,
    /// Requests that were rejected before the scheduler saw them, and so are counted for no world.
    pub rejected: u64,
}

/// Where a caller's outcomes go.
enum Port {
    Legacy(LegacyPort),
    /// Unary gRPC calls of one connection, by ticket.
    Calls(HashMap<u64, oneshot::Sender<Finished>>),
    Stream(Answers),
}

/// A legacy caller's stream: the answering end of its mux.
pub struct LegacyPort {
    /// Commands in, replies out.
    pub incoming: Incoming,
    /// The worlds whose handles this connection was given; a handle is [`FIRST_HANDLE`] and the place here.
    handles: Vec<WorldId>,
    /// Notified when there is something to write.
    output: Arc<Notify>,
    /// Notified when a reader that is paused may go on.
    room: Arc<Notify>,
    is_paused: bool,
    /// Whether the writer has answers in hand that it has not written yet.
    is_writing: Arc<AtomicBool>,
}

/// The first handle that a connection is given. Any number would do; this one is easy to recognise in a trace.
const FIRST_HANDLE: u32 = 0x5ee0_0001;

/// What has become of a gRPC stream's jobs, waiting to be sent to its caller.
pub struct Answers {
    /// Ended jobs by the caller's id for each.
    pub finished: VecDeque<(u64, Finished)>,
    /// The stream, where it waits for more.
    pub waker: Option<Waker>,
    /// Notified when the stream's reader, which waits for room, may go on.
    room: Arc<Notify>,
    /// Whether the reader waits for room.
    pub is_paused: bool,
}

impl LegacyPort {
    /// The port of a connection whose writer waits on `output`, and whose reader waits on `room` after
    /// [`pause`](Self::pause).
    pub fn new(incoming: Incoming, output: Arc<Notify>, room: Arc<Notify>, is_writing: Arc<AtomicBool>) -> Self {
        Self { incoming, handles: Vec::new(), output, room, is_paused: false, is_writing }
    }

    /// The reader waits until an answer has made room.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Something was answered: the writer has work, and a reader that waits for room looks again.
    pub fn wake(&mut self) {
        self.output.notify_one();
        self.resume();
    }

    /// A reader that waits for room looks again.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.is_paused) {
            self.room.notify_one();
        }
    }

    /// The world that a handle stands for on this connection. It may be retired by now.
    pub fn world_of(&self, handle: u32) -> Option<WorldId> {
        let place = usize::try_from(handle.checked_sub(FIRST_HANDLE)?).ok()?;
        self.handles.get(place).copied()
    }

    /// The handle of a world on this connection; the same one each time it is asked for.
    pub fn handle_of(&mut self, world: WorldId) -> u32 {
        let place = self.handles.iter().position(|other| *other == world).unwrap_or_else(|| {
            self.handles.push(world);
            self.handles.len() - 1
        });
        FIRST_HANDLE + u32::try_from(place).expect("there are not that many worlds")
    }

    /// Tells the job's outcome to its caller.
    pub fn answer(&mut self, profile: &Profile, tag: u32, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Replied(reply) => self.incoming.answer_job(tag, reply.0),
            _ => self.incoming.answer_error(tag, outcome.status(profile), outcome.errorinfo()),
        }
        self.wake();
    }
}

impl Front {
    /// A front with nobody on it.
    pub fn new(config: Arc<Config>, world_changes: Arc<dyn WorldChange>) -> Self {
        let mut front = Self {
            machine_names: Vec::new(),
            worlds_by_name: HashMap::new(),
            worlds_by_publication: HashMap::new(),
            ports: SecondaryMap::new(),
            channels: SecondaryMap::new(),
            world_changes,
            rejected: 0,
            config: config.clone(),
        };
        front.reconfigure(config);
        front
    }

    /// The configuration has changed. A world that is retired is found by no name and no handle any more.
    pub fn reconfigure(&mut self, config: Arc<Config>) {
        let by = |name: fn(&crate::config::World) -> &str| {
            let live = config.worlds.iter().enumerate().filter(|(_, world)| !world.is_retired);
            live.map(|(id, world)| (name(world).to_owned(), WorldId(id))).collect()
        };
        self.machine_names = config.machines.iter().map(|machine| machine.name.as_str().into()).collect();
        self.worlds_by_name = by(|world| &world.name);
        self.worlds_by_publication = by(|world| &world.published_as);
        self.config = config;
    }

    /// The world of this name.
    pub fn world(&self, name: &str) -> Option<WorldId> {
        self.worlds_by_name.get(name).copied()
    }

    /// The world that is published under this name.
    pub fn published_world(&self, name: &str) -> Option<WorldId> {
        self.worlds_by_publication.get(name).copied()
    }

    /// A legacy caller's outcomes go to `port`.
    pub fn add_legacy(&mut self, caller: CallerId, port: LegacyPort) {
        self.ports.insert(caller, Port::Legacy(port));
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

    /// A gRPC connection's unary calls wait for outcomes.
    pub fn add_calls(&mut self, caller: CallerId) {
        self.ports.insert(caller, Port::Calls(HashMap::new()));
    }

    /// The call that waits for the outcome of `ticket`.
    pub fn add_call(&mut self, caller: CallerId, ticket: u64) -> oneshot::Receiver<Finished> {
        let (sender, receiver) = oneshot::channel();
        if let Some(Port::Calls(calls)) = self.ports.get_mut(caller) {
            calls.insert(ticket, sender);
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
    pub fn add_stream(&mut self, caller: CallerId, room: Arc<Notify>) {
        let answers = Answers { finished: VecDeque::new(), waker: None, room, is_paused: false };
        self.ports.insert(caller, Port::Stream(answers));
    }

    /// The answers for a stream; `None` where it has ended.
    pub fn stream(&mut self, caller: CallerId) -> Option<&mut Answers> {
        match self.ports.get_mut(caller) {
            Some(Port::Stream(answers)) => Some(answers),
            _ => None,
        }
    }

    /// Nobody waits for this caller's outcomes any more.
    pub fn remove_caller(&mut self, caller: CallerId) {
        self.ports.remove(caller);
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
    pub fn reject(&mut self, world: &str, rejected: Rejected) -> Failure {
        self.rejected += 1;
        Failure::new(&self.config.wire.profile, world, None, Outcome::Rejected(rejected))
    }

    /// Whether every caller has been sent what there is for it.
    pub fn is_flushed(&self) -> bool {
        self.ports.values().all(|port| match port {
            Port::Legacy(port) => port.incoming.output_len() == 0 && !port.is_writing.load(Ordering::Relaxed),
            Port::Calls(calls) => calls.is_empty(),
            Port::Stream(answers) => answers.finished.is_empty(),
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

impl Effects for Front {
    fn concluded(&mut self, concluded: Concluded<'_>) {
        let profile = &self.config.wire.profile;
        match self.ports.get_mut(concluded.caller) {
            Some(Port::Legacy(port)) => {
                let tag = u32::try_from(concluded.ticket).expect("a legacy caller's ticket is its tag");
                port.answer(profile, tag, concluded.outcome);
            }
            Some(port) => {
                let world = &self.config.worlds[concluded.world.0].name;
                let machine = concluded.machine.map(|machine| &self.machine_names[machine.0]);
                let times = (concluded.queue_time, concluded.machine_time);
                let finished = Finished::new(profile, world, machine, times, concluded.outcome);
                match port {
                    Port::Calls(calls) => {
                        if let Some(call) = calls.remove(&concluded.ticket) {
                            // A call that has just been dropped is cancelled by its own guard.
                            let _ = call.send(finished);
                        }
                    }
                    Port::Stream(answers) => {
                        answers.finished.push_back((concluded.ticket, finished));
                        if let Some(waker) = answers.waker.take() {
                            waker.wake();
                        }
                    }
                    Port::Legacy(_) => unreachable!("matched above"),
                }
            }
            None => {}
        }
    }

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
}
