//! The jobs that a load sends: their sizes and bytes, ready to be written.

use std::{fmt, str::FromStr};

use seeway_proto::{
    wiped::WipedBuffer,
    wire::{MAX_JOB_BYTES_CEILING, Profile, command_see_job},
};

/// A job begins with its caller and its number, so that a reply that was meant for another job is found out; where it is
/// shorter, with as much of them as it has room for.
const NAME: usize = 16;

/// Where a SEEJob message has its tag.
const TAG: usize = 4;
/// Where a SEEJob message has its worldid.
const WORLD: usize = 16;
/// Where a SEEJob message has its job.
const JOB: usize = 24;

/// How large jobs are: one size, or several with their shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes(Vec<(usize, u32)>);

impl Sizes {
    /// All of one size, in bytes.
    pub fn fixed(bytes: usize) -> Self {
        Self(vec![(bytes, 1)])
    }

    /// The largest, in bytes.
    pub fn largest(&self) -> usize {
        self.0.iter().map(|(bytes, _)| *bytes).max().unwrap_or_default()
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(bytes, _)] = self.0[..] {
            return write!(f, "{bytes}");
        }
        for (index, (bytes, share)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{bytes}:{share}")?;
        }
        Ok(())
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{text}`: {what}; write BYTES, or BYTES:SHARE,BYTES:SHARE,…");
        let mut sizes = Vec::new();
        for part in text.split(',') {
            let (bytes, share) = part.split_once(':').unwrap_or((part, "1"));
            let bytes: usize = bytes.trim().parse().map_err(|_| wrong("a size is no number"))?;
            let share: u32 = share.trim().parse().map_err(|_| wrong("a share is no number"))?;
            if bytes > MAX_JOB_BYTES_CEILING as usize {
                return Err(wrong(&format!("no job has more than {MAX_JOB_BYTES_CEILING} bytes")));
            }
            if share == 0 || share > MAX_SHARE {
                return Err(wrong(&format!("a share is between 1 and {MAX_SHARE}")));
            }
            sizes.push((bytes, share));
        }
        Ok(Self(sizes))
    }
}

/// Shares are laid out one by one.
const MAX_SHARE: u32 = 10_000;

/// The jobs of one load. Their bytes are made once for each size; only the name changes from job to job.
pub(crate) struct Jobs {
    /// A SEEJob message for each size.
    messages: Vec<Message>,
    /// Which of them comes when; the numbers of jobs go round it.
    order: Vec<usize>,
}

struct Message {
    bytes: Vec<u8>,
    job: std::ops::Range<usize>,
}

impl Jobs {
    pub(crate) fn new(sizes: &Sizes, profile: &Profile) -> Self {
        let messages: Vec<Message> = sizes.0.iter().map(|(size, _)| Message::new(*size, profile)).collect();
        Self { messages, order: spread(sizes.0.iter().map(|(_, share)| *share)) }
    }

    /// The bytes of a job.
    pub(crate) fn job(&mut self, caller: u64, number: u64) -> &[u8] {
        let message = self.message_of(caller, number);
        message.name(caller, number);
        &message.bytes[message.job.clone()]
    }

    /// The SEEJob message of a job.
    pub(crate) fn message(&mut self, caller: u64, number: u64, tag: u32, world: u32) -> &[u8] {
        let message = self.message_of(caller, number);
        message.name(caller, number);
        message.bytes[TAG..TAG + 4].copy_from_slice(&tag.to_le_bytes());
        message.bytes[WORLD..WORLD + 4].copy_from_slice(&world.to_le_bytes());
        &message.bytes
    }

    fn message_of(&mut self, caller: u64, number: u64) -> &mut Message {
        let turn = caller.wrapping_add(number) % self.order.len() as u64;
        let turn = usize::try_from(turn).expect("less than the order is long");
        &mut self.messages[self.order[turn]]
    }
}

impl Message {
    fn new(size: usize, profile: &Profile) -> Self {
        let job: Vec<u8> = (0u8..=250).cycle().take(size).collect();
        let mut encoded = WipedBuffer::new();
        command_see_job(profile, &mut encoded, 0, 0, &job);
        Self { bytes: encoded.filled().to_vec(), job: JOB..JOB + size }
    }

    fn name(&mut self, caller: u64, number: u64) {
        let mut name = [0; NAME];
        name[..NAME / 2].copy_from_slice(&caller.to_le_bytes());
        name[NAME / 2..].copy_from_slice(&number.to_le_bytes());
        let job = &mut self.bytes[self.job.clone()];
        let named = job.len().min(NAME);
        job[..named].copy_from_slice(&name[..named]);
    }
}

/// Each index as often as its share says, spread evenly.
fn spread(shares: impl Iterator<Item = u32>) -> Vec<usize> {
    let mut places: Vec<(f64, usize)> = shares
        .enumerate()
        .flat_map(|(index, share)| (0..share).map(move |n| ((f64::from(n) + 0.5) / f64::from(share), index)))
        .collect();
    places.sort_by(|a, b| a.0.total_cmp(&b.0));
    places.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use seeway_proto::wire::{Command, decode_command};

    use super::*;

    #[test]
    fn a_message_is_what_the_codec_reads() {
        let profile = Profile::open_1();
        let mut jobs = Jobs::new(&Sizes::fixed(100), &profile);
        let message = jobs.message(7, 9, 3, 5).to_vec();
        let Ok(Command::SeeJob { tag, world, job }) = decode_command(&profile, &message[4..]) else {
            panic!("not a SEEJob: {message:?}");
        };
        assert_eq!((tag, world, job.0), (3, 5, jobs.job(7, 9)));
        assert_eq!(job.0[..16], [7u64.to_le_bytes(), 9u64.to_le_bytes()].concat());
    }

    #[test]
    fn short_jobs_have_as_much_of_the_name_as_fits() {
        let mut jobs = Jobs::new(&Sizes::fixed(3), &Profile::open_1());
        assert_eq!(jobs.job(0x0403_0201, 9), [1, 2, 3]);
        assert!(Jobs::new(&Sizes::fixed(0), &Profile::open_1()).job(1, 1).is_empty());
    }

    #[test]
    fn a_mix_keeps_its_shares_and_spreads_them() {
        let sizes: Sizes = "16:6,4096:3,65536:1".parse().expect("a mix");
        let mut jobs = Jobs::new(&sizes, &Profile::open_1());
        let lengths: Vec<usize> = (0..10).map(|number| jobs.job(0, number).len()).collect();
        assert_eq!([16, 4_096, 65_536].map(|size| lengths.iter().filter(|length| **length == size).count()), [6, 3, 1]);
        assert!(lengths[..5].contains(&4_096) && lengths[5..].contains(&4_096), "{lengths:?}");
        assert_eq!((sizes.largest(), sizes.to_string().as_str()), (65_536, "16:6,4096:3,65536:1"));
    }

    #[test]
    fn what_is_no_size_is_said() {
        for text in ["", "x", "256:", "256:0", "256:10001", "1,,2", "99999999"] {
            assert!(text.parse::<Sizes>().expect_err(text).contains("BYTES:SHARE"));
        }
        assert_eq!("256".parse(), Ok(Sizes::fixed(256)));
    }
}
