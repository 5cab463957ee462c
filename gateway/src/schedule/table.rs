//! The places of the jobs in hand. A slot map whose jobs do not move.

use seeway_proto::wiped::WipedBuffer;
use slotmap::{Key, KeyData};

use super::JobId;
use super::job::Job;

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

/// A key's place and version.
fn parts(id: JobId) -> (usize, u32) {
    let number = id.data().as_ffi();
    // The halves of a key, as `KeyData` documents them.
    #[allow(clippy::cast_possible_truncation)]
    (number as u32 as usize, (number >> 32) as u32)
}

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

    #[inline]
    pub(super) fn insert(&mut self, job: Job) -> JobId {
        let Some(free) = self.free.pop() else {
            let place = u32::try_from(self.places.len()).expect("fewer than 2^32 jobs are in hand");
            self.places.push(PlaceOfJob { version: 1, job, bytes: None });
            return key(place, 1);
        };
        let place = &mut self.places[free as usize];
        place.version = place.version.wrapping_add(1);
        place.job = job;
        key(free, place.version)
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

    /// Forgets a job. Its bytes are wiped.
    #[inline]
    pub(super) fn remove(&mut self, id: JobId) {
        let (number, version) = parts(id);
        if let Some(place) = self.places.get_mut(number).filter(|place| place.version == version) {
            place.version = place.version.wrapping_add(1);
            if place.bytes.is_some() {
                place.bytes = None;
            }
            self.free.push(u32::try_from(number).expect("it was made of one"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::job::Jobs;
    use crate::schedule::tests::beginning;
    use crate::schedule::{NewJob, Priority, WorldId};

    #[test]
    fn a_key_names_its_own_job_and_no_other_one_in_the_same_place() {
        let (now, mut jobs) = (beginning(), Jobs::default());
        let caller = jobs.add_caller();
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
            let id = jobs.insert(now, caller, &new, None);
            assert_eq!(jobs.get(id).map(|job| job.ticket), Some(ticket));
            jobs.keep(id, WipedBuffer::from(new.bytes));
            (id, jobs.remove(id).is_some(), jobs.get(id).is_none() && jobs.take_bytes(id).is_none(), jobs.len())
        };
        let (first, was_there, is_gone, left) = admit(1);
        assert!(was_there && is_gone && left == 0);
        let (second, ..) = admit(2);
        assert_eq!(parts(first).0, parts(second).0, "the place is used again");
        assert_ne!(first, second);
        assert!(jobs.get(first).is_none() && jobs.remove(first).is_none());
        assert!(jobs.get(JobId::default()).is_none(), "a key of nothing");
    }
}
