//! The scheduler against machines that do what a test tells them, with a clock that moves when a test says so.

mod callers;
mod groups;
mod machines;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use proptest::prelude::*;
use seeway_proto::mux::Incoming;
use seeway_proto::outcome::{Outcome, OutcomeKind};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::Command;

use super::*;

/// An outcome, whether it says that the job may have run, and the reply.
type ToldOutcome = (OutcomeKind, bool, Vec<u8>);

/// What the scheduler told: for each caller and ticket the outcome, and how often it was told one.
#[derive(Default)]
struct Told {
    outcomes: BTreeMap<(CallerId, u64), Vec<ToldOutcome>>,
    staged: BTreeSet<ChannelId>,
    roomy: BTreeSet<CallerId>,
    bulk_wanted: BTreeSet<MachineId>,
    ready: BTreeMap<WorldId, bool>,
    /// Jobs that ended without an outcome, and whether each may have run.
    abandoned: Vec<(CallerId, u64, bool)>,
}

impl Effects for Told {
    fn concluded(&mut self, concluded: Concluded<'_>) {
        let Concluded { caller, ticket, outcome, .. } = concluded;
        let reply = match outcome {
            Outcome::Replied(reply) => reply.0.to_vec(),
            _ => Vec::new(),
        };
        self.outcomes.entry((caller, ticket)).or_default().push((outcome.kind(), outcome.may_have_run(), reply));
    }

    fn abandoned(&mut self, abandoned: Abandoned) {
        self.abandoned.push((abandoned.caller, abandoned.ticket, abandoned.may_have_run));
    }

    fn output_staged(&mut self, channel: ChannelId) {
        self.staged.insert(channel);
    }

    fn world_ready(&mut self, world: WorldId, ready: bool) {
        self.ready.insert(world, ready);
    }

    fn caller_has_room(&mut self, caller: CallerId) {
        self.roomy.insert(caller);
    }

    fn bulk_wanted(&mut self, machine: MachineId) {
        self.bulk_wanted.insert(machine);
    }
}

/// A machine's end of a channel, holding the jobs that it has not answered.
struct Peer {
    incoming: Incoming,
    held: Vec<(u32, Vec<u8>)>,
    asked: Vec<u32>,
}

struct Bench {
    scheduler: Scheduler,
    told: Told,
    now: Instant,
    peers: HashMap<ChannelId, Peer>,
    /// Every job that reached a machine, as often as it did.
    ran: Vec<Vec<u8>>,
    profile: Arc<Profile>,
    settings: Settings,
}

const HOLD: Duration = Duration::from_secs(35);
const PATIENCE: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { max_job_bytes: 1000 };

/// Where a test's clock begins. An `Instant` can't be made but by reading the clock; nothing else here reads it.
#[allow(clippy::disallowed_methods)]
pub(in crate::schedule) fn beginning() -> Instant {
    Instant::now()
}

impl Bench {
    /// One world for each list of machines.
    fn new(worlds: &[&[usize]], max_in_flight: usize, queue: usize, hold: Duration) -> Self {
        Self::with(worlds, max_in_flight, queue, hold, |_| {})
    }

    /// The same with other settings.
    fn with(
        worlds: &[&[usize]],
        max_in_flight: usize,
        queue: usize,
        hold: Duration,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let machines = worlds.iter().flat_map(|machines| machines.iter()).max().map_or(0, |last| last + 1);
        let now = beginning();
        let profile = Profile::open_1();
        let mut settings = Settings {
            profile: profile.clone(),
            limits: LIMITS,
            worlds: worlds
                .iter()
                .map(|machines| WorldSettings {
                    machines: machines.iter().copied().map(MachineId).collect(),
                    queue: Budget::new(queue, 1),
                    queue_bytes: Budget::new(1 << 20, 1),
                    affinity: Affinity::Prefer,
                    is_retired: false,
                })
                .collect(),
            machines: (0..machines)
                .map(|machine| MachineSettings {
                    name: format!("machine-{machine}").into(),
                    in_flight: Budget::new(max_in_flight, 1),
                    is_retired: false,
                })
                .collect(),
            hold,
            channel_buffer: 4096,
            bulk_above: 500,
            caller: CallerQuota { queued: 1 << 20, in_flight: 1 << 20, bytes: 1 << 30 },
            retry: RetrySettings { max_attempts: 3, budget_percent: 10, reserve: 100 },
            circuit: CircuitSettings {
                failures: 0,
                silent_after: Duration::from_secs(15),
                probe_after: Duration::from_secs(5),
                probe_max: Duration::from_secs(120),
            },
            slow_start: Duration::ZERO,
            seed: 1,
        };
        change(&mut settings);
        Self {
            scheduler: Scheduler::new(now, settings.clone()),
            told: Told::default(),
            now,
            peers: HashMap::new(),
            ran: Vec::new(),
            profile,
            settings,
        }
    }

    fn open(&mut self, machine: usize) -> ChannelId {
        self.open_for(machine, SizeClass::Small)
    }

    fn open_for(&mut self, machine: usize, class: SizeClass) -> ChannelId {
        let channel = self.scheduler.channel_opened(self.now, MachineId(machine), class, &mut self.told);
        let incoming = Incoming::new(self.profile.clone(), LIMITS, usize::MAX);
        self.peers.insert(channel, Peer { incoming, held: Vec::new(), asked: Vec::new() });
        channel
    }

    fn close(&mut self, channel: ChannelId) {
        self.scheduler.channel_closed(self.now, channel, &mut self.told);
        self.peers.remove(&channel);
    }

    /// Hands over a job of `size` bytes, which begin with its ticket, that `change` makes another one of.
    fn submit_as(
        &mut self,
        caller: CallerId,
        ticket: u64,
        size: usize,
        change: impl FnOnce(&mut NewJob<'_>),
    ) -> Option<JobId> {
        let mut bytes = ticket.to_le_bytes().to_vec();
        bytes.resize(size.max(8), 0);
        let mut new = NewJob {
            ticket,
            world: WorldId(0),
            bytes: &bytes,
            deadline: self.now + PATIENCE,
            idempotent: false,
            priority: Priority::Normal,
            affinity_key: b"",
        };
        change(&mut new);
        self.scheduler.submit(self.now, caller, new, &mut self.told)
    }

    /// The tickets of the jobs that reached machines, in their order.
    fn ran(&self) -> Vec<u64> {
        self.ran.iter().map(|job| u64::from_le_bytes(job[..8].try_into().expect("a ticket"))).collect()
    }

    fn submit_for(&mut self, caller: CallerId, ticket: u64, patience: Duration, idempotent: bool) -> Option<JobId> {
        let bytes = ticket.to_le_bytes();
        let deadline = self.now + patience;
        let new = NewJob {
            ticket,
            world: WorldId(0),
            bytes: &bytes,
            deadline,
            idempotent,
            priority: Priority::Normal,
            affinity_key: b"",
        };
        self.scheduler.submit(self.now, caller, new, &mut self.told)
    }

    fn submit(&mut self, caller: CallerId, ticket: u64) -> Option<JobId> {
        self.submit_for(caller, ticket, PATIENCE, false)
    }

    /// Sends what is staged on a channel to its machine.
    fn send(&mut self, channel: ChannelId) {
        let Some(bytes) = self.scheduler.take_output(self.now, channel, &mut self.told) else { return };
        let Peer { incoming, held, asked } = self.peers.get_mut(&channel).expect("open");
        let mut input = &bytes[..];
        while let Some(request) = incoming.next(&mut input).expect("the scheduler writes whole commands") {
            if let Command::NoOp { tag } = request {
                asked.push(tag);
                continue;
            }
            let Command::SeeJob { tag, job, .. } = request else { panic!("a job") };
            self.ran.push(job.0.to_vec());
            held.push((tag, job.0.to_vec()));
        }
        assert!(input.is_empty());
    }

    fn send_all(&mut self) {
        let channels: Vec<_> = self.peers.keys().copied().collect();
        for channel in channels {
            self.send(channel);
        }
    }

    /// The machine answers one of the jobs that it holds, with the job's own bytes or an error.
    fn answer(&mut self, channel: ChannelId, which: usize, error: Option<u32>) {
        let Peer { incoming, held, .. } = self.peers.get_mut(&channel).expect("open");
        let (tag, bytes) = held.remove(which);
        match error {
            Some(status) => incoming.answer_error(tag, status, None),
            None => incoming.answer_job(tag, &bytes),
        }
        self.deliver(channel);
    }

    /// The machine answers each `NoOp` that it was asked; returns how many there were.
    fn answer_no_ops(&mut self, channel: ChannelId) -> usize {
        let Peer { incoming, asked, .. } = self.peers.get_mut(&channel).expect("open");
        let count = asked.len();
        asked.drain(..).for_each(|tag| incoming.answer_no_op(tag));
        self.deliver(channel);
        count
    }

    /// What a machine has answered on a channel arrives.
    fn deliver(&mut self, channel: ChannelId) {
        let Peer { incoming, .. } = self.peers.get_mut(&channel).expect("open");
        let mut output = WipedBuffer::new();
        incoming.swap_output(&mut output);
        let mut input = output.filled();
        self.scheduler.receive(self.now, channel, &mut input, &mut self.told).expect("valid");
        assert!(input.is_empty());
    }

    fn held(&self, channel: ChannelId) -> usize {
        self.peers[&channel].held.len()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        while self.scheduler.poll_timeout(self.now).is_some_and(|next| next <= self.now) {
            self.scheduler.handle_timeout(self.now, &mut self.told);
        }
    }

    fn outcome(&self, caller: CallerId, ticket: u64) -> Option<OutcomeKind> {
        let told = self.told.outcomes.get(&(caller, ticket))?;
        assert_eq!(told.len(), 1, "exactly one outcome");
        Some(told[0].0)
    }
}

fn one_machine() -> (Bench, ChannelId, CallerId) {
    let mut bench = Bench::new(&[&[0]], 4, 3, HOLD);
    let channel = bench.open(0);
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    (bench, channel, caller)
}

#[test]
fn a_job_goes_out_and_its_reply_comes_back() {
    let (mut bench, channel, caller) = one_machine();
    assert_eq!(bench.told.ready.get(&WorldId(0)), Some(&true));
    bench.submit(caller, 7).expect("admitted");
    assert!(bench.told.staged.contains(&channel));
    bench.send(channel);
    bench.answer(channel, 0, None);
    assert_eq!(bench.told.outcomes[&(caller, 7)], [(OutcomeKind::Replied, true, 7_u64.to_le_bytes().to_vec())]);
    assert!(bench.scheduler.is_idle());
    assert_eq!(bench.scheduler.in_flight(MachineId(0)), 0);
    assert_eq!(bench.scheduler.world_stats(WorldId(0)).outcomes(OutcomeKind::Replied), 1);
}

#[test]
fn in_flight_queue_and_past_both_limits() {
    let (mut bench, channel, caller) = one_machine();
    for ticket in 0..8 {
        bench.submit(caller, ticket);
    }
    bench.send(channel);
    assert_eq!((bench.held(channel), bench.scheduler.queued(WorldId(0))), (4, 3));
    assert_eq!(bench.outcome(caller, 7), Some(OutcomeKind::NotSentQueueFull));
    // A reply makes room for the first that waits, and that for one more to wait.
    bench.answer(channel, 0, None);
    bench.send(channel);
    assert_eq!((bench.held(channel), bench.scheduler.queued(WorldId(0))), (4, 2));
    assert_eq!(bench.peers[&channel].held[3].1, 4_u64.to_le_bytes());
    assert!(bench.submit(caller, 8).is_some());
}

#[test]
fn job_sizes_at_and_past_the_limit() {
    let (mut bench, _, caller) = one_machine();
    let deadline = bench.now + PATIENCE;
    for (ticket, len, fits) in [(1, 0, true), (2, 1000, true), (3, 1001, false)] {
        let bytes = vec![1; len];
        let new = NewJob {
            ticket,
            world: WorldId(0),
            bytes: &bytes,
            deadline,
            idempotent: false,
            priority: Priority::Normal,
            affinity_key: b"",
        };
        assert_eq!(bench.scheduler.submit(bench.now, caller, new, &mut bench.told).is_some(), fits);
    }
    assert_eq!(bench.outcome(caller, 3), Some(OutcomeKind::Rejected));
}

#[test]
fn jobs_are_held_for_a_machine_that_is_not_up_and_then_fail_unsent() {
    let mut bench = Bench::new(&[&[0]], 4, 10, HOLD);
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    bench.submit(caller, 1);
    bench.pass(HOLD.saturating_sub(Duration::from_millis(1)));
    assert_eq!(bench.outcome(caller, 1), None);
    bench.submit(caller, 2);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.outcome(caller, 1), Some(OutcomeKind::NotSentNowhereToGo));
    assert_eq!(bench.outcome(caller, 2), None);
    let channel = bench.open(0);
    bench.send(channel);
    bench.answer(channel, 0, None);
    assert_eq!(bench.outcome(caller, 2), Some(OutcomeKind::Replied));
}

#[test]
fn with_no_hold_a_world_that_is_down_fails_at_once() {
    let mut bench = Bench::new(&[&[0]], 1, 10, Duration::ZERO);
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    assert_eq!(bench.submit(caller, 1), None);
    assert_eq!(bench.outcome(caller, 1), Some(OutcomeKind::NotSentNowhereToGo));
    let channel = bench.open(0);
    bench.submit(caller, 2);
    bench.submit(caller, 3);
    bench.send(channel);
    bench.close(channel);
    assert_eq!(bench.outcome(caller, 2), Some(OutcomeKind::UnknownTunnelLost));
    assert_eq!(bench.outcome(caller, 3), Some(OutcomeKind::NotSentNowhereToGo), "it waited when the last machine went");
}

#[test]
fn a_deadline_before_sending_after_staging_and_after_sending() {
    let (mut bench, channel, caller) = one_machine();
    let patience = Duration::from_secs(1);
    assert_eq!(bench.submit_for(caller, 0, Duration::ZERO, false), None);
    assert_eq!(bench.outcome(caller, 0), Some(OutcomeKind::NotSentTooLate));
    bench.submit_for(caller, 1, patience, false);
    bench.send(channel);
    bench.submit_for(caller, 2, patience, false);
    bench.submit_for(caller, 3, PATIENCE, false);
    bench.pass(patience);
    assert_eq!(bench.outcome(caller, 1), Some(OutcomeKind::UnknownTooLate));
    assert_eq!(bench.outcome(caller, 2), Some(OutcomeKind::NotSentTooLate), "staged, and never taken");
    bench.send(channel);
    assert_eq!(bench.ran, [1_u64.to_le_bytes(), 3_u64.to_le_bytes()], "the withdrawn one is not on the wire");
    assert_eq!(bench.scheduler.in_flight(MachineId(0)), 2, "the late one's tag stays taken");
    bench.answer(channel, 0, None);
    assert_eq!(bench.scheduler.in_flight(MachineId(0)), 1);
    assert_eq!(bench.scheduler.machine_stats(MachineId(0)).late_replies, 1);
    bench.answer(channel, 0, None);
    assert_eq!(bench.outcome(caller, 3), Some(OutcomeKind::Replied));
}

#[test]
fn a_deadline_in_the_queue() {
    let (mut bench, channel, caller) = one_machine();
    for ticket in 0..5 {
        bench.submit(caller, ticket);
    }
    bench.cancel_none();
    bench.submit_for(caller, 5, Duration::from_secs(1), false);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.outcome(caller, 5), Some(OutcomeKind::NotSentTooLate));
    bench.send(channel);
    bench.answer(channel, 0, None);
    bench.send(channel);
    assert!(!bench.ran.contains(&5_u64.to_le_bytes().to_vec()));
}

impl Bench {
    fn cancel_none(&mut self) {
        self.scheduler.cancel(self.now, JobId::default(), &mut self.told);
    }
}

#[test]
fn a_caller_that_goes_takes_its_unsent_jobs_with_it_and_nobody_elses() {
    let (mut bench, channel, caller) = one_machine();
    let other = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    bench.submit(caller, 1);
    bench.send(channel);
    bench.submit(caller, 2);
    bench.submit(other, 3);
    bench.submit(caller, 4);
    bench.submit(caller, 5);
    bench.submit(other, 6);
    assert_eq!(bench.scheduler.queued(WorldId(0)), 2);
    bench.scheduler.caller_left(bench.now, caller, &mut bench.told);
    let given_up = |ticket, may_have_run| (caller, ticket, may_have_run);
    bench.told.abandoned.sort_unstable();
    assert_eq!(bench.told.abandoned, [given_up(1, true), given_up(2, false), given_up(4, false), given_up(5, false)]);
    assert_eq!(bench.scheduler.queued(WorldId(0)), 0, "the other caller's job has taken the room");
    bench.send(channel);
    assert_eq!(bench.ran, [1_u64.to_le_bytes(), 3_u64.to_le_bytes(), 6_u64.to_le_bytes()]);
    for _ in 0..3 {
        bench.answer(channel, 0, None);
    }
    assert_eq!(bench.told.outcomes.len(), 2, "who has gone is told nothing");
    assert_eq!(
        (bench.outcome(other, 3), bench.outcome(other, 6)),
        (Some(OutcomeKind::Replied), Some(OutcomeKind::Replied))
    );
    assert!(bench.scheduler.is_idle());
    assert_eq!((bench.scheduler.in_flight(MachineId(0)), bench.scheduler.callers()), (0, 1));
}

#[test]
fn a_cancelled_job_is_not_sent_and_one_that_has_left_runs_on() {
    let (mut bench, channel, caller) = one_machine();
    let sent = bench.submit(caller, 1).expect("admitted");
    bench.send(channel);
    let staged = bench.submit(caller, 2).expect("admitted");
    for job in [sent, staged, staged] {
        bench.scheduler.cancel(bench.now, job, &mut bench.told);
    }
    bench.send(channel);
    assert_eq!(bench.ran, [1_u64.to_le_bytes()]);
    bench.answer(channel, 0, None);
    assert!(bench.told.outcomes.is_empty() && bench.scheduler.is_idle());
    assert_eq!(bench.scheduler.in_flight(MachineId(0)), 0);
}

#[test]
fn when_a_channel_is_lost_the_unsent_move_and_the_sent_are_unknown() {
    let mut bench = Bench::new(&[&[0, 1]], 4, 10, HOLD);
    let lost = bench.open(0);
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    bench.submit(caller, 1);
    bench.send(lost);
    bench.submit(caller, 2);
    let other = bench.open(1);
    bench.close(lost);
    assert_eq!(bench.outcome(caller, 1), Some(OutcomeKind::UnknownTunnelLost));
    bench.send(other);
    assert_eq!(bench.ran, [1_u64.to_le_bytes(), 2_u64.to_le_bytes()]);
    bench.answer(other, 0, None);
    assert_eq!(bench.outcome(caller, 2), Some(OutcomeKind::Replied));
}

#[test]
fn only_idempotent_jobs_are_sent_again_and_only_so_often() {
    let mut bench = Bench::new(&[&[0]], 4, 10, HOLD);
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    let mut channel = bench.open(0);
    bench.submit_for(caller, 1, PATIENCE, true);
    bench.submit_for(caller, 2, PATIENCE, false);
    for attempt in 1..=3 {
        assert_eq!(bench.outcome(caller, 1), None, "attempt {attempt}");
        bench.send(channel);
        bench.close(channel);
        channel = bench.open(0);
    }
    assert_eq!(bench.outcome(caller, 1), Some(OutcomeKind::UnknownTunnelLost));
    assert_eq!(bench.outcome(caller, 2), Some(OutcomeKind::UnknownTunnelLost));
    let times = |ticket: u64| bench.ran.iter().filter(|job| **job == ticket.to_le_bytes()).count();
    assert_eq!((times(1), times(2)), (3, 1));
    assert_eq!(bench.scheduler.world_stats(WorldId(0)).retries, 2);
}

#[test]
fn a_machine_that_failed_is_an_unknown_outcome_and_its_own_status_is_passed_on() {
    let (mut bench, channel, caller) = one_machine();
    let failed = bench.profile.statuses.see_world_failed;
    bench.submit(caller, 1);
    bench.submit_for(caller, 2, PATIENCE, true);
    bench.submit(caller, 3);
    bench.send(channel);
    bench.answer(channel, 0, Some(failed));
    bench.answer(channel, 0, Some(failed));
    bench.answer(channel, 0, Some(0x0001_0007));
    assert_eq!(bench.outcome(caller, 1), Some(OutcomeKind::UnknownMachineFailed));
    assert_eq!(bench.outcome(caller, 3), Some(OutcomeKind::MachineStatus));
    bench.send(channel);
    bench.answer(channel, 0, None);
    assert_eq!(bench.outcome(caller, 2), Some(OutcomeKind::Replied));
}

#[test]
fn jobs_spread_over_machines_and_channels_by_least_in_flight() {
    let mut bench = Bench::new(&[&[0, 1]], 100, 10, HOLD);
    let channels = [bench.open(0), bench.open(0), bench.open(1)];
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    for ticket in 0..40 {
        bench.submit(caller, ticket);
        bench.send_all();
    }
    assert_eq!(channels.map(|channel| bench.held(channel)), [10, 10, 20]);
}

#[test]
fn a_batch_fills_a_packet_before_another_channel_begins_one() {
    let mut bench = Bench::with(&[&[0]], 10_000, 10_000, HOLD, |settings| settings.channel_buffer = 1 << 20);
    let channels = [bench.open(0), bench.open(0)];
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    let submit = |bench: &mut Bench, tickets: std::ops::Range<u64>| {
        for ticket in tickets {
            bench.submit_as(caller, ticket, 400, |_| {}).expect("admitted");
        }
    };
    let staged = |bench: &Bench| channels.map(|channel| bench.scheduler.machines.channels[channel].mux.staged_len());
    submit(&mut bench, 0..70);
    assert_eq!(staged(&bench).map(|bytes| bytes > 0), [true, false]);
    submit(&mut bench, 70..100);
    let [first, second] = staged(&bench);
    assert!(first < 34 * 1024 && second > 0, "{first} and {second} bytes");
}

#[test]
fn a_writer_that_does_not_take_its_batch_is_left_alone() {
    let mut bench = Bench::new(&[&[0]], 100, 100, HOLD);
    let channels = [bench.open(0), bench.open(0)];
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    bench.submit(caller, 0);
    bench.submit(caller, 1);
    bench.pass(Duration::from_millis(2));
    bench.submit(caller, 2);
    bench.send_all();
    assert_eq!(channels.map(|channel| bench.held(channel)), [2, 1]);
}

#[test]
fn a_channel_whose_writer_is_stuck_takes_no_more_than_its_buffer() {
    let (mut bench, channel, caller) = one_machine();
    bench.scheduler.machines.channel_buffer = 64;
    for ticket in 0..4 {
        bench.submit(caller, ticket);
    }
    assert_eq!(bench.scheduler.queued(WorldId(0)), 2, "32 bytes each: two fill 64");
    bench.send(channel);
    bench.send(channel);
    assert_eq!(bench.held(channel), 4, "once it is written, the rest follows");
}

#[test]
fn draining_refuses_new_jobs_and_finishes_old_ones() {
    let (mut bench, channel, caller) = one_machine();
    for ticket in 0..6 {
        bench.submit(caller, ticket);
    }
    bench.scheduler.begin_drain();
    assert_eq!(bench.submit(caller, 9), None);
    assert_eq!(bench.outcome(caller, 9), Some(OutcomeKind::NotSentNowhereToGo));
    bench.send(channel);
    bench.answer(channel, 0, None);
    bench.scheduler.abort_unsent(bench.now, &mut bench.told);
    assert_eq!(bench.outcome(caller, 5), Some(OutcomeKind::NotSentNowhereToGo));
    bench.send(channel);
    bench.close(channel);
    assert!(bench.scheduler.is_idle());
    assert_eq!(bench.told.outcomes.len(), 7);
}

#[test]
fn a_broken_stream_says_so() {
    let (mut bench, channel, caller) = one_machine();
    bench.submit(caller, 1);
    bench.send(channel);
    let mut garbage = &[0x10, 0, 0, 0, 9, 9, 9, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..];
    assert!(bench.scheduler.receive(bench.now, channel, &mut garbage, &mut bench.told).is_err());
    bench.close(channel);
    assert_eq!(bench.outcome(caller, 1), Some(OutcomeKind::UnknownTunnelLost));
}

proptest! {
    /// Whatever happens in whatever order: one outcome for each job whose caller stayed, an honest one, none sent twice that
    /// must not be, no limit exceeded, and nothing left when all is quiet.
    #[test]
    fn the_promise(steps in prop::collection::vec((0_u8..12, any::<prop::sample::Index>(), any::<bool>()), 1..600)) {
        let mut bench = Bench::new(&[&[0, 1]], 5, 6, Duration::from_secs(2));
        let mut callers = vec![bench.scheduler.caller_joined(FrontEnd::Hardserver)];
        let mut jobs: BTreeMap<u64, (CallerId, bool, Option<JobId>)> = BTreeMap::new();
        let mut released: HashSet<u64> = HashSet::new();
        let mut next = 0;
        for (step, index, flag) in steps {
            let open: Vec<ChannelId> = {
                let mut open: Vec<_> = bench.peers.keys().copied().collect();
                open.sort();
                open
            };
            match step {
                0..=3 => {
                    let caller = *index.get(&callers);
                    let patience = if flag { PATIENCE } else { Duration::from_millis(300) };
                    let idempotent = next % 3 == 0;
                    let job = bench.submit_for(caller, next, patience, idempotent);
                    jobs.insert(next, (caller, idempotent, job));
                    next += 1;
                }
                4 | 5 if !open.is_empty() => bench.send(*index.get(&open)),
                6 | 7 if !open.is_empty() => {
                    let channel = *index.get(&open);
                    if bench.held(channel) > 0 {
                        let which = index.index(bench.held(channel));
                        bench.answer(channel, which, flag.then_some(10));
                    }
                }
                8 if open.len() < 4 => { bench.open(index.index(2)); }
                9 if flag && !open.is_empty() => bench.close(*index.get(&open)),
                10 => bench.pass(Duration::from_millis(index.index(400) as u64)),
                11 if flag && callers.len() > 1 => {
                    let caller = callers.remove(index.index(callers.len()));
                    bench.scheduler.caller_left(bench.now, caller, &mut bench.told);
                    released.extend(jobs.iter().filter(|(_, job)| job.0 == caller).map(|(ticket, _)| *ticket));
                }
                11 if !jobs.is_empty() => {
                    let (&ticket, &(caller, _, job)) = jobs.iter().nth(index.index(jobs.len())).expect("not empty");
                    if let Some(job) = job && callers.contains(&caller) {
                        bench.scheduler.cancel(bench.now, job, &mut bench.told);
                        released.insert(ticket);
                    }
                }
                _ => callers.push(bench.scheduler.caller_joined(FrontEnd::Hardserver)),
            }
            prop_assert!(bench.scheduler.in_flight(MachineId(0)) <= 5);
            prop_assert!(bench.scheduler.queued(WorldId(0)) <= 6 + 10, "admitted ones come back on top");
        }
        // All becomes quiet: the machines answer what they have, then go.
        bench.send_all();
        for channel in bench.peers.keys().copied().collect::<Vec<_>>() {
            while bench.held(channel) > 0 {
                bench.answer(channel, 0, None);
                bench.send(channel);
            }
        }
        for channel in bench.peers.keys().copied().collect::<Vec<_>>() {
            bench.close(channel);
        }
        bench.pass(PATIENCE * 2);
        prop_assert!(bench.scheduler.is_bare());
        prop_assert_eq!(bench.scheduler.in_flight(MachineId(0)), 0);
        prop_assert_eq!(bench.scheduler.poll_timeout(bench.now), None);

        let mut runs: HashMap<Vec<u8>, usize> = HashMap::new();
        bench.ran.iter().for_each(|job| *runs.entry(job.clone()).or_default() += 1);
        for (ticket, (caller, idempotent, _)) in jobs {
            let bytes = ticket.to_le_bytes().to_vec();
            let ran = runs.get(&bytes).copied().unwrap_or(0);
            prop_assert!(ran <= if idempotent { 3 } else { 1 }, "job {} ran {} times", ticket, ran);
            let told = bench.told.outcomes.get(&(caller, ticket)).map_or(&[][..], Vec::as_slice);
            prop_assert!(told.len() <= 1);
            match told.first() {
                None => prop_assert!(released.contains(&ticket), "job {} has no outcome", ticket),
                Some((OutcomeKind::Replied, _, reply)) => prop_assert_eq!(reply, &bytes),
                Some((kind, may_have_run, _)) => {
                    // A retried job that then found nowhere to go did run, or may have.
                    prop_assert!(*may_have_run || ran == 0, "job {} ran and was told {}", ticket, kind);
                }
            }
        }
    }
}
