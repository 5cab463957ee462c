//! Callers as most users of SEEJobs have them: a thread for each connection, which sends a job and waits for its answer.

use std::{sync::Arc, thread};

use seeway_proto::wire::{Direction, Frame, Framer, Limits, MAX_JOB_BYTES_CEILING, Profile, ReplyBody, decode_reply};

use super::{
    Load, Pace, WRONG_REPLY,
    clock::Clock,
    jobs::Jobs,
    tally::Tally,
    watch::Watch,
    wire::{Socket, connect_blocking},
};
use crate::{CallerError, Target};

const READ_SIZE: usize = 64 * 1024;

/// The connections.
pub(crate) struct BlockingCallers {
    target: Target,
    profile: Arc<Profile>,
    callers: Vec<(Socket, u32)>,
}

impl BlockingCallers {
    pub(crate) fn connect(load: &Load, target: &Target) -> Result<Self, CallerError> {
        let profile = Profile::open_1();
        let callers: Result<_, _> =
            (0..load.callers).map(|_| connect_blocking(target, load.world.as_deref(), &profile)).collect();
        Ok(Self { target: target.clone(), profile, callers: callers? })
    }

    /// Runs the load on them: a closed loop with one job in flight for each, whose end is a time.
    pub(crate) fn run(&mut self, load: &Load, watch: &mut dyn Watch) -> Result<Tally, CallerError> {
        if load.in_flight != 1 || load.pace != Pace::Closed || load.jobs().is_some() {
            let what = "callers that block have one job in flight, in a closed loop, for a time".to_owned();
            return Err(CallerError::Misused { what });
        }
        let clock = load.clock();
        let (target, profile, count) = (self.target.to_string(), &self.profile, self.callers.len());
        let mut sum = Tally::new(clock, count);
        thread::scope(|scope| {
            let threads: Vec<_> = self
                .callers
                .iter_mut()
                .enumerate()
                .map(|(index, caller)| {
                    let target = &target;
                    scope.spawn(move || {
                        let mut tally = Tally::new(clock, count);
                        work(index, caller, load, clock, profile, target, &mut tally).map(|()| tally)
                    })
                })
                .collect();
            for thread in threads {
                sum.add(&thread.join().expect("a caller does not panic")?);
            }
            watch.progress(sum.count(), std::time::Duration::from_nanos(clock.now()));
            Ok(sum)
        })
    }
}

/// One caller, until the load's end.
fn work(
    index: usize,
    (socket, world): &mut (Socket, u32),
    load: &Load,
    clock: Clock,
    profile: &Profile,
    target: &str,
    tally: &mut Tally,
) -> Result<(), CallerError> {
    let lost = |source| CallerError::Connection { target: target.to_owned(), source };
    let broken = |what: String| CallerError::Protocol { target: target.to_owned(), what };
    let mut jobs = Jobs::new(&load.sizes, profile);
    let mut framer = Framer::new(Direction::Replies, Limits { max_job_bytes: MAX_JOB_BYTES_CEILING });
    let mut input = vec![0; READ_SIZE];
    let mut answer = Vec::new();
    let caller = index as u64;
    for number in 0.. {
        let sent = clock.now();
        if !clock.is_open(sent) {
            break;
        }
        socket.write_all(jobs.message(caller, number, 0, *world)).map_err(lost)?;
        loop {
            let count = socket.read(&mut input).map_err(lost)?;
            if count == 0 {
                return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
            }
            answer.extend_from_slice(&input[..count]);
            let mut rest = &answer[..];
            let Some(frame) = framer.next(&mut rest).map_err(|error| broken(error.to_string()))? else {
                continue;
            };
            let Frame::Body(body) = frame else {
                return Err(broken("an answer was longer than any may be".to_owned()));
            };
            let reply = decode_reply(profile, body).map_err(|error| broken(error.to_string()))?;
            tally.answered(index, sent, clock.now());
            match reply.body {
                ReplyBody::Job(bytes) if !load.verify_echo || bytes.0 == jobs.job(caller, number) => {}
                ReplyBody::Job(_) => tally.failed(WRONG_REPLY),
                ReplyBody::Error { status, .. } => tally.failed(profile.statuses.name(status).unwrap_or("a status")),
                ReplyBody::NoOp | ReplyBody::Object(_) => tally.failed("not a job's reply"),
            }
            break;
        }
        answer.clear();
    }
    Ok(())
}
