//! Machines come, go, fail, hang, are drained and reconfigured.

use super::*;

const KEY: &[u8] = b"a key";

fn state(bench: &Bench, machine: usize) -> MachineState {
    bench.scheduler.machine_state(MachineId(machine))
}

/// Two machines that both run world 0, each with one channel.
fn two(change: impl FnOnce(&mut Settings)) -> (Bench, [ChannelId; 2], CallerId) {
    let mut bench = Bench::with(&[&[0, 1]], 64, 1000, HOLD, change);
    let channels = [bench.open(0), bench.open(1)];
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    (bench, channels, caller)
}

fn circuit(settings: &mut Settings) {
    settings.circuit.failures = 3;
}

/// Hands over a job with an affinity key; returns on which of the channels it was sent.
fn sent_to(bench: &mut Bench, channels: [ChannelId; 2], caller: CallerId, ticket: u64) -> usize {
    let before = channels.map(|channel| bench.held(channel));
    bench.submit_as(caller, ticket, 8, |new| new.affinity_key = KEY);
    bench.send_all();
    let after = channels.map(|channel| bench.held(channel));
    (0..2).find(|place| after[*place] > before[*place]).expect("it was sent")
}

#[test]
fn a_key_has_one_machine_and_prefers_it_or_insists_on_it() {
    for affinity in [Affinity::Prefer, Affinity::Strict] {
        let (mut bench, mut channels, caller) = two(|settings| settings.worlds[0].affinity = affinity);
        let home = sent_to(&mut bench, channels, caller, 0);
        for ticket in 1..10 {
            assert_eq!(sent_to(&mut bench, channels, caller, ticket), home);
        }
        let pipes = bench.scheduler.machines_for(WorldId(0), KEY);
        assert_eq!(pipes[0], (MachineId(home), true), "a pipe goes where a job would");
        assert_eq!(pipes.len(), if affinity == Affinity::Strict { 1 } else { 2 });
        bench.close(channels[home]);
        bench.submit_as(caller, 20, 8, |new| new.affinity_key = KEY);
        bench.send(channels[1 - home]);
        match affinity {
            Affinity::Prefer => assert_eq!(bench.held(channels[1 - home]), 1),
            Affinity::Strict => assert_eq!(bench.outcome(caller, 20), Some(OutcomeKind::NotSentNowhereToGo)),
        }
        channels[home] = bench.open(home);
        assert_eq!(sent_to(&mut bench, channels, caller, 21), home, "it is back");
    }
}

#[test]
fn jobs_of_a_key_that_wait_move_on_or_fail_when_their_machine_goes() {
    for affinity in [Affinity::Prefer, Affinity::Strict] {
        let (mut bench, channels, caller) = two(|settings| {
            settings.worlds[0].affinity = affinity;
            settings.machines.iter_mut().for_each(|machine| machine.in_flight = Budget::new(1, 1));
        });
        let home = sent_to(&mut bench, channels, caller, 0);
        for ticket in 1..4 {
            bench.submit_as(caller, ticket, 8, |new| new.affinity_key = KEY);
        }
        bench.send_all();
        assert_eq!(
            (bench.held(channels[1 - home]), bench.scheduler.queued(WorldId(0))),
            (0, 3),
            "they wait for theirs"
        );
        bench.close(channels[home]);
        match affinity {
            Affinity::Prefer => {
                for _ in 1..4 {
                    bench.send(channels[1 - home]);
                    bench.answer(channels[1 - home], 0, None);
                }
                assert_eq!(bench.ran(), [0, 1, 2, 3]);
            }
            Affinity::Strict => {
                assert!((1..4).all(|job| bench.outcome(caller, job) == Some(OutcomeKind::NotSentNowhereToGo)));
            }
        }
        assert!(bench.scheduler.is_bare());
    }
}

#[test]
fn with_no_machine_up_jobs_with_keys_wait_like_all_others() {
    let mut bench = Bench::with(&[&[0, 1]], 4, 10, HOLD, |settings| settings.worlds[0].affinity = Affinity::Strict);
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    for (ticket, key) in [b"a", b"b", b"c", b"d", b"e", b"f"].iter().enumerate() {
        bench.submit_as(caller, ticket as u64, 8, |new| new.affinity_key = *key);
    }
    assert_eq!(bench.scheduler.queued(WorldId(0)), 6);
    let channel = bench.open(0);
    bench.send_all();
    let here = bench.held(channel);
    let failed = bench.scheduler.world_stats(WorldId(0)).outcomes(OutcomeKind::NotSentNowhereToGo);
    assert!(here > 0 && failed > 0 && here as u64 + failed == 6, "{here} are at home here, {failed} are not");
}

#[test]
fn jobs_of_one_key_leave_in_order_whatever_their_sizes_and_priorities() {
    let mut bench = Bench::new(&[&[0]], 3, 1000, HOLD);
    let channels = [bench.open(0), bench.open(0), bench.open_for(0, SizeClass::Bulk)];
    let (caller, other) =
        (bench.scheduler.caller_joined(FrontEnd::Hardserver), bench.scheduler.caller_joined(FrontEnd::Hardserver));
    let priorities = [Priority::Low, Priority::High, Priority::Normal].into_iter().cycle();
    for (ticket, priority) in (0..200).zip(priorities) {
        let size = if ticket % 3 == 0 { 900 } else { 8 };
        bench.submit_as(caller, ticket, size, |new| (new.affinity_key, new.priority) = (KEY, priority));
        bench.submit_as(other, 1000 + ticket, 8, |_| {});
    }
    let mut turn = 0;
    while !bench.scheduler.is_idle() {
        // The channels' writers take their turns in an order of their own.
        turn += 1;
        bench.send(channels[turn * 7 % 3]);
        let busy = channels.into_iter().filter(|channel| bench.held(*channel) > 0);
        if let Some(channel) = busy.max_by_key(|channel| bench.held(*channel)) {
            bench.answer(channel, turn % bench.held(channel), None);
        }
        assert!(turn < 10_000, "all is sent at last");
    }
    let ran: Vec<u64> = bench.ran().into_iter().filter(|ticket| *ticket < 1000).collect();
    assert_eq!(ran, (0..200).collect::<Vec<_>>());
    assert!(bench.scheduler.is_bare());
}

#[test]
fn a_machine_that_fails_is_ejected_probed_and_taken_back() {
    let (mut bench, [bad, good], caller) = two(circuit);
    let failed = bench.profile.statuses.see_world_failed;
    let mut ticket = 0;
    while state(&bench, 0) == MachineState::Ready {
        bench.submit(caller, ticket);
        ticket += 1;
        bench.send_all();
        if bench.held(bad) > 0 {
            bench.answer(bad, 0, Some(failed));
        }
        assert!(ticket < 100, "it fails all that it gets");
    }
    assert_eq!(bench.scheduler.world_stats(WorldId(0)).outcomes(OutcomeKind::UnknownMachineFailed), 3);
    assert_eq!((state(&bench, 0), bench.scheduler.machine_stats(MachineId(0)).ejections), (MachineState::Ejected, 1));
    for job in 0..10 {
        bench.submit(caller, 1000 + job);
    }
    bench.send_all();
    assert_eq!(bench.held(bad), 0);
    // A NoOp, then one job, then trust.
    bench.pass(bench.settings.circuit.probe_after);
    assert_eq!(state(&bench, 0), MachineState::Probing);
    bench.send_all();
    assert_eq!(bench.answer_no_ops(bad), 1);
    for job in 0..40 {
        bench.submit(caller, 2000 + job);
    }
    bench.send_all();
    assert_eq!(bench.held(bad), 1, "one job tries it");
    bench.answer(bad, 0, None);
    assert!(matches!(state(&bench, 0), MachineState::Ready | MachineState::Starting));
    for job in 0..40 {
        bench.submit(caller, 3000 + job);
    }
    bench.send_all();
    assert!(bench.held(bad) > 1 && bench.held(good) > 0);
}

#[test]
fn a_machine_that_refuses_whatever_it_is_sent_is_ejected_however_quickly_it_does() {
    let (mut bench, [bad, good], caller) = two(circuit);
    for ticket in 0..100 {
        bench.submit(caller, ticket);
        bench.send_all();
        while bench.held(bad) > 0 {
            bench.answer(bad, 0, Some(bench.profile.statuses.unknown_id));
        }
        while bench.held(good) > 0 {
            bench.answer(good, 0, None);
        }
    }
    assert_eq!(state(&bench, 0), MachineState::Ejected);
    assert_eq!(bench.scheduler.world_stats(WorldId(0)).outcomes(OutcomeKind::MachineStatus), 3);
}

#[test]
fn replies_that_are_too_large_are_not_held_against_a_machine() {
    let (mut bench, [one, other], caller) = two(circuit);
    for channel in [one, other] {
        // They have another idea of the limit.
        let incoming = Incoming::new(bench.profile.clone(), Limits { max_job_bytes: 2000 }, usize::MAX);
        bench.peers.get_mut(&channel).expect("open").incoming = incoming;
    }
    for ticket in 0..20 {
        bench.submit(caller, ticket);
        bench.send_all();
        for channel in [one, other] {
            let Peer { incoming, held, .. } = bench.peers.get_mut(&channel).expect("open");
            held.drain(..).for_each(|(tag, _)| incoming.answer_job(tag, &[0; 1001]));
            bench.deliver(channel);
        }
    }
    assert_eq!([0, 1].map(|machine| state(&bench, machine)), [MachineState::Ready; 2]);
    assert_eq!(bench.scheduler.world_stats(WorldId(0)).outcomes(OutcomeKind::UnknownMachineFailed), 20);
}

#[test]
fn hasty_callers_do_not_get_machines_ejected() {
    let (mut bench, [slow, other], caller) = two(circuit);
    let mut ticket = 0;
    let mut time_out = |bench: &mut Bench, patience: Duration| {
        for _ in 0..8 {
            bench.submit_for(caller, ticket, patience, false);
            ticket += 1;
        }
        bench.send_all();
        bench.pass(patience);
    };
    time_out(&mut bench, Duration::from_millis(999));
    assert_eq!([0, 1].map(|machine| state(&bench, machine)), [MachineState::Ready; 2]);
    for channel in [slow, other] {
        while bench.held(channel) > 0 {
            bench.answer(channel, 0, None);
        }
    }
    // Each is known to take a second: four times that is what it takes to say that it does not answer.
    time_out(&mut bench, Duration::from_millis(3_990));
    assert_eq!([0, 1].map(|machine| state(&bench, machine)), [MachineState::Ready; 2]);
    while bench.held(other) > 0 {
        bench.answer(other, 0, None);
    }
    time_out(&mut bench, Duration::from_secs(17));
    assert!([0, 1].iter().any(|machine| state(&bench, *machine) == MachineState::Ejected));
}

#[test]
fn what_waits_for_a_world_that_is_removed_still_runs() {
    for hold in [HOLD, Duration::ZERO] {
        let mut bench = Bench::new(&[&[0]], 1, 10, hold);
        let channel = bench.open(0);
        let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
        bench.submit(caller, 0);
        bench.submit(caller, 1);
        bench.send(channel);
        let mut after = bench.settings.clone();
        after.worlds[0].is_retired = true;
        bench.scheduler.reconfigure(bench.now, after, &mut bench.told);
        assert!(!bench.scheduler.is_ready(WorldId(0)));
        bench.pass(HOLD + Duration::from_secs(1));
        bench.answer(channel, 0, None);
        bench.send(channel);
        bench.answer(channel, 0, None);
        assert_eq!(bench.outcome(caller, 1), Some(OutcomeKind::Replied));
    }
}

#[test]
fn a_silent_machine_is_ejected_and_costs_no_further_job() {
    let (mut bench, [silent, good], caller) = two(circuit);
    for ticket in 0..10 {
        bench.submit_for(caller, ticket, PATIENCE * 10, false);
    }
    bench.send_all();
    let stuck = bench.held(silent);
    assert!(stuck > 0);
    let serve = |bench: &mut Bench| {
        while bench.held(good) > 0 {
            bench.answer(good, 0, None);
        }
    };
    serve(&mut bench);
    // One that is staged and never written goes elsewhere with the ejection.
    bench.submit(caller, 50);
    bench.submit(caller, 51);
    bench.pass(bench.settings.circuit.silent_after);
    assert_eq!((state(&bench, 0), state(&bench, 1)), (MachineState::Ejected, MachineState::Ready));
    bench.send(good);
    assert_eq!(bench.held(good), 2);
    for round in 0..20 {
        bench.submit(caller, 100 + round);
        bench.pass(Duration::from_secs(10));
        bench.send_all();
        serve(&mut bench);
    }
    assert_eq!(bench.held(silent), stuck, "it answers no NoOp, so it gets no job");
    assert_eq!(bench.peers[&silent].asked.len(), 1, "and is asked once");
    bench.answer_no_ops(silent);
    assert_eq!(state(&bench, 0), MachineState::Probing);
}

#[test]
fn the_last_machine_is_never_ejected() {
    let (mut bench, [only, other], caller) = two(circuit);
    bench.close(other);
    let failed = bench.profile.statuses.see_world_failed;
    for ticket in 0..20 {
        bench.submit(caller, ticket);
        bench.send(only);
        bench.answer(only, 0, Some(failed));
    }
    assert_eq!(state(&bench, 0), MachineState::Ready);
    bench.submit_for(caller, 100, PATIENCE * 10, false);
    bench.send(only);
    bench.pass(PATIENCE);
    assert_eq!((state(&bench, 0), bench.outcome(caller, 100)), (MachineState::Ready, None));
    bench.answer(only, 0, None);
    assert_eq!(bench.outcome(caller, 100), Some(OutcomeKind::Replied));
}

#[test]
fn when_only_ejected_machines_are_left_they_get_the_jobs() {
    let (mut bench, [bad, good], caller) = two(circuit);
    let failed = bench.profile.statuses.see_world_failed;
    for ticket in 0..20 {
        bench.submit(caller, ticket);
        bench.send_all();
        while bench.held(bad) > 0 {
            bench.answer(bad, 0, Some(failed));
        }
    }
    assert_eq!(state(&bench, 0), MachineState::Ejected);
    bench.close(good);
    assert!(bench.scheduler.is_ready(WorldId(0)));
    bench.pass(Duration::from_secs(1));
    bench.submit(caller, 100);
    bench.send(bad);
    bench.answer(bad, 0, None);
    assert_eq!(bench.outcome(caller, 100), Some(OutcomeKind::Replied));
    assert_eq!(state(&bench, 0), MachineState::Ready, "it has done a job that came later");
}

#[test]
fn a_machine_that_comes_back_takes_load_step_by_step() {
    let (mut bench, [one, _], caller) = two(|settings| settings.slow_start = Duration::from_secs(10));
    assert_eq!((state(&bench, 0), state(&bench, 1)), (MachineState::Ready, MachineState::Starting));
    bench.pass(Duration::from_secs(10));
    bench.close(one);
    let back = bench.open(0);
    assert_eq!(state(&bench, 0), MachineState::Starting);
    for ticket in 0..100 {
        bench.submit_for(caller, ticket, PATIENCE * 10, false);
    }
    bench.send_all();
    assert_eq!(bench.held(back), 4, "a sixteenth of 64");
    bench.answer(back, 0, None);
    bench.answer(back, 0, None);
    bench.send_all();
    assert_eq!(bench.held(back), 6, "two more for two replies");
    bench.pass(Duration::from_secs(10));
    bench.send_all();
    assert_eq!((bench.held(back), state(&bench, 0)), (34, MachineState::Ready), "all that waited, 64 being elsewhere");
}

#[test]
fn the_quicker_machine_gets_more() {
    let mut bench = Bench::new(&[&[0, 1, 2]], 1000, 10, HOLD);
    let channels = [bench.open(0), bench.open(1), bench.open(2)];
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    let mut got = [0_u32; 3];
    for ticket in 0..3000 {
        bench.submit(caller, ticket);
        bench.send_all();
        bench.pass(Duration::from_millis(1));
        // The last machine answers each fifth time only, all at once.
        for (place, channel) in channels.into_iter().enumerate() {
            if place < 2 || ticket % 5 == 0 {
                while bench.held(channel) > 0 {
                    bench.answer(channel, 0, None);
                    got[place] += 1;
                }
            }
        }
    }
    assert!(got[2] * 4 < got[0] && got[2] * 4 < got[1], "{got:?}");
    assert!(got[0].abs_diff(got[1]) < 600, "{got:?}");
}

#[test]
fn a_machine_that_is_drained_finishes_what_it_has_and_gets_no_more() {
    let (mut bench, [drained, other], caller) = two(|_| {});
    for ticket in 0..10 {
        bench.submit(caller, ticket);
    }
    bench.send(drained);
    let sent = bench.held(drained);
    for ticket in 10..20 {
        bench.submit(caller, ticket);
    }
    bench.scheduler.begin_machine_drain(bench.now, MachineId(0), &mut bench.told);
    assert_eq!(state(&bench, 0), MachineState::Draining);
    bench.send_all();
    assert_eq!((bench.held(drained), bench.held(other)), (sent, 20 - sent), "what had not left went elsewhere");
    while bench.held(drained) > 0 {
        bench.answer(drained, 0, None);
    }
    assert_eq!(bench.scheduler.in_flight(MachineId(0)), 0);
    bench.scheduler.end_machine_drain(bench.now, MachineId(0), &mut bench.told);
    for ticket in 20..30 {
        bench.submit(caller, ticket);
    }
    bench.send_all();
    assert!(bench.held(drained) > 0);
    assert!(bench.told.outcomes.values().flatten().all(|(kind, ..)| *kind == OutcomeKind::Replied));
}

#[test]
fn a_channel_that_is_drained_gets_no_job_and_is_done_when_its_last_is_answered() {
    let mut bench = Bench::new(&[&[0]], 64, 10, HOLD);
    let old = bench.open(0);
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    bench.submit(caller, 0);
    bench.send(old);
    bench.submit(caller, 1);
    let new = bench.open(0);
    bench.scheduler.drain_channel(bench.now, old, &mut bench.told);
    bench.submit(caller, 2);
    bench.send_all();
    assert_eq!((bench.held(old), bench.held(new)), (1, 2));
    assert!(bench.scheduler.has_wanted_jobs(old));
    bench.answer(old, 0, None);
    assert!(!bench.scheduler.has_wanted_jobs(old));
    bench.close(old);
    assert!(bench.scheduler.is_ready(WorldId(0)));
}

#[test]
fn draining_ends_and_jobs_are_taken_in_again() {
    let (mut bench, _, caller) = two(|_| {});
    bench.scheduler.begin_drain();
    assert_eq!(bench.submit(caller, 0), None);
    bench.scheduler.end_drain();
    assert!(bench.submit(caller, 1).is_some());
}

#[test]
fn a_reload_adds_retires_and_brings_back() {
    let (mut bench, [one, other], caller) = two(|_| {});
    for ticket in 0..10 {
        bench.submit(caller, ticket);
    }
    bench.send_all();
    let (held, elsewhere) = (bench.held(one), bench.held(other));
    let before = bench.settings.clone();
    let mut after = before.clone();
    after.machines[0].is_retired = true;
    after.machines.push(MachineSettings { name: "new".into(), in_flight: Budget::new(64, 1), is_retired: false });
    after.worlds[0].machines = vec![MachineId(1), MachineId(2)];
    after.worlds.push(WorldSettings {
        machines: vec![MachineId(2)],
        queue: Budget::new(1, 1),
        queue_bytes: Budget::new(1000, 1),
        affinity: Affinity::Prefer,
        is_retired: false,
    });
    bench.scheduler.reconfigure(bench.now, after.clone(), &mut bench.told);
    assert_eq!(state(&bench, 0), MachineState::Draining);
    let new = bench.open(2);
    assert_eq!(bench.told.ready.get(&WorldId(1)), Some(&true));
    for ticket in 10..30 {
        bench.submit(caller, ticket);
    }
    bench.submit_as(caller, 99, 8, |new| new.world = WorldId(1));
    bench.send_all();
    assert_eq!((bench.held(one), bench.held(other) - elsewhere + bench.held(new)), (held, 21));
    while bench.held(one) > 0 {
        bench.answer(one, 0, None);
    }
    // The first world goes; what it has in hand runs on.
    after.worlds[0].is_retired = true;
    bench.scheduler.reconfigure(bench.now, after, &mut bench.told);
    assert_eq!(bench.told.ready.get(&WorldId(0)), Some(&false));
    assert_eq!(bench.submit(caller, 31), None);
    assert_eq!(bench.outcome(caller, 31), Some(OutcomeKind::Rejected));
    for channel in [other, new] {
        while bench.held(channel) > 0 {
            bench.answer(channel, 0, None);
        }
    }
    assert!(bench.scheduler.is_bare());
    bench.scheduler.reconfigure(bench.now, before, &mut bench.told);
    assert!(bench.submit(caller, 32).is_some(), "it is back");
}

#[test]
fn what_comes_back_from_a_lost_channel_goes_before_what_waited_even_where_its_loss_ejects_the_machine() {
    let (mut bench, channels, caller) = two(|settings| {
        settings.circuit.failures = 1;
        settings.machines.iter_mut().for_each(|machine| machine.in_flight = Budget::new(2, 1));
    });
    let home = sent_to(&mut bench, channels, caller, 0);
    // One has left, one is staged, one waits.
    for ticket in [1, 2] {
        bench.submit_as(caller, ticket, 8, |new| new.affinity_key = KEY);
    }
    assert_eq!(bench.scheduler.queued(WorldId(0)), 1);
    bench.close(channels[home]);
    bench.send(channels[1 - home]);
    assert_eq!(bench.ran(), [0, 1, 2]);
}

#[test]
fn a_trial_that_is_withdrawn_before_it_left_leaves_room_for_another_one() {
    let (mut bench, channels, caller) = two(|settings| settings.circuit.failures = 1);
    let home = sent_to(&mut bench, channels, caller, 0);
    let failed = bench.profile.statuses.see_world_failed;
    bench.answer(channels[home], 0, Some(failed));
    assert_eq!(state(&bench, home), MachineState::Ejected);
    bench.pass(bench.settings.circuit.probe_after);
    bench.send(channels[home]);
    assert_eq!(bench.answer_no_ops(channels[home]), 1);
    let trial = bench.submit_as(caller, 1, 8, |new| new.affinity_key = KEY).expect("admitted");
    bench.scheduler.cancel(bench.now, trial, &mut bench.told);
    assert_eq!(sent_to(&mut bench, channels, caller, 2), home, "it is tried with the next");
    bench.answer(channels[home], 0, None);
    assert_eq!(state(&bench, home), MachineState::Ready);
}
