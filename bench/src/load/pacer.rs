//! The open loop for callers that are tasks. A thread of its own keeps the time: the runtime's timers have a resolution of a
//! millisecond.

use std::{num::NonZeroU64, thread, time::Duration};

use tokio::sync::mpsc::UnboundedSender;

use super::clock::{Clock, Nanos, Timetable};

/// Hands each job's intended time to the callers in turn when it is due; ends with the timetable, or after `jobs` of them.
/// Dropping the senders is what tells the callers that there are no more.
pub(super) fn start(
    mut timetable: Timetable,
    clock: Clock,
    mut jobs: Option<u64>,
    callers: Vec<UnboundedSender<Nanos>>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        // Without it the kernel makes each sleep up to 50 µs longer; then the jobs are only sent that much later.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        while jobs != Some(0)
            && let Some(next) = timetable.next()
        {
            thread::sleep(Duration::from_nanos(next.saturating_sub(clock.now())));
            while jobs != Some(0)
                && let Some((number, intended)) = timetable.due(clock.now())
            {
                jobs = jobs.map(|jobs| jobs - 1);
                let index = usize::try_from(number % callers.len() as u64).expect("less than there are callers");
                if callers[index].send(intended).is_err() {
                    // The caller has failed, which its own result tells, and the load with it.
                    return;
                }
            }
        }
    })
}
