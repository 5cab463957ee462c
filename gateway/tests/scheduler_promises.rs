//! Promises of the scheduler that cross worlds, shards and attempts.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // A test begins its clock somewhere.

use std::time::{Duration, Instant};

use seeway::schedule::{
    Abandoned, Affinity, Budget, CallerId, CallerQuota, ChannelId, CircuitSettings, Concluded, Effects, FrontEnd,
    MachineId, MachineSettings, NewJob, Priority, RetrySettings, Scheduler, Settings, SizeClass, WorldId,
    WorldSettings,
};
use seeway_proto::mux::Incoming;
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, Limits, Profile};

/// What was told: world, ticket, status on the legacy wire, and whether the job may have run.
#[derive(Default)]
struct Told(Vec<(WorldId, u64, u32, bool)>);

impl Effects for Told {
    fn concluded(&mut self, concluded: Concluded<'_>) {
        let Concluded { world, ticket, outcome, .. } = concluded;
        self.0.push((world, ticket, outcome.status(&Profile::open_1()), outcome.may_have_run()));
    }

    fn abandoned(&mut self, _: Abandoned) {}

    fn output_staged(&mut self, _: ChannelId) {}

    fn world_ready(&mut self, _: WorldId, _: bool) {}

    fn caller_has_room(&mut self, _: CallerId) {}

    fn bulk_wanted(&mut self, _: MachineId) {}
}

fn scheduler(now: Instant, worlds: usize, budget: std::sync::Arc<Budget>) -> Scheduler {
    let settings = Settings {
        profile: Profile::open_1(),
        limits: Limits::default(),
        worlds: (0..worlds)
            .map(|_| WorldSettings {
                machines: vec![MachineId(0)],
                queue: Budget::new(100, 1),
                queue_bytes: Budget::new(1 << 20, 1),
                affinity: Affinity::Prefer,
                is_retired: false,
            })
            .collect(),
        machines: vec![MachineSettings { name: "machine".into(), in_flight: budget, is_retired: false }],
        hold: Duration::from_secs(35),
        channel_buffer: 1 << 20,
        bulk_above: 32 * 1024,
        caller: CallerQuota { queued: 1000, in_flight: 1000, bytes: 1 << 20 },
        retry: RetrySettings { max_attempts: 3, budget_percent: 10, reserve: 100 },
        circuit: CircuitSettings {
            failures: 5,
            silent_after: Duration::from_secs(15),
            probe_after: Duration::from_secs(5),
            probe_max: Duration::from_secs(120),
        },
        slow_start: Duration::from_secs(10),
        seed: 1,
    };
    Scheduler::new(now, settings)
}

fn submit(
    scheduler: &mut Scheduler,
    now: Instant,
    caller: CallerId,
    world: usize,
    ticket: u64,
    idempotent: bool,
    told: &mut Told,
) {
    let deadline = now + Duration::from_secs(60);
    let new = NewJob {
        ticket,
        world: WorldId(world),
        bytes: b"job",
        deadline,
        idempotent,
        priority: Priority::Normal,
        affinity_key: b"",
    };
    scheduler.submit(now, caller, new, told);
}

/// The machine's end of a channel.
struct Peer(Incoming);

impl Peer {
    fn new() -> Self {
        Self(Incoming::new(Profile::open_1(), Limits::default(), usize::MAX))
    }

    /// Takes what is staged; returns the tags.
    fn take(&mut self, scheduler: &mut Scheduler, now: Instant, channel: ChannelId, told: &mut Told) -> Vec<u32> {
        let Some(bytes) = scheduler.take_output(now, channel, told) else { return Vec::new() };
        let mut input = &bytes[..];
        let mut tags = Vec::new();
        while let Some(request) = self.0.next(&mut input).expect("whole commands") {
            let Command::SeeJob { tag, .. } = request else { panic!("a job") };
            tags.push(tag);
        }
        tags
    }

    fn answer(
        &mut self,
        scheduler: &mut Scheduler,
        now: Instant,
        channel: ChannelId,
        tag: u32,
        error: Option<u32>,
        told: &mut Told,
    ) {
        match error {
            Some(status) => self.0.answer_error(tag, status, None),
            None => self.0.answer_job(tag, b"reply"),
        }
        let mut output = WipedBuffer::new();
        self.0.swap_output(&mut output);
        scheduler.receive(now, channel, &mut output.filled(), told).expect("valid");
    }
}

/// The first attempt left and may have run; the second is refused by the machine with a status that says "nothing ran,
/// send it again without risk". A legacy caller sees nothing but that status.
#[test]
fn a_refused_second_attempt_does_not_deny_the_first_on_the_legacy_wire() {
    let (now, mut told) = (Instant::now(), Told::default());
    let mut scheduler = scheduler(now, 1, Budget::new(4, 1));
    let caller = scheduler.caller_joined(FrontEnd::Hardserver);
    let first = scheduler.channel_opened(now, MachineId(0), SizeClass::Small, &mut told);
    submit(&mut scheduler, now, caller, 0, 1, true, &mut told);
    assert_eq!(Peer::new().take(&mut scheduler, now, first, &mut told).len(), 1, "it left");
    scheduler.channel_closed(now, first, &mut told);
    let second = scheduler.channel_opened(now, MachineId(0), SizeClass::Small, &mut told);
    let mut peer = Peer::new();
    let tags = peer.take(&mut scheduler, now, second, &mut told);
    let statuses = Profile::open_1().statuses.clone();
    peer.answer(&mut scheduler, now, second, tags[0], Some(statuses.queue_full), &mut told);
    let (.., status, may_have_run) = told.0[0];
    assert!(may_have_run);
    assert!(!statuses.says_nothing_ran(status), "status {status} tells a legacy caller that nothing ran");
}

/// Two worlds share a machine with room for one job. One always has more waiting; the other must get its turn.
#[test]
fn a_busy_world_does_not_starve_another_one_on_its_machine() {
    let (now, mut told) = (Instant::now(), Told::default());
    let mut scheduler = scheduler(now, 2, Budget::new(1, 1));
    let caller = scheduler.caller_joined(FrontEnd::Hardserver);
    let channel = scheduler.channel_opened(now, MachineId(0), SizeClass::Small, &mut told);
    let mut peer = Peer::new();
    for ticket in 0..3 {
        submit(&mut scheduler, now, caller, 0, ticket, false, &mut told);
    }
    submit(&mut scheduler, now, caller, 1, 1000, false, &mut told);
    for ticket in 3..503 {
        let tags = peer.take(&mut scheduler, now, channel, &mut told);
        peer.answer(&mut scheduler, now, channel, tags[0], None, &mut told);
        submit(&mut scheduler, now, caller, 0, ticket, false, &mut told);
    }
    assert!(
        told.0.iter().any(|(world, ..)| *world == WorldId(1)),
        "500 jobs of world 0 ran, all later than the one of world 1 but three; it still waits"
    );
}

/// Two shards share a machine's `max_in_flight`. What one does not use, the other can.
#[test]
fn a_shard_keeps_no_permits_that_another_one_waits_for() {
    for (limit, shards) in [(3, 2), (8, 2), (16, 4)] {
        let (now, mut told) = (Instant::now(), Told::default());
        let budget = Budget::new(limit, shards);
        let mut one = scheduler(now, 1, budget.clone());
        let mut two = scheduler(now, 1, budget);
        let callers = (one.caller_joined(FrontEnd::Hardserver), two.caller_joined(FrontEnd::Hardserver));
        let channel = one.channel_opened(now, MachineId(0), SizeClass::Small, &mut told);
        let other = two.channel_opened(now, MachineId(0), SizeClass::Small, &mut told);
        let mut peer = Peer::new();
        for ticket in 0..limit as u64 {
            submit(&mut one, now, callers.0, 0, ticket, false, &mut told);
        }
        let tags = peer.take(&mut one, now, channel, &mut told);
        // All are answered but one, which takes its time.
        for tag in &tags[1..] {
            peer.answer(&mut one, now, channel, *tag, None, &mut told);
        }
        assert_eq!(one.in_flight(MachineId(0)), 1);
        for ticket in 0..limit as u64 {
            submit(&mut two, now, callers.1, 0, ticket, false, &mut told);
        }
        let sent = Peer::new().take(&mut two, now, other, &mut told).len();
        assert!(sent >= 1, "limit {limit}, {shards} shards: 1 is in flight, and the other shard may send none");
        assert_eq!(sent, limit - 1, "limit {limit}, {shards} shards: 1 is in flight");
    }
}
