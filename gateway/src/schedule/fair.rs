//! Who is next: a world's waiting jobs, shared fairly among callers by deficit round robin (Shreedhar and Varghese, 1995).
//!
//! A **flow** is the waiting jobs of one caller at one priority; a **lane** is where a job may go. Each lane has a ring of the
//! flows that have jobs for it. A flow whose turn it is gets its quantum, sends as long as what it has been given lasts, and
//! goes to the end. A round is the world's, not the lane's: a flow that waits in several lanes gets one quantum in each round.
//!
//! Called by the dispatcher only. Putting a job in and taking one out cost the logarithm of what waits, whatever its size;
//! finding who is next may pass over each flow of a lane once for a round.

use std::collections::{BTreeMap, HashMap};

use seeway_proto::bug::{self, Bug};
use slotmap::{SlotMap, new_key_type};

use super::{CallerId, JobId, MachineId, Priority, SizeClass};

/// What a job costs at least, in bytes: sending a small one is work as well.
pub(super) const LEAST_COST: u64 = 1024;

/// What a flow is given in each round for each unit of its weight, in bytes.
pub(super) const QUANTUM: u64 = 512;

new_key_type! {
    /// A flow. The key of one that has ended names no other.
    pub(super) struct FlowId;
}

/// Where a job may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LaneId {
    /// The machine of its affinity key; without one any.
    pub(super) machine: Option<MachineId>,
    pub(super) class: SizeClass,
}

/// A job in line, and how to find it there again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InLine {
    pub(super) flow: FlowId,
    pub(super) lane: LaneId,
}

#[derive(Debug)]
struct Flow {
    owner: (CallerId, Priority),
    /// What it has been given and has not spent, in bytes.
    deficit: u64,
    /// The last round that it was given something in.
    round: u64,
    /// Off the rings, because its caller has as much in flight as it may.
    is_parked: bool,
    /// The jobs for each lane. There are few lanes.
    lines: Vec<(LaneId, Line)>,
}

#[derive(Debug, Default)]
struct Line {
    /// By the order of admission; each with its cost.
    jobs: BTreeMap<u64, (JobId, u64)>,
    /// Its place on the lane's ring.
    turn: Option<u64>,
}

#[derive(Debug, Default)]
struct Lane {
    /// By turn; the first is next. One that has had its turn comes back at the end.
    ring: BTreeMap<u64, FlowId>,
    next_turn: u64,
    round: u64,
    /// The turns below this one belong to the current round.
    round_ends: u64,
    /// Whether anything was sent in the current round.
    has_sent: bool,
}

/// A world's waiting jobs.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    flows: SlotMap<FlowId, Flow>,
    by_owner: HashMap<(CallerId, Priority), FlowId>,
    /// Lanes in which something waits, parked flows aside.
    lanes: BTreeMap<LaneId, Lane>,
    /// The latest round of any lane: one that opens begins here.
    round: u64,
}

fn weight(priority: Priority) -> u64 {
    match priority {
        _ if bug::is_on(Bug::PrioritiesIgnored) => 2,
        Priority::High => 4,
        Priority::Normal => 2,
        Priority::Low => 1,
    }
}

impl Flow {
    fn quantum(&self) -> u64 {
        QUANTUM * weight(self.owner.1)
    }

    fn line(&mut self, lane: LaneId) -> &mut Line {
        let place = self.lines.iter().position(|(id, _)| *id == lane).unwrap_or_else(|| {
            self.lines.push((lane, Line::default()));
            self.lines.len() - 1
        });
        &mut self.lines[place].1
    }

    /// What the first job for a lane costs.
    fn next_cost(&self, lane: LaneId) -> u64 {
        let line = self.lines.iter().find(|(id, _)| *id == lane).expect("on a lane's ring are flows with jobs for it");
        line.1.jobs.first_key_value().map_or(0, |(_, (_, cost))| *cost)
    }

    /// Gives it what it is due in a round. One that could not use its turns for a while does not hoard them.
    fn give(&mut self, lane: LaneId, round: u64) {
        let rounds = round.saturating_sub(self.round);
        if rounds > 0 {
            self.round = round;
            let enough = self.next_cost(lane).saturating_sub(self.deficit).max(self.quantum());
            self.deficit += rounds.saturating_mul(self.quantum()).min(enough);
        }
    }

    /// The first round in which it can send its first job for a lane.
    fn can_send_in(&self, lane: LaneId) -> u64 {
        self.round + self.next_cost(lane).saturating_sub(self.deficit).div_ceil(self.quantum())
    }
}

impl FairQueue {
    /// Puts a job in line. `order` is its place among those of its flow.
    pub(super) fn insert(
        &mut self,
        owner: (CallerId, Priority),
        is_parked: bool,
        lane: LaneId,
        order: u64,
        job: JobId,
        bytes: usize,
    ) -> InLine {
        let round = self.lanes.get(&lane).map_or(self.round, |lane| lane.round);
        let flow = *self
            .by_owner
            .entry(owner)
            .or_insert_with(|| self.flows.insert(Flow { owner, deficit: 0, round, is_parked, lines: Vec::new() }));
        let cost = (bytes as u64).max(LEAST_COST);
        self.flows[flow].line(lane).jobs.insert(order, (job, cost));
        self.join(flow, lane);
        InLine { flow, lane }
    }

    /// Takes a job out of the line. Whoever sends it takes it by [`next`](Self::next) instead.
    pub(super) fn remove(&mut self, at: InLine, order: u64) {
        if let Some(flow) = self.flows.get_mut(at.flow) {
            flow.line(at.lane).jobs.remove(&order);
            self.tidy(at);
        }
    }

    /// Of the lanes in which something waits the one that is furthest behind, after those that were tried already: `tried` is
    /// what this returned before.
    pub(super) fn lane_after(&self, tried: Option<(u64, LaneId)>) -> Option<(u64, LaneId)> {
        let lanes = self.lanes.iter().map(|(id, lane)| (lane.round, *id));
        lanes.filter(|lane| tried.is_none_or(|tried| *lane > tried)).min()
    }

    /// Whether nothing waits that could be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether nothing is kept at all.
    pub(super) fn is_bare(&self) -> bool {
        self.flows.is_empty() && self.by_owner.is_empty() && self.lanes.is_empty()
    }

    /// The jobs that wait for one machine each.
    pub(super) fn jobs_for_machines(&self) -> Vec<JobId> {
        let lines = self.flows.values().flat_map(|flow| &flow.lines).filter(|(lane, _)| lane.machine.is_some());
        lines.flat_map(|(_, line)| line.jobs.values().map(|(job, _)| *job)).collect()
    }

    /// Takes the next job of a lane; its flow pays for it. `None` where none waits. The flow keeps its turn, in which the job
    /// may be followed by one that could not be in line beside it, until it is [settled](Self::settle).
    pub(super) fn next(&mut self, id: LaneId) -> Option<(JobId, InLine)> {
        loop {
            let lane = self.lanes.get_mut(&id)?;
            let (&turn, &flow_id) = lane.ring.first_key_value()?;
            if turn >= lane.round_ends {
                let soonest = if lane.has_sent {
                    0
                } else {
                    // Nobody could send anything in a whole round: the rounds until somebody can are passed over.
                    lane.ring.values().map(|flow| self.flows[*flow].can_send_in(id)).min().unwrap_or(0)
                };
                lane.round = (lane.round + 1).max(soonest);
                lane.round_ends = lane.next_turn;
                lane.has_sent = false;
                self.round = self.round.max(lane.round);
            }
            let flow = &mut self.flows[flow_id];
            flow.give(id, lane.round);
            let cost = flow.next_cost(id);
            if flow.deficit >= cost || bug::is_on(Bug::OneCallerHogs) {
                flow.deficit = flow.deficit.saturating_sub(cost);
                lane.has_sent = true;
                let (_, (job, _)) = flow.line(id).jobs.pop_first()?;
                return Some((job, InLine { flow: flow_id, lane: id }));
            }
            lane.ring.remove(&turn);
            lane.ring.insert(lane.next_turn, flow_id);
            flow.line(id).turn = Some(lane.next_turn);
            lane.next_turn += 1;
        }
    }

    /// Ends what [`next`](Self::next) began: a flow with nothing more to send gives up its turn.
    pub(super) fn settle(&mut self, at: InLine) {
        if self.flows.contains_key(at.flow) {
            self.tidy(at);
        }
    }

    /// Lanes that could not send when `sent` could do not save up their turns: they go on where it is.
    pub(super) fn catch_up(&mut self, sent: (u64, LaneId)) {
        let Some(round) = self.lanes.get(&sent.1).map(|lane| lane.round) else { return };
        for (id, lane) in &mut self.lanes {
            if (lane.round, *id) < sent {
                lane.round = lane.round.max(round);
            }
        }
    }

    /// Takes a caller's flows off the rings, or puts them back.
    pub(super) fn park(&mut self, caller: CallerId, is_parked: bool) {
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            let Some(&id) = self.by_owner.get(&(caller, priority)) else { continue };
            let flow = &mut self.flows[id];
            if flow.is_parked == is_parked {
                continue;
            }
            flow.is_parked = is_parked;
            let lanes: Vec<LaneId> = flow.lines.iter().map(|(lane, _)| *lane).collect();
            for lane in lanes {
                if is_parked { self.leave(id, lane) } else { self.join(id, lane) }
            }
        }
    }

    /// Puts a flow on a lane's ring, unless it is there.
    fn join(&mut self, id: FlowId, lane_id: LaneId) {
        let flow = &mut self.flows[id];
        if flow.is_parked || flow.line(lane_id).turn.is_some() {
            return;
        }
        let lane = self.lanes.entry(lane_id).or_insert_with(|| Lane { round: self.round, ..Lane::default() });
        flow.line(lane_id).turn = Some(lane.next_turn);
        lane.ring.insert(lane.next_turn, id);
        lane.next_turn += 1;
    }

    /// Takes a flow off a lane's ring, and the lane away where it was the last.
    fn leave(&mut self, id: FlowId, lane_id: LaneId) {
        let turn = self.flows[id].line(lane_id).turn.take();
        if let Some(turn) = turn
            && let Some(lane) = self.lanes.get_mut(&lane_id)
        {
            lane.ring.remove(&turn);
            if lane.ring.is_empty() {
                self.lanes.remove(&lane_id);
            }
        }
    }

    /// Forgets a line that is empty, and a flow that has no other. What it had not spent is lost: who has nothing to send
    /// saves nothing up.
    fn tidy(&mut self, at: InLine) {
        if !self.flows[at.flow].line(at.lane).jobs.is_empty() {
            return;
        }
        self.leave(at.flow, at.lane);
        let flow = &mut self.flows[at.flow];
        flow.lines.retain(|(lane, _)| *lane != at.lane);
        if flow.lines.is_empty() {
            let owner = flow.owner;
            self.by_owner.remove(&owner);
            self.flows.remove(at.flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    const ANY: LaneId = LaneId { machine: None, class: SizeClass::Small };
    const BULK: LaneId = LaneId { machine: None, class: SizeClass::Bulk };

    /// Callers and jobs; a job's caller is looked up by its id.
    #[derive(Default)]
    struct Bench {
        queue: FairQueue,
        callers: SlotMap<CallerId, ()>,
        jobs: SlotMap<JobId, (CallerId, u64, InLine)>,
    }

    impl Bench {
        fn caller(&mut self) -> CallerId {
            self.callers.insert(())
        }

        fn add(&mut self, caller: CallerId, priority: Priority, lane: LaneId, bytes: usize) -> JobId {
            let order = self.jobs.len() as u64;
            let nowhere = InLine { flow: FlowId::default(), lane };
            let job = self.jobs.insert((caller, order, nowhere));
            self.jobs[job].2 = self.queue.insert((caller, priority), false, lane, order, job, bytes);
            job
        }

        /// Whose the next jobs of a lane are.
        fn sent(&mut self, lane: LaneId, count: usize) -> Vec<CallerId> {
            let next = |_| {
                let (job, at) = self.queue.next(lane)?;
                self.queue.settle(at);
                Some(self.jobs[job].0)
            };
            (0..count).map_while(next).collect()
        }
    }

    fn count(sent: &[CallerId], caller: CallerId) -> usize {
        sent.iter().filter(|other| **other == caller).count()
    }

    #[test]
    fn ten_thousand_jobs_of_one_caller_delay_anothers_by_one() {
        let mut bench = Bench::default();
        let (crowd, lone) = (bench.caller(), bench.caller());
        for _ in 0..10_000 {
            bench.add(crowd, Priority::Normal, ANY, 100);
        }
        bench.sent(ANY, 17);
        bench.add(lone, Priority::Normal, ANY, 100);
        assert!(bench.sent(ANY, 2).contains(&lone), "its turn comes next, or right after the one that has it");
    }

    #[test]
    fn priorities_share_four_to_two_to_one() {
        let mut bench = Bench::default();
        let callers = [Priority::High, Priority::Normal, Priority::Low].map(|priority| {
            let caller = bench.caller();
            for _ in 0..1000 {
                bench.add(caller, priority, ANY, 10);
            }
            caller
        });
        let sent = bench.sent(ANY, 700);
        let counts = callers.map(|caller| count(&sent, caller));
        assert!(
            counts.iter().zip([400, 200, 100]).all(|(count, share)| count.abs_diff(share) <= 4),
            "{counts:?}, not 400 to 200 to 100"
        );
    }

    #[test]
    fn large_jobs_cost_what_they_weigh() {
        let mut bench = Bench::default();
        let (large, small) = (bench.caller(), bench.caller());
        for _ in 0..1000 {
            bench.add(large, Priority::Normal, ANY, 100 * 1024);
            bench.add(small, Priority::Normal, ANY, 1);
        }
        let sent = bench.sent(ANY, 505);
        assert!((4..=6).contains(&count(&sent, large)), "{} large ones beside 500 small ones", count(&sent, large));
    }

    #[test]
    fn a_caller_in_two_lanes_has_no_more_than_one_in_one() {
        let mut bench = Bench::default();
        let (both, one) = (bench.caller(), bench.caller());
        for _ in 0..1000 {
            bench.add(both, Priority::Normal, ANY, 1);
            bench.add(both, Priority::Normal, BULK, 1);
            bench.add(one, Priority::Normal, ANY, 1);
        }
        let mut sent = Vec::new();
        while sent.len() < 600 {
            let lane = bench.queue.lane_after(None).expect("jobs wait");
            sent.extend(bench.sent(lane.1, 1));
        }
        let share = count(&sent, one);
        assert!((290..=310).contains(&share), "{share} of 600");
    }

    #[test]
    fn a_lane_that_was_closed_has_saved_nothing_up() {
        let mut bench = Bench::default();
        let (closed, open) = (bench.caller(), bench.caller());
        for _ in 0..1000 {
            bench.add(closed, Priority::Normal, BULK, 1);
            bench.add(open, Priority::Normal, ANY, 1);
        }
        for _ in 0..500 {
            let first = bench.queue.lane_after(None).expect("jobs wait");
            let sent = if first.1 == ANY { first } else { bench.queue.lane_after(Some(first)).expect("both wait") };
            bench.sent(ANY, 1);
            bench.queue.catch_up(sent);
        }
        let mut sent = Vec::new();
        while sent.len() < 100 {
            let lane = bench.queue.lane_after(None).expect("jobs wait");
            sent.extend(bench.sent(lane.1, 1));
        }
        assert!((45..=55).contains(&count(&sent, closed)), "{} of 100", count(&sent, closed));
    }

    #[test]
    fn who_is_parked_is_passed_over_and_comes_back() {
        let mut bench = Bench::default();
        let (one, other) = (bench.caller(), bench.caller());
        for _ in 0..10 {
            bench.add(one, Priority::High, ANY, 1);
            bench.add(other, Priority::Normal, ANY, 1);
        }
        bench.queue.park(one, true);
        assert_eq!(bench.sent(ANY, 20), [other; 10]);
        assert!(bench.queue.is_empty() && !bench.queue.is_bare());
        bench.queue.park(one, false);
        assert_eq!(bench.sent(ANY, 20), [one; 10]);
        assert!(bench.queue.is_bare());
    }

    #[test]
    fn nothing_is_kept_of_what_was_taken_out() {
        let mut bench = Bench::default();
        let caller = bench.caller();
        let jobs: Vec<_> = (0..10).map(|size| bench.add(caller, Priority::Low, ANY, size * 1000)).collect();
        for job in jobs {
            let (_, order, at) = bench.jobs[job];
            bench.queue.remove(at, order);
        }
        assert!(bench.queue.is_bare());
        assert_eq!(bench.queue.next(ANY), None);
    }
}
