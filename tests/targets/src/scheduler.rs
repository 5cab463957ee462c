//! The scheduler by sequences of operations: callers, machines, channels and time do whatever a script says.
//!
//! Held against a model: every job ends once; what it is told is true; it leaves once, or as often as it may be sent again; after
//! the last channel is closed and the last deadline has passed nothing is kept.

use std::time::{Duration, Instant};

use seeway::schedule::{
    Abandoned, Affinity, Budget, CallerId, CallerQuota, ChannelId, CircuitSettings, Concluded, Effects, FrontEnd,
    JobId, MachineId, MachineSettings, NewJob, Priority, RetrySettings, Scheduler, Settings, SizeClass, WorldId,
    WorldSettings,
};
use seeway_proto::mux::Incoming;
use seeway_proto::outcome::{NotSent, Outcome, Rejected, Unknown};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, Limits, Profile};

use crate::Script;
use crate::seeds::{Seeds, scripts, seed};

const MOST_STEPS: usize = 600;
const MACHINES: usize = 3;
const WORLDS: usize = 2;
const MAX_ATTEMPTS: u32 = 3;
const LIMITS: Limits = Limits { max_job_bytes: 200 };
const BULK_ABOVE: usize = 100;

/// A job as the model knows it; its place in the list is its ticket.
#[derive(Debug)]
struct Job {
    caller: usize,
    world: usize,
    key: u8,
    size: usize,
    idempotent: bool,
    deadline: Instant,
    id: Option<JobId>,
    /// How often it left, and how often a machine said afterwards that nothing ran.
    left: u32,
    refused: u32,
    has_ended: bool,
    /// Its caller cancelled it or has gone.
    is_given_up: bool,
}

struct Link {
    channel: ChannelId,
    machine: usize,
    end: Incoming,
    /// Taken and not answered: tag and ticket, which probes have none of.
    taken: Vec<(u32, Option<usize>)>,
}

/// What the scheduler said in one call.
#[derive(Default)]
struct Said {
    concluded: Vec<(CallerId, u64, Told)>,
    abandoned: Vec<(CallerId, u64, bool)>,
    staged: Vec<ChannelId>,
    ready: Vec<(WorldId, bool)>,
}

/// An outcome that owns what it holds.
#[derive(Debug)]
enum Told {
    Replied(Vec<u8>),
    Status { may_have_run: bool },
    Rejected(Rejected),
    NotSent(NotSent),
    Unknown(Unknown),
}

impl Effects for Said {
    fn concluded(&mut self, concluded: Concluded<'_>) {
        let told = match concluded.outcome {
            Outcome::Replied(reply) => Told::Replied(reply.0.to_vec()),
            Outcome::MachineStatus { may_have_run, .. } => Told::Status { may_have_run },
            Outcome::Rejected(why) => Told::Rejected(why),
            Outcome::NotSent(why) => Told::NotSent(why),
            Outcome::Unknown(why) => Told::Unknown(why),
        };
        self.concluded.push((concluded.caller, concluded.ticket, told));
    }

    fn abandoned(&mut self, abandoned: Abandoned) {
        self.abandoned.push((abandoned.caller, abandoned.ticket, abandoned.may_have_run));
    }

    fn output_staged(&mut self, channel: ChannelId) {
        self.staged.push(channel);
    }

    fn world_ready(&mut self, world: WorldId, ready: bool) {
        self.ready.push((world, ready));
    }

    fn caller_has_room(&mut self, _: CallerId) {}

    fn bulk_wanted(&mut self, _: MachineId) {}
}

struct Model {
    scheduler: Scheduler,
    settings: Settings,
    now: Instant,
    /// All who ever joined.
    callers: Vec<CallerId>,
    /// Those who have not left, by their places among all.
    active: Vec<usize>,
    jobs: Vec<Job>,
    links: Vec<Link>,
    in_flight: usize,
    ready: [bool; WORLDS],
}

/// The first bytes are the configuration; each operation is a byte and what it takes.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut model = Model::new(&mut script);
    for _ in 0..MOST_STEPS {
        let Some(step) = script.byte() else { break };
        model.step(step, &mut script);
        model.check();
    }
    model.finish();
}

impl Model {
    fn new(script: &mut Script<'_>) -> Self {
        let now = Instant::now();
        let in_flight = script.below(8) + 1;
        let queue = script.below(12) + 1;
        let world = |machines: Vec<MachineId>, affinity| WorldSettings {
            machines,
            queue: Budget::new(queue, 1),
            queue_bytes: Budget::new(queue * 60, 1),
            affinity,
            is_retired: false,
        };
        let flags = script.byte().unwrap_or_default();
        let is = |bit: u8| flags >> bit & 1 == 1;
        let settings = Settings {
            profile: Profile::open_1(),
            limits: LIMITS,
            worlds: vec![
                world(vec![MachineId(0), MachineId(1)], if is(0) { Affinity::Strict } else { Affinity::Prefer }),
                world(vec![MachineId(1), MachineId(2)], Affinity::Prefer),
            ],
            machines: (0..MACHINES)
                .map(|place| MachineSettings {
                    name: format!("machine-{place}").into(),
                    in_flight: Budget::new(in_flight, 1),
                    is_retired: false,
                })
                .collect(),
            hold: if is(1) { Duration::ZERO } else { Duration::from_secs(10) },
            channel_buffer: if is(2) { 64 } else { 1 << 20 },
            bulk_above: BULK_ABOVE,
            caller: CallerQuota { queued: script.below(12) + 1, in_flight: script.below(8) + 1, bytes: 1000 },
            retry: RetrySettings {
                max_attempts: MAX_ATTEMPTS,
                budget_percent: 10,
                reserve: script.byte().unwrap_or(9).into(),
            },
            circuit: CircuitSettings {
                failures: if is(3) { 0 } else { 2 },
                silent_after: Duration::from_secs(3),
                probe_after: Duration::from_secs(1),
                probe_max: Duration::from_secs(20),
            },
            slow_start: if is(4) { Duration::ZERO } else { Duration::from_secs(5) },
            seed: flags.into(),
        };
        let mut scheduler = Scheduler::new(now, settings.clone());
        let callers = (0..3).map(|_| scheduler.caller_joined(FrontEnd::Hardserver)).collect();
        Self {
            scheduler,
            settings,
            now,
            callers,
            active: vec![0, 1, 2],
            jobs: Vec::new(),
            links: Vec::new(),
            in_flight,
            ready: [false; WORLDS],
        }
    }

    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        match step % 24 {
            0..=5 => self.submit(script),
            6 => self.cancel(script),
            7 => self.open(script),
            8 => {
                let place = script.below(256);
                self.close(place);
            }
            9 | 10 => self.write(script),
            11..=13 => self.answer(script),
            14 | 15 => self.pass(Duration::from_millis(10 * script.below(256) as u64)),
            16 => self.pass(Duration::from_secs(script.below(40) as u64)),
            17 => self.with(|scheduler, now, said, chosen| scheduler.drain_channel(now, chosen, said), script),
            18 => {
                let machine = MachineId(script.below(MACHINES));
                self.call(|scheduler, now, said| scheduler.begin_machine_drain(now, machine, said));
            }
            19 => {
                let machine = MachineId(script.below(MACHINES));
                self.call(|scheduler, now, said| scheduler.end_machine_drain(now, machine, said));
            }
            20 => self.leave(script),
            21 => self.reconfigure(script),
            22 => match script.below(3) {
                0 => self.scheduler.begin_drain(),
                1 => self.scheduler.end_drain(),
                _ => self.call(Scheduler::abort_unsent),
            },
            _ => self.garbage(script),
        }
    }

    /// Calls the scheduler, and looks at all that it says.
    fn call<T>(&mut self, act: impl FnOnce(&mut Scheduler, Instant, &mut Said) -> T) -> T {
        let mut said = Said::default();
        let result = act(&mut self.scheduler, self.now, &mut said);
        for (caller, ticket, told) in &said.concluded {
            self.concluded(*caller, *ticket, told);
        }
        for (caller, ticket, may_have_run) in said.abandoned {
            let job = &mut self.jobs[usize::try_from(ticket).expect("a ticket of ours")];
            assert_eq!(caller, self.callers[job.caller]);
            assert!(job.is_given_up && !job.has_ended, "nobody gave it up, or it had ended: {job:?}");
            assert_eq!(may_have_run, job.left > 0, "{job:?}");
            job.has_ended = true;
        }
        for channel in said.staged {
            assert!(
                self.links.iter().any(|link| link.channel == channel),
                "something is staged on a channel that is gone"
            );
        }
        for (WorldId(world), ready) in said.ready {
            assert_ne!(self.ready[world], ready, "a world is told to be what it was");
            self.ready[world] = ready;
        }
        result
    }

    fn with(&mut self, act: impl FnOnce(&mut Scheduler, Instant, &mut Said, ChannelId), script: &mut Script<'_>) {
        if let Some(place) = self.link(script.below(256)) {
            let channel = self.links[place].channel;
            self.call(|scheduler, now, said| act(scheduler, now, said, channel));
        }
    }

    fn link(&self, choice: usize) -> Option<usize> {
        choice.checked_rem(self.links.len())
    }

    fn concluded(&mut self, caller: CallerId, ticket: u64, told: &Told) {
        let ticket = usize::try_from(ticket).expect("a ticket of ours");
        let job = &mut self.jobs[ticket];
        assert_eq!(caller, self.callers[job.caller], "another caller's job");
        assert!(!job.has_ended, "it has ended before: {job:?}, {told:?}");
        assert!(!job.is_given_up, "its caller wants no outcome: {job:?}, {told:?}");
        job.has_ended = true;
        let is_late = job.deadline <= self.now;
        let is_true = match told {
            Told::Replied(reply) => job.left > job.refused && *reply == reply_to(ticket),
            Told::Status { may_have_run } => job.left > 0 && (*may_have_run || job.left == job.refused),
            Told::Rejected(Rejected::JobTooLarge) => job.left == 0 && job.size > LIMITS.max_job_bytes as usize,
            Told::Rejected(Rejected::NoSuchWorld) => job.left == 0 && self.settings.worlds[job.world].is_retired,
            Told::Rejected(Rejected::Malformed | Rejected::AccessDenied) => false,
            Told::NotSent(NotSent::TooLate) => job.left == 0 && is_late,
            Told::NotSent(_) => job.left == 0,
            Told::Unknown(Unknown::TooLate) => job.left > 0 && is_late,
            Told::Unknown(_) => job.left > 0,
        };
        assert!(is_true, "{told:?} is told of {job:?}");
    }

    fn submit(&mut self, script: &mut Script<'_>) {
        let ticket = self.jobs.len();
        let caller = self.active[script.below(self.active.len())];
        let world = script.below(WORLDS);
        let shape = script.byte().unwrap_or_default();
        let size = match shape % 8 {
            0 => 201,
            1 => 200,
            2 => BULK_ABOVE + 1,
            _ => 8,
        };
        let patience = u64::from(shape >> 3 & 7) * 3000;
        let deadline = self.now + Duration::from_millis(patience);
        let (idempotent, key) = (shape >> 6 & 1 == 1, if shape >> 7 == 1 { [1, 2][ticket % 2] } else { 0 });
        let priority = [Priority::High, Priority::Normal, Priority::Low][ticket % 3];
        let job = Job {
            caller,
            world,
            key,
            size,
            idempotent,
            deadline,
            id: None,
            left: 0,
            refused: 0,
            has_ended: false,
            is_given_up: false,
        };
        self.jobs.push(job);
        let bytes = content(ticket, size);
        let affinity_key = if key == 0 { vec![] } else { vec![key] };
        let of = self.callers[caller];
        let had_room = self.scheduler.has_room(of);
        let id = self.call(|scheduler, now, said| {
            let new = NewJob {
                ticket: ticket as u64,
                world: WorldId(world),
                bytes: &bytes,
                deadline,
                idempotent,
                priority,
                affinity_key: &affinity_key,
            };
            scheduler.submit(now, of, new, said)
        });
        let job = &mut self.jobs[ticket];
        assert_eq!(id.is_none(), job.has_ended, "a job is in hand or has ended: {job:?} {had_room}");
        job.id = id;
    }

    fn cancel(&mut self, script: &mut Script<'_>) {
        let open: Vec<usize> = (0..self.jobs.len()).filter(|ticket| !self.jobs[*ticket].has_ended).collect();
        let Some(place) = script.below(256).checked_rem(open.len()) else { return };
        let job = &mut self.jobs[open[place]];
        job.is_given_up = true;
        let id = job.id.expect("it is in hand");
        self.call(|scheduler, now, said| scheduler.cancel(now, id, said));
        assert!(self.jobs[open[place]].has_ended, "it is cancelled");
    }

    fn leave(&mut self, script: &mut Script<'_>) {
        let place = script.below(self.active.len());
        let leaving = self.active[place];
        for job in self.jobs.iter_mut().filter(|job| job.caller == leaving && !job.has_ended) {
            job.is_given_up = true;
        }
        let caller = self.callers[leaving];
        self.call(|scheduler, now, said| scheduler.caller_left(now, caller, said));
        assert!(self.jobs.iter().all(|job| job.has_ended || job.caller != leaving), "its caller has gone");
        // Another one comes in its place.
        self.active[place] = self.callers.len();
        let next = self.scheduler.caller_joined(FrontEnd::Hardserver);
        self.callers.push(next);
    }

    fn open(&mut self, script: &mut Script<'_>) {
        if self.links.len() >= 8 {
            return;
        }
        let machine = script.below(MACHINES);
        let class = if script.flag() { SizeClass::Bulk } else { SizeClass::Small };
        let mut said = Said::default();
        let channel = self.scheduler.channel_opened(self.now, MachineId(machine), class, &mut said);
        let end = Incoming::new(Profile::open_1(), LIMITS, usize::MAX);
        self.links.push(Link { channel, machine, end, taken: Vec::new() });
        self.call(move |_, _, earlier| *earlier = said);
    }

    fn close(&mut self, choice: usize) {
        let Some(place) = self.link(choice) else { return };
        let link = self.links.swap_remove(place);
        self.call(|scheduler, now, said| scheduler.channel_closed(now, link.channel, said));
    }

    /// A channel's output leaves.
    fn write(&mut self, script: &mut Script<'_>) {
        let Some(place) = self.link(script.below(256)) else { return };
        let channel = self.links[place].channel;
        let mut said = Said::default();
        let batch = self.scheduler.take_output(self.now, channel, &mut said);
        // It has left before anybody is told anything.
        if let Some(batch) = batch {
            let mut input = &batch[..];
            while let Some(command) = self.links[place].end.next(&mut input).expect("our own commands") {
                match command {
                    Command::NoOp { tag } => self.links[place].taken.push((tag, None)),
                    Command::SeeJob { tag, job, .. } => {
                        let ticket = self.left(job.0);
                        self.links[place].taken.push((tag, Some(ticket)));
                    }
                    Command::GetPublishedObject { .. } => panic!("nobody asks for worlds here"),
                }
            }
            assert!(input.is_empty(), "half a command leaves");
        }
        self.call(move |_, _, earlier| *earlier = said);
    }

    fn left(&mut self, bytes: &[u8]) -> usize {
        let ticket = u32::from_le_bytes(*bytes.first_chunk().expect("8 bytes at least")) as usize;
        let job = &self.jobs[ticket];
        assert_eq!(bytes, content(ticket, job.size), "a job leaves as it came");
        assert!(!job.has_ended, "it leaves after it has ended: {job:?}");
        assert!(job.left == 0 || job.idempotent, "it leaves twice: {job:?}");
        assert!(job.left < MAX_ATTEMPTS, "it leaves too often: {job:?}");
        if job.left == 0 && job.key != 0 {
            let is_before = |other: &Job| {
                (other.caller, other.world, other.key) == (job.caller, job.world, job.key)
                    && other.left == 0
                    && !other.has_ended
            };
            assert!(!self.jobs[..ticket].iter().any(is_before), "it overtakes one of its caller, world and key");
        }
        self.jobs[ticket].left += 1;
        ticket
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        let Some(place) = self.link(script.below(256)) else { return };
        let Some(which) = script.below(256).checked_rem(self.links[place].taken.len()) else { return };
        let statuses = Profile::open_1().statuses.clone();
        let Link { end, taken, .. } = &mut self.links[place];
        let (tag, ticket) = taken.swap_remove(which);
        let Some(ticket) = ticket else {
            end.answer_no_op(tag);
            return self.deliver(place);
        };
        match script.below(8) {
            0 => {
                end.answer_error(tag, statuses.queue_full, None);
                self.jobs[ticket].refused += 1;
            }
            1 => end.answer_error(tag, statuses.see_world_failed, Some("died")),
            2 => end.answer_error(tag, 0x1_0000, Some("the application's own")),
            3 => end.answer_with(tag, &too_large(tag)),
            _ => end.answer_job(tag, &reply_to(ticket)),
        }
        self.deliver(place);
    }

    fn deliver(&mut self, place: usize) {
        let mut output = WipedBuffer::new();
        self.links[place].end.swap_output(&mut output);
        let channel = self.links[place].channel;
        let mut input = output.filled();
        self.call(|scheduler, now, said| scheduler.receive(now, channel, &mut input, said)).expect("our own replies");
        assert!(input.is_empty());
    }

    /// A machine sends bytes that are no reply: its channel is closed.
    fn garbage(&mut self, script: &mut Script<'_>) {
        let Some(place) = self.link(script.below(256)) else { return };
        let (channel, count) = (self.links[place].channel, script.below(40));
        // Answers are only taken for jobs that are out; what a hostile machine says of those is theirs.
        let bytes = script.take(count);
        let is_a_job_out = self.links[place].taken.iter().any(|(_, ticket)| ticket.is_some());
        if is_a_job_out {
            return;
        }
        let mut input = bytes;
        let result = self.call(|scheduler, now, said| scheduler.receive(now, channel, &mut input, said));
        // Where it was none, or was cut, the stream can not be followed any more.
        if result.is_err() || !bytes.is_empty() {
            self.close(place);
        }
    }

    fn reconfigure(&mut self, script: &mut Script<'_>) {
        let flags = script.byte().unwrap_or_default();
        let is = |bit: u8| flags >> bit & 1 == 1;
        let settings = &mut self.settings;
        settings.worlds[0].is_retired = flags & 3 == 3;
        settings.machines[2].is_retired = flags >> 2 & 3 == 3;
        settings.worlds[1].machines = if is(4) { vec![MachineId(0)] } else { vec![MachineId(1), MachineId(2)] };
        settings.channel_buffer = if is(5) { 64 } else { 1 << 20 };
        settings.hold = if is(6) { Duration::from_secs(1) } else { Duration::from_secs(10) };
        settings.caller.in_flight = if is(7) { 1 } else { 8 };
        let settings = settings.clone();
        self.call(|scheduler, now, said| scheduler.reconfigure(now, settings, said));
    }

    /// Time goes by, and what is due happens when it is.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        let mut at_once = 0;
        while let Some(due) = self.scheduler.poll_timeout(self.now).filter(|due| *due <= until) {
            at_once = if due > self.now { 0 } else { at_once + 1 };
            assert!(at_once < 100, "it wants to be called again and again at the same time");
            self.now = self.now.max(due);
            self.call(Scheduler::handle_timeout);
        }
        self.now = until;
        let is_late = |job: &&Job| !job.has_ended && job.deadline < until;
        assert!(!self.jobs.iter().any(|job| is_late(&job)), "a deadline has passed unnoticed");
    }

    fn check(&self) {
        let open = self.jobs.iter().filter(|job| !job.has_ended).count();
        assert_eq!(self.scheduler.jobs(), open);
        for place in 0..MACHINES {
            let used = self.scheduler.in_flight(MachineId(place));
            let links = self.links.iter().filter(|link| link.machine == place);
            let taken: usize =
                links.clone().map(|link| link.taken.iter().filter(|(_, ticket)| ticket.is_some()).count()).sum();
            assert!(taken <= used, "{taken} jobs are out, and {used} are counted");
            assert!(used <= self.in_flight, "{used} in flight, {} are allowed", self.in_flight);
            assert_eq!(self.scheduler.channels(MachineId(place)), links.count());
        }
        for world in 0..WORLDS {
            assert_eq!(self.scheduler.is_ready(WorldId(world)), self.ready[world]);
        }
    }

    /// All channels close, and time goes by until nobody waits any more.
    fn finish(mut self) {
        while !self.links.is_empty() {
            self.close(0);
        }
        self.check();
        self.pass(Duration::from_secs(60));
        self.check();
        assert!(self.jobs.iter().all(|job| job.has_ended), "a job never ends");
        assert!(self.scheduler.is_bare(), "something is kept of jobs that have ended");
        for place in 0..MACHINES {
            assert_eq!(self.scheduler.in_flight(MachineId(place)), 0);
        }
    }
}

/// A job that tells its ticket and no other one's.
fn content(ticket: usize, size: usize) -> Vec<u8> {
    u32::try_from(ticket).expect("few").to_le_bytes().into_iter().cycle().take(size).collect()
}

fn reply_to(ticket: usize) -> Vec<u8> {
    content(!ticket & 0xffff_ffff, 12)
}

/// A reply above the limit, as a machine may send it.
fn too_large(tag: u32) -> Vec<u8> {
    let mut out = WipedBuffer::new();
    seeway_proto::wire::reply_job(&Profile::open_1(), &mut out, tag, &[3; 204]);
    out.filled().to_vec()
}

/// Scripts, and a job's usual ways.
pub fn seeds() -> Seeds {
    let mut seeds = scripts(12, 400);
    // Room, flags, quota and retries; a channel to machine 0; a job; it leaves; it is answered.
    let begin = [4, 9, 0, 9, 7, 50, 7, 0, 0];
    let job = |shape: u8| [0, 0, 0, shape];
    let story = |steps: &[&[u8]]| [&begin[..], &steps.concat()].concat();
    seeds.push(seed("answered", story(&[&job(0x1b), &[9, 0], &[11, 0, 0, 7]])));
    seeds.push(seed("refused", story(&[&job(0x1b), &[9, 0], &[11, 0, 0, 0]])));
    seeds.push(seed("sent-again", story(&[&job(0x5b), &[9, 0], &[8, 0], &[7, 1, 0], &[9, 0], &[11, 0, 0, 7]])));
    seeds.push(seed("too-late", story(&[&job(0x0b), &[9, 0], &[16, 30]])));
    seeds.push(seed("in-order", story(&[&job(0x9b), &job(0x9b), &[17, 0], &[7, 1, 0], &[9, 1], &[11, 1, 0, 7]])));
    seeds.push(seed("silent", story(&[&job(0x3b), &[9, 0], &[16, 6], &[7, 0, 0], &[16, 20]])));
    seeds
}
