//! The places of the jobs in hand. A slot map whose jobs do not move.

use std::time::Instant;

use seeway_proto::wiped::WipedBuffer;
use slotmap::{Key, KeyData};

use super::JobId;
use super::job::Job;
use super::spare::SpareBuffers;

/// Jobs under keys that name no other job once theirs has ended.
///
/// Each job has hundreds of bytes. So a new one is written into its place, and one that has ended is left there until the place
/// is used again; only its bytes are wiped at once.
#[derive(Debug, Default)]
pub(super) struct Table {
    places: Vec<PlaceOfJob>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct PlaceOfJob {
    /// Odd where the job is in hand; one more each time the place is taken or left.
    version: u32,
    job: Job,
    /// The job's, where they are kept: most are not.
    bytes: Option<WipedBuffer>,
}

/// A place that there is not: there are fewer than 2^32 jobs.
pub(super) const NOWHERE: u32 = u32::MAX;

/// A key's place and version.
#[inline]
fn parts(id: JobId) -> (usize, u32) {
    let number = id.data().as_ffi();
    // The halves of a key, as `KeyData` documents them.
    #[allow(clippy::cast_possible_truncation)]
    (number as u32 as usize, (number >> 32) as u32)
}

#[inline]
fn key(place: u32, version: u32) -> JobId {
    JobId::from(KeyData::from_ffi(u64::from(version) << 32 | u64::from(place)))
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    #[inline]
    pub(super) fn get(&self, id: JobId) -> Option<&Job> {
        let (place, version) = parts(id);
        self.places.get(place).filter(|place| place.version == version).map(|place| &place.job)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        let (place, version) = parts(id);
        self.places.get_mut(place).filter(|place| place.version == version).map(|place| &mut place.job)
    }

    /// A job and its bytes, where they are kept.
    #[inline]
    pub(super) fn get_with_bytes(&mut self, id: JobId) -> Option<(&mut Job, &mut Option<WipedBuffer>)> {
        let (place, version) = parts(id);
        let place = self.places.get_mut(place).filter(|place| place.version == version)?;
        Some((&mut place.job, &mut place.bytes))
    }

    /// The job in a place, if there is such a place. Whether it is in hand is for the caller to know.
    #[inline]
    pub(super) fn at(&mut self, place: u32) -> Option<&mut Job> {
        self.places.get_mut(place as usize).map(|place| &mut place.job)
    }

    /// The key of the job in a place.
    pub(super) fn key_at(&self, place: u32) -> Option<JobId> {
        self.places.get(place as usize).map(|found| key(place, found.version))
    }

    /// The place of a job.
    #[inline]
    pub(super) fn place_of(id: JobId) -> u32 {
        u32::try_from(parts(id).0).expect("it was made of one")
    }

    /// A place that no job is in, for [`fill`](Self::fill).
    #[inline]
    pub(super) fn vacant(&mut self, now: Instant) -> u32 {
        self.free.pop().unwrap_or_else(|| self.add_place(now))
    }

    /// Puts a job into a place that no other one is in; returns its key, and what stands there.
    #[inline]
    pub(super) fn fill(&mut self, number: u32, job: Job) -> (JobId, &mut Job, &mut Option<WipedBuffer>) {
        let place = &mut self.places[number as usize];
        place.version = place.version.wrapping_add(1);
        place.job = job;
        (key(number, place.version), &mut place.job, &mut place.bytes)
    }

    #[cold]
    fn add_place(&mut self, now: Instant) -> u32 {
        let place = u32::try_from(self.places.len()).ok().filter(|place| *place != NOWHERE);
        self.places.push(PlaceOfJob { version: 0, job: Job::none(now), bytes: None });
        place.expect("fewer than 2^32 jobs are in hand")
    }

    /// Keeps a job's bytes.
    pub(super) fn keep(&mut self, id: JobId, bytes: WipedBuffer) {
        let (place, version) = parts(id);
        if let Some(place) = self.places.get_mut(place).filter(|place| place.version == version) {
            place.bytes = Some(bytes);
        }
    }

    /// Takes a job's bytes, where they are kept.
    #[inline]
    pub(super) fn take_bytes(&mut self, id: JobId) -> Option<WipedBuffer> {
        let (place, version) = parts(id);
        let place = self.places.get_mut(place).filter(|place| place.version == version)?;
        if place.bytes.is_some() { place.bytes.take() } else { None }
    }

    /// Forgets a job, which stays in its place until that is used again. Where its bytes were kept, their buffer is wiped and used
    /// again too.
    #[inline]
    pub(super) fn remove(&mut self, id: JobId, spare: &mut SpareBuffers) -> Option<&Job> {
        let (number, version) = parts(id);
        let place = self.places.get_mut(number).filter(|place| place.version == version)?;
        place.version = place.version.wrapping_add(1);
        self.free.push(Self::place_of(id));
        if place.bytes.is_some() {
            place.bytes.take().into_iter().for_each(|bytes| spare.put_back(bytes));
        }
        Some(&place.job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::job::Jobs;
    use crate::schedule::tests::beginning;
    use crate::schedule::{FrontEnd, NewJob, Priority, WorldId};

    #[test]
    fn a_key_names_its_own_job_and_no_other_one_in_the_same_place() {
        let (now, mut jobs, mut spare) = (beginning(), Jobs::default(), SpareBuffers::default());
        let caller = jobs.add_caller(FrontEnd::Grpc);
        let mut admit = |ticket| {
            let new = NewJob {
                ticket,
                world: WorldId(0),
                bytes: b"pin 1234",
                deadline: now,
                idempotent: true,
                priority: Priority::Normal,
                affinity_key: b"",
            };
            let id = jobs.insert(now, caller, &new, None).id;
            assert_eq!(jobs.get(id).map(|job| job.ticket), Some(ticket));
            jobs.keep(id, WipedBuffer::from(new.bytes));
            (
                id,
                jobs.remove(id, &mut spare).is_some(),
                jobs.get(id).is_none() && jobs.take_bytes(id).is_none(),
                jobs.len(),
            )
        };
        let (first, was_there, is_gone, left) = admit(1);
        assert!(was_there && is_gone && left == 0);
        let (second, ..) = admit(2);
        assert_eq!(parts(first).0, parts(second).0, "the place is used again");
        assert_ne!(first, second);
        assert!(jobs.get(first).is_none() && jobs.remove(first, &mut spare).is_none());
        assert!(jobs.get(JobId::default()).is_none(), "a key of nothing");
    }
}
