//! When the next job in hand is due.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use super::JobId;

/// Those of jobs that have ended may be as many as those in hand, and so many besides, before they are thrown out.
const MOST_ENDED: usize = 256;

/// The deadlines of the jobs in hand, the earliest first.
///
/// Most jobs end long before they are due, and most are due in the order in which they came. So a deadline is put at the end
/// of a line where it belongs there, else into a heap; and it stays when its job ends, until there are too many like it.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    in_line: VecDeque<(Instant, JobId)>,
    others: BinaryHeap<Reverse<(Instant, JobId)>>,
    /// Jobs in hand.
    jobs: usize,
}

impl Deadlines {
    /// A job is in hand. Returns whether the next deadline may be another one now.
    #[inline(always)]
    pub(super) fn insert(&mut self, deadline: Instant, id: JobId) -> bool {
        self.jobs += 1;
        let last = self.in_line.back().map(|(last, _)| *last);
        if last.is_none_or(|last| last <= deadline) {
            self.in_line.push_back((deadline, id));
            return last.is_none();
        }
        self.insert_among_others(deadline, id);
        true
    }

    #[cold]
    #[inline(never)]
    fn insert_among_others(&mut self, deadline: Instant, id: JobId) {
        self.others.push(Reverse((deadline, id)));
    }

    /// A job has ended.
    #[inline(always)]
    pub(super) fn job_ended(&mut self, is_in_hand: impl Fn(JobId) -> bool) {
        self.jobs -= 1;
        if self.jobs == 0 || self.len() > self.jobs * 2 + MOST_ENDED {
            self.tidy(is_in_hand);
        }
    }

    /// Throws out those of jobs that have ended: most of them are the first, as they were the first to come.
    #[cold]
    #[inline(never)]
    fn tidy(&mut self, is_in_hand: impl Fn(JobId) -> bool) {
        if self.jobs == 0 {
            self.in_line.clear();
            self.others.clear();
            return;
        }
        while self.in_line.front().is_some_and(|(_, id)| !is_in_hand(*id)) {
            self.in_line.pop_front();
        }
        if self.len() > self.jobs * 2 {
            self.in_line.retain(|(_, id)| is_in_hand(*id));
            self.others.retain(|Reverse((_, id))| is_in_hand(*id));
        }
    }

    /// The earliest; it may be that of a job which has ended.
    #[inline]
    pub(super) fn next(&self) -> Option<Instant> {
        let first = self.in_line.front().map(|(deadline, _)| *deadline);
        let other = self.others.peek().map(|Reverse((deadline, _))| *deadline);
        first.zip(other).map(|(first, other)| first.min(other)).or(first).or(other)
    }

    /// Takes out the next that has passed; its job may have ended.
    pub(super) fn take_passed(&mut self, now: Instant) -> Option<JobId> {
        let next = self.next().filter(|next| *next <= now)?;
        if self.in_line.front().is_some_and(|(first, _)| *first == next) {
            self.in_line.pop_front().map(|(_, id)| id)
        } else {
            self.others.pop().map(|Reverse((_, id))| id)
        }
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.in_line.len() + self.others.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slotmap::SlotMap;

    use super::*;
    use crate::schedule::tests::beginning;

    #[test]
    fn they_pass_in_their_order_whatever_order_they_came_in() {
        let (now, mut jobs, mut deadlines) = (beginning(), SlotMap::with_key(), Deadlines::default());
        let seconds = [3, 1, 4, 1, 5];
        let ids = seconds.map(|seconds| {
            let id: JobId = jobs.insert(());
            deadlines.insert(now + Duration::from_secs(seconds), id);
            id
        });
        assert_eq!(deadlines.next(), Some(now + Duration::from_secs(1)));
        assert_eq!(deadlines.take_passed(now), None);
        let passed: Vec<_> = std::iter::from_fn(|| deadlines.take_passed(now + Duration::from_secs(4))).collect();
        assert_eq!(passed, [ids[1], ids[3], ids[0], ids[2]]);
        assert_eq!(deadlines.len(), 1);
    }

    #[test]
    fn those_of_ended_jobs_are_no_more_than_those_in_hand_and_a_few() {
        let (now, mut jobs, mut deadlines) = (beginning(), SlotMap::with_key(), Deadlines::default());
        let lasting: JobId = jobs.insert(());
        deadlines.insert(now, lasting);
        for _ in 0..10_000 {
            let id = jobs.insert(());
            deadlines.insert(now + Duration::from_secs(60), id);
            jobs.remove(id);
            deadlines.job_ended(|id| jobs.contains_key(id));
            assert!(deadlines.len() <= 2 + MOST_ENDED, "{}", deadlines.len());
        }
        assert_eq!(deadlines.take_passed(now), Some(lasting));
        jobs.remove(lasting);
        deadlines.job_ended(|id| jobs.contains_key(id));
        assert_eq!((deadlines.len(), deadlines.next()), (0, None));
    }
}
