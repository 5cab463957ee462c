//! Callers share: fairness, quotas, sizes.

use super::*;

/// One machine with room for one job at a time.
fn narrow(change: impl FnOnce(&mut Settings)) -> (Bench, ChannelId) {
    let mut bench = Bench::with(&[&[0]], 1, 20_000, HOLD, change);
    let channel = bench.open(0);
    (bench, channel)
}

/// Lets the machine answer `count` jobs, one after the other.
fn serve(bench: &mut Bench, channel: ChannelId, count: usize) {
    for _ in 0..count {
        bench.send(channel);
        bench.answer(channel, 0, None);
    }
}

#[test]
fn a_lone_job_does_not_wait_for_another_callers_ten_thousand() {
    let (mut bench, channel) = narrow(|_| {});
    let (crowd, lone) =
        (bench.scheduler.caller_joined(FrontEnd::Hardserver), bench.scheduler.caller_joined(FrontEnd::Hardserver));
    for ticket in 0..10_000 {
        bench.submit(crowd, ticket);
    }
    serve(&mut bench, channel, 10);
    bench.submit(lone, 10_000);
    serve(&mut bench, channel, 3);
    assert_eq!(bench.outcome(lone, 10_000), Some(OutcomeKind::Replied), "ran: {:?}", bench.ran());
}

#[test]
fn under_load_callers_get_what_their_priorities_weigh() {
    let (mut bench, channel) = narrow(|_| {});
    let callers = [Priority::High, Priority::Normal, Priority::Low].map(|priority| {
        let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
        for ticket in 0..500 {
            bench.submit_as(caller, ticket, 8, |new| new.priority = priority);
        }
        caller
    });
    serve(&mut bench, channel, 350);
    let done = callers.map(|caller| bench.told.outcomes.keys().filter(|(other, _)| *other == caller).count());
    assert!(done.iter().zip([200, 100, 50]).all(|(done, share): (&usize, usize)| done.abs_diff(share) < 5), "{done:?}");
}

#[test]
fn under_load_callers_whose_jobs_all_have_one_key_get_no_other_share() {
    let (mut bench, channel) = narrow(|_| {});
    let callers = [Priority::High, Priority::Normal, Priority::Low].map(|priority| {
        let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
        for ticket in 0..500 {
            bench.submit_as(caller, ticket, 8, |new| (new.priority, new.affinity_key) = (priority, b"one"));
        }
        caller
    });
    serve(&mut bench, channel, 350);
    let done = callers.map(|caller| bench.told.outcomes.keys().filter(|(other, _)| *other == caller).count());
    assert!(done.iter().zip([200, 100, 50]).all(|(done, share): (&usize, usize)| done.abs_diff(share) < 5), "{done:?}");
}

#[test]
fn a_quota_of_queued_jobs_at_it_and_one_past() {
    let (mut bench, channel) = narrow(|settings| settings.caller.queued = 2);
    let (caller, other) =
        (bench.scheduler.caller_joined(FrontEnd::Hardserver), bench.scheduler.caller_joined(FrontEnd::Hardserver));
    for ticket in 0..3 {
        assert!(bench.scheduler.has_room(caller), "{ticket}");
        bench.submit(caller, ticket).expect("one is sent, two wait");
    }
    assert!(!bench.scheduler.has_room(caller));
    assert_eq!(bench.submit(caller, 3), None);
    assert_eq!(bench.outcome(caller, 3), Some(OutcomeKind::NotSentCallerQuota));
    assert!(bench.scheduler.has_room(other) && bench.submit(other, 9).is_some(), "it is each caller's own");
    assert!(bench.told.roomy.is_empty());
    serve(&mut bench, channel, 2);
    assert!(bench.told.roomy.contains(&caller), "one of its jobs has left the queue");
    assert!(bench.scheduler.has_room(caller) && bench.submit(caller, 4).is_some());
}

#[test]
fn a_quota_of_bytes_at_it_and_one_past() {
    let (mut bench, channel) = narrow(|settings| settings.caller.bytes = 1500);
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    bench.submit_as(caller, 0, 900, |_| {}).expect("the first");
    assert!(!bench.scheduler.has_room(caller), "one of the largest would not fit");
    bench.submit_as(caller, 1, 600, |_| {}).expect("exactly full");
    assert_eq!(bench.submit_as(caller, 2, 8, |_| {}), None);
    assert_eq!(bench.outcome(caller, 2), Some(OutcomeKind::NotSentCallerQuota));
    serve(&mut bench, channel, 2);
    assert!(bench.told.roomy.contains(&caller));
    assert!(bench.submit_as(caller, 3, 1000, |_| {}).is_some());
}

#[test]
fn a_quota_in_flight_holds_one_caller_back_and_nobody_else() {
    let mut bench = Bench::with(&[&[0], &[1]], 100, 100, HOLD, |settings| settings.caller.in_flight = 2);
    let (channel, elsewhere) = (bench.open(0), bench.open(1));
    let (caller, other) =
        (bench.scheduler.caller_joined(FrontEnd::Hardserver), bench.scheduler.caller_joined(FrontEnd::Hardserver));
    for ticket in 0..5 {
        bench.submit(caller, ticket);
        bench.submit(other, 100 + ticket);
    }
    bench.submit_as(caller, 50, 8, |new| new.world = WorldId(1));
    bench.send_all();
    assert_eq!((bench.held(channel), bench.held(elsewhere)), (4, 0), "two of each");
    // What ends on one machine makes room for what waits for the other one: after the two jobs that waited longer.
    for _ in 0..8 {
        bench.answer(channel, 0, None);
        bench.send_all();
    }
    assert_eq!(bench.held(elsewhere), 1);
    assert!(bench.scheduler.queued(WorldId(0)) + bench.scheduler.queued(WorldId(1)) == 0);
}

#[test]
fn a_queue_is_limited_in_bytes_too() {
    let (mut bench, channel) = narrow(|settings| settings.worlds[0].queue_bytes = Budget::new(1000, 1));
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    bench.submit_as(caller, 0, 1000, |_| {}).expect("sent");
    bench.submit_as(caller, 1, 400, |_| {}).expect("waits");
    bench.submit_as(caller, 2, 600, |_| {}).expect("waits: exactly full");
    assert_eq!(bench.scheduler.queued_bytes(WorldId(0)), 1000);
    assert_eq!(bench.submit_as(caller, 3, 8, |_| {}), None);
    assert_eq!(bench.outcome(caller, 3), Some(OutcomeKind::NotSentQueueFull));
    serve(&mut bench, channel, 2);
    assert_eq!(bench.scheduler.queued_bytes(WorldId(0)), 600 - 600);
    assert!(bench.submit_as(caller, 4, 8, |_| {}).is_some());
}

#[test]
fn large_jobs_have_channels_of_their_own_and_borrow_where_there_are_none() {
    let mut bench = Bench::new(&[&[0]], 100, 100, HOLD);
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    let small = bench.open(0);
    bench.submit_as(caller, 100, 500, |_| {});
    bench.send(small);
    bench.answer(small, 0, None);
    assert!(bench.told.bulk_wanted.is_empty(), "none of the jobs is large");
    bench.submit_as(caller, 0, 501, |_| {});
    assert!(bench.told.bulk_wanted.contains(&MachineId(0)));
    bench.send(small);
    assert_eq!(bench.held(small), 1, "no channel for large ones is up");
    let bulk = bench.open_for(0, SizeClass::Bulk);
    for ticket in 1..5 {
        bench.submit_as(caller, ticket, 500, |_| {});
        bench.submit_as(caller, 10 + ticket, 501, |_| {});
    }
    bench.send_all();
    assert_eq!((bench.held(small), bench.held(bulk)), (5, 4));
    bench.close(small);
    bench.submit_as(caller, 6, 8, |_| {});
    bench.send(bulk);
    assert_eq!(bench.held(bulk), 5);
}

#[test]
fn the_buffer_of_a_large_job_is_used_for_the_next_one() {
    let mut bench = Bench::new(&[&[0]], 10, 10, HOLD);
    let (small, bulk) = (bench.open(0), bench.open_for(0, SizeClass::Bulk));
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    bench.submit_as(caller, 1, 8, |_| {});
    bench.send(small);
    assert_eq!(bench.scheduler.large_buffers().take().capacity(), 0, "that of a small one stays with its channel");
    bench.submit_as(caller, 2, 900, |_| {});
    bench.send(bulk);
    let buffer = bench.scheduler.large_buffers().take();
    assert!(buffer.is_empty() && buffer.capacity() >= 900);
    let room = buffer.capacity();
    bench.scheduler.large_buffers().put_back(buffer);
    bench.submit_as(caller, 3, 900, |_| {});
    assert_eq!(bench.scheduler.large_buffers().take().capacity(), 0, "it is in use");
    bench.send(bulk);
    assert_eq!(bench.scheduler.large_buffers().take().capacity(), room);
}

#[test]
fn retries_end_where_their_budget_does() {
    let mut bench = Bench::with(&[&[0]], 100, 100, HOLD, |settings| settings.retry.reserve = 3);
    let caller = bench.scheduler.caller_joined(FrontEnd::Hardserver);
    let channel = bench.open(0);
    for ticket in 0..20 {
        bench.submit_for(caller, ticket, PATIENCE, true);
    }
    bench.send(channel);
    bench.close(channel);
    let stats = bench.scheduler.world_stats(WorldId(0));
    assert_eq!((stats.retries, stats.retries_refused), (5, 15), "three, and a tenth of twenty");
    assert_eq!(stats.outcomes(OutcomeKind::UnknownTunnelLost), 15);
}
