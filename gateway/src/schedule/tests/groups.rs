//! Jobs with affinity keys, where something happens to the one before them.

use super::*;

const KEY: &[u8] = b"a key";

fn keyed(bench: &mut Bench, caller: CallerId, ticket: u64, size: usize) -> Option<JobId> {
    bench.submit_as(caller, ticket, size, |new| new.affinity_key = KEY)
}

#[test]
fn a_job_goes_on_when_the_one_before_it_is_withdrawn() {
    let mut bench = Bench::new(&[&[0]], 10, 10, HOLD);
    let (small, bulk) = (bench.open(0), bench.open_for(0, SizeClass::Bulk));
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    let first = keyed(&mut bench, caller, 1, 8).expect("staged on the channel for small ones");
    keyed(&mut bench, caller, 2, 900).expect("waits until that has left");
    assert_eq!(bench.scheduler.queued(WorldId(0)), 1);
    bench.scheduler.cancel(bench.now, first, &mut bench.told);
    bench.send(small);
    bench.send(bulk);
    assert_eq!(bench.ran(), [2], "nothing is before it any more");
}

#[test]
fn order_holds_when_the_last_job_staged_is_withdrawn() {
    let mut bench = Bench::new(&[&[0]], 10, 10, HOLD);
    let channels = [bench.open(0), bench.open(0)];
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    keyed(&mut bench, caller, 1, 8);
    let second = keyed(&mut bench, caller, 2, 8).expect("staged");
    bench.scheduler.cancel(bench.now, second, &mut bench.told);
    keyed(&mut bench, caller, 3, 8);
    for channel in channels.into_iter().rev() {
        bench.send(channel);
    }
    assert_eq!(bench.ran(), [1, 3]);
}

#[test]
fn a_waiting_job_does_not_go_to_a_machine_that_its_world_has_lost() {
    let mut bench = Bench::new(&[&[0, 1], &[0, 1]], 1, 10, HOLD);
    let channels = [bench.open(0), bench.open(1)];
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    keyed(&mut bench, caller, 1, 8);
    bench.send_all();
    let home = (0..2).find(|place| bench.held(channels[*place]) == 1).expect("it was sent");
    keyed(&mut bench, caller, 2, 8);
    let mut after = bench.settings.clone();
    after.worlds[0].machines = vec![MachineId(1 - home)];
    bench.scheduler.reconfigure(bench.now, after, &mut bench.told);
    bench.send(channels[1 - home]);
    bench.answer(channels[home], 0, None);
    bench.send(channels[home]);
    assert_eq!((bench.held(channels[home]), bench.held(channels[1 - home])), (0, 1));
}

const JOBS: u64 = 50_000;

#[test]
fn however_many_wait_for_a_machine_that_is_gone_they_fail_in_their_order() {
    let mut bench = Bench::with(&[&[0, 1]], 1, 100_000, HOLD, |settings| {
        settings.worlds[0].affinity = Affinity::Strict;
        settings.worlds[0].queue_bytes = Budget::new(1 << 30, 1);
    });
    let channels = [bench.open(0), bench.open(1)];
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    keyed(&mut bench, caller, 0, 8);
    bench.send_all();
    let home = channels.into_iter().find(|channel| bench.held(*channel) == 1).expect("it was sent");
    // One stack frame for each would be too many.
    for ticket in 1..=JOBS {
        keyed(&mut bench, caller, ticket, 8);
    }
    bench.close(home);
    assert_eq!(bench.scheduler.world_stats(WorldId(0)).outcomes(OutcomeKind::NotSentNowhereToGo), JOBS);
    assert!(bench.scheduler.is_bare());
}

/// Two machines of which the first has been ejected, has answered a `NoOp`, and has been sent a job that tries it, which its
/// caller waits for so long.
fn on_trial(patience: Duration) -> (Bench, ChannelId) {
    let mut bench = Bench::with(&[&[0, 1]], 64, 1000, HOLD, |settings| settings.circuit.failures = 1);
    let (bad, good) = (bench.open(0), bench.open(1));
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    bench.submit(caller, 0);
    bench.submit(caller, 1);
    bench.send_all();
    bench.answer(bad, 0, Some(bench.profile.statuses.see_world_failed));
    bench.answer(good, 0, None);
    assert_eq!(bench.scheduler.machine_state(MachineId(0)), MachineState::Ejected);
    bench.pass(bench.settings.circuit.probe_after);
    bench.send_all();
    assert_eq!(bench.answer_no_ops(bad), 1);
    for ticket in 2..10 {
        bench.submit_for(caller, ticket, patience, false);
    }
    bench.send_all();
    assert_eq!(bench.held(bad), 1, "one job tries it");
    while bench.held(good) > 0 {
        bench.answer(good, 0, None);
    }
    assert_eq!(bench.scheduler.machine_state(MachineId(0)), MachineState::Probing);
    (bench, bad)
}

#[test]
fn a_trial_that_is_not_answered_by_its_jobs_deadline_has_failed() {
    let patience = Duration::from_secs(3);
    let (mut bench, _) = on_trial(patience);
    bench.pass(patience);
    assert_eq!(bench.scheduler.machine_state(MachineId(0)), MachineState::Ejected);
}

#[test]
fn a_trial_lasts_no_longer_than_a_machine_may_be_silent() {
    let (mut bench, _) = on_trial(PATIENCE * 10);
    let silent_after = bench.settings.circuit.silent_after;
    bench.pass(silent_after.saturating_sub(Duration::from_millis(1)));
    assert_eq!(bench.scheduler.machine_state(MachineId(0)), MachineState::Probing);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.scheduler.machine_state(MachineId(0)), MachineState::Ejected);
}

#[test]
fn a_trial_that_has_not_left_when_its_time_is_over_goes_elsewhere() {
    let (mut bench, bad) = on_trial(PATIENCE * 10);
    bench.close(bad);
    let bad = bench.open(0);
    bench.pass(bench.settings.circuit.probe_after * 2);
    bench.send_all();
    bench.answer_no_ops(bad);
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    for ticket in 0..8 {
        bench.submit_for(caller, ticket, PATIENCE * 10, false);
    }
    // Nothing is written for as long as a trial may last.
    bench.pass(bench.settings.circuit.silent_after);
    assert_eq!(bench.scheduler.machine_state(MachineId(0)), MachineState::Ejected);
    bench.send_all();
    assert_eq!(bench.held(bad), 0);
    assert_eq!(bench.scheduler.queued(WorldId(0)), 0, "they went elsewhere");
}

#[test]
fn a_job_that_is_sent_again_goes_to_what_its_world_has_now() {
    let mut bench = Bench::new(&[&[0, 1], &[0]], 1, 10, HOLD);
    let (lost, other) = (bench.open(0), bench.open(1));
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    // A reload takes the machine away while it has the job.
    bench.submit_as(caller, 0, 8, |new| new.idempotent = true);
    bench.submit_as(caller, 1, 8, |new| new.idempotent = true);
    bench.send_all();
    let mut after = bench.settings.clone();
    after.worlds[0].machines = vec![MachineId(1)];
    bench.scheduler.reconfigure(bench.now, after, &mut bench.told);
    bench.answer(other, 0, None);
    let failed = bench.profile.statuses.see_world_failed;
    bench.answer(lost, 0, Some(failed));
    bench.send(other);
    assert_eq!(bench.held(other), 1, "nothing else has to happen first");
}
